"""Pure: the patterns that say which tools of an MCP server may be used, and which of them are refused.

Python's ``re`` tries every way in which a pattern can match, and holds the interpreter while it does. A pattern that
takes for ever on some text would let the one who chooses the text, here an MCP server by the names of its tools, stop
the process. So the patterns are short, and what makes ``re`` try ever more ways is bounded: a repetition of something
that itself repeats or has alternatives is refused, and one branch may hold so many repetitions and no more. That
leaves all that tool names need.
"""

from __future__ import annotations

import re
from typing import Final

MAX_PATTERN: Final = 512
"""Characters of a pattern: dozens of tool names with alternatives between them."""

MAX_OPEN: Final = 3
"""Repetitions, with an end (``{2,5}``) or without (``*``, ``+``, ``{2,}``), on the way through a pattern. On a tool
name of 128 characters three are some ten million steps at the very worst: a fraction of a second."""

MAX_OPTIONAL: Final = 8
"""``?`` on the way through a pattern; each may double the ways."""

_ESCAPED = re.compile(r"\\.", re.DOTALL)
_CLASS = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_QUANTIFIER = re.compile(r"([*+]|\{\d*,?\d*\}|\?)[?+]?")
_GROUP_HEAD = re.compile(r"\((?:\?(?:P<\w+>|P=|[aiLmsu-]*:|[aiLmsu]+(?=\))|>|<?[=!]))?")
_UNREAD = re.compile(r"\(\?(?:#|\(|[aiLmsu-]*x)")
"""Comments, conditions and the verbose form, which the reader below does not read."""


class WrongPattern(ValueError):
    """A pattern cannot be used; the message says why, as the end of a sentence that begins with its name."""


def compiled(pattern: str) -> re.Pattern[str]:
    """The pattern, to be searched for in the bare names of tools.

    :raises WrongPattern: for one that is broken, or may take for ever.
    """
    if len(pattern) > MAX_PATTERN:
        raise WrongPattern(f"is longer than {MAX_PATTERN} characters")
    try:
        found = re.compile(pattern)
    except (re.error, RecursionError, OverflowError, FutureWarning) as error:
        raise WrongPattern(f"is no regular expression: {error}") from None
    _refuse_explosive(pattern)
    return found


class _Branch:
    """What stands between two ``|`` of one group, so far."""

    __slots__ = ("last_is_complex", "open", "optional")

    def __init__(self) -> None:
        self.open = 0
        self.optional = 0
        self.last_is_complex = False


class _Group:
    """A group that is being read: the costs of its dearest branch, and of the present one."""

    __slots__ = ("branch", "has_choice", "open", "optional")

    def __init__(self) -> None:
        self.open = 0
        self.optional = 0
        self.has_choice = False
        self.branch = _Branch()

    def end_branch(self) -> None:
        self.open = max(self.open, self.branch.open)
        self.optional = max(self.optional, self.branch.optional)
        self.branch = _Branch()

    @property
    def is_complex(self) -> bool:
        """Whether there is more than one way through it; ``has_choice`` counts alternatives at any depth."""
        return self.has_choice or self.open > 0 or self.optional > 0


def _refuse_explosive(pattern: str) -> None:
    groups = [_Group()]
    position = 0
    while position < len(pattern):
        position = _read_one(pattern, position, groups)
    if len(groups) != 1 or _UNREAD.search(pattern):
        raise WrongPattern(
            "has a comment, a condition or the verbose flag, or is too intricate; write it plainly"
        )
    groups[0].end_branch()
    _check(groups[0].open, groups[0].optional)


def _read_one(pattern: str, position: int, groups: list[_Group]) -> int:
    """Read what begins at ``position``; where the next begins."""
    character = pattern[position]
    group = groups[-1]
    if character == "(":
        groups.append(_Group())
        head = _GROUP_HEAD.match(pattern, position)
        return head.end() if head else position + 1
    if character == ")" and len(groups) > 1:
        _close(groups)
    elif character == "|":
        group.has_choice = True
        group.end_branch()
    elif quantifier := _QUANTIFIER.match(pattern, position):
        _repeat(group.branch, quantifier[1])
        return quantifier.end()
    else:
        group.branch.last_is_complex = False
        atom = _ESCAPED.match(pattern, position) or _CLASS.match(pattern, position)
        return atom.end() if atom else position + 1
    return position + 1


def _close(groups: list[_Group]) -> None:
    closed = groups.pop()
    closed.end_branch()
    branch = groups[-1].branch
    branch.open += closed.open
    branch.optional += closed.optional
    branch.last_is_complex = closed.is_complex
    groups[-1].has_choice |= closed.has_choice


def _repeat(branch: _Branch, quantifier: str) -> None:
    if quantifier == "?":
        branch.optional += 1
    else:
        if branch.last_is_complex:
            raise WrongPattern(
                "repeats a group that itself has a repetition or an alternative in it, which may take for ever to "
                "search for; write it without"
            )
        branch.open += 1
    branch.last_is_complex = True


def _check(repetitions: int, optional: int) -> None:
    if repetitions > MAX_OPEN or optional > MAX_OPTIONAL:
        raise WrongPattern(
            f"has more than {MAX_OPEN} repetitions, or more than {MAX_OPTIONAL} '?', one behind the other, which may "
            "take for ever to search for; write it with fewer, or in alternatives"
        )
