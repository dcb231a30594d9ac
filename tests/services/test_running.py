"""What a process has running: known until it has ended, and bounded."""

from __future__ import annotations

from flask_aibridge.services.recording.running import Running


def test_what_was_admitted_runs_until_it_ends() -> None:
    """In the order it came; an end twice, or of what is not known, changes nothing."""
    running = Running()
    for each in ("a", "b", "c"):
        running.add(each)
    running.discard("b")
    running.discard("b")
    running.discard("z")
    assert len(running) == 2
    assert running.take() == ["a", "c"]
    assert running.take() == []


def test_it_is_bounded() -> None:
    """What comes when it is full is left to a sweep."""
    running = Running(2)
    for each in ("a", "b", "c", "b"):
        running.add(each)
    assert running.take() == ["a", "b"]


def test_a_child_has_nothing_running() -> None:
    """It is its parent's."""
    running = Running()
    running.add("a")
    running.clear()
    assert running.take() == []
