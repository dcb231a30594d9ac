"""``flask aibridge demo``: an application that shows, in a terminal, one answer streaming through both doors.

``providers`` says whom it talks to, ``application`` is the app that it serves, ``conversation`` asks and reads the
answer by either door, ``terminal`` prints, and ``command`` is the order of events.
"""
