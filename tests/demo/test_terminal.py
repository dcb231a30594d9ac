"""``demo.terminal``: aligned, wrapped, harmless, and plain where nobody can show colours."""

from __future__ import annotations

import pty
from collections.abc import Iterator
from contextlib import redirect_stdout

import pytest

from flask_aibridge.demo.terminal import Terminal


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("COLUMNS", "40")
    return Terminal({})


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_facts_are_aligned(terminal: Terminal, capsys: pytest.CaptureFixture[str]) -> None:
    """Values begin in one column."""
    terminal.facts([("a", "1"), ("long", "2")])
    assert lines(capsys) == ["   a     1", "   long  2"]


def test_steps_are_numbered(terminal: Terminal, capsys: pytest.CaptureFixture[str]) -> None:
    """So that one can speak about them."""
    terminal.step("first")
    terminal.step("second")
    assert lines(capsys) == ["", "1. first", "", "2. second"]


def test_a_table_is_aligned(terminal: Terminal, capsys: pytest.CaptureFixture[str]) -> None:
    """Numbers to the right, and nothing trails."""
    terminal.table(("name", "n", "end"), [("a", "10", "x"), ("longer", "9", "")], numbers=[1])
    assert lines(capsys) == ["   name     n  end", "   a       10  x", "   longer   9"]


def test_typed_text_is_wrapped_between_pieces(terminal: Terminal, capsys: pytest.CaptureFixture[str]) -> None:
    """Under its own beginning; a piece is never broken."""
    terminal.typed(["one", " two", *[" three"] * 6, "\nfour", " five"])
    assert lines(capsys) == [
        "   < one two three three three three",
        "     three three",
        "     four five",
    ]


def test_each_piece_is_printed_before_the_next_is_asked_for(
    terminal: Terminal, capsys: pytest.CaptureFixture[str]
) -> None:
    """Otherwise nobody would see it stream."""
    seen: list[str] = []

    def pieces() -> Iterator[str]:
        yield "a"
        seen.append(capsys.readouterr().out)
        yield "b"
        seen.append(capsys.readouterr().out)

    terminal.typed(pieces())
    assert seen == ["   < a", "b"]


def test_nothing_typed_is_nothing_printed(terminal: Terminal, capsys: pytest.CaptureFixture[str]) -> None:
    """An answer that failed before its first word leaves no empty line."""
    terminal.typed([])
    assert lines(capsys) == []


def test_a_text_cannot_command_the_terminal(terminal: Terminal, capsys: pytest.CaptureFixture[str]) -> None:
    """A model's text is a stranger's: no escape sequence gets through."""
    terminal.typed(["a\x1b[2J", "\x07b\r"])
    terminal.failure("\x1b]0;title\x07")
    assert not {"\x1b", "\x07", "\r"} & set(capsys.readouterr().out)


@pytest.mark.parametrize("env", [{}, {"NO_COLOR": "1"}])
def test_no_colour_codes_without_a_terminal(env: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """What is piped into a file is text."""
    Terminal(env).title("x")
    assert capsys.readouterr().out == "x\n"


@pytest.mark.parametrize(
    ("env", "colored"), [({}, True), ({"NO_COLOR": ""}, True), ({"NO_COLOR": "1"}, False)]
)
def test_colour_codes_in_a_terminal(env: dict[str, str], colored: bool) -> None:
    """Unless ``NO_COLOR`` asks for none."""
    master, slave = pty.openpty()
    with open(master, "rb", buffering=0) as screen, open(slave, "w") as stdout, redirect_stdout(stdout):
        Terminal(env).title("x")
        stdout.flush()
        assert (b"\x1b[1m" in screen.read(100)) is colored
