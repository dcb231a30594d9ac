"""``flask aibridge interceptions …``: lists for people and for scripts."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import click
import pytest
from click.testing import Result
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from flask_aibridge.api.interceptions import document, full_document
from flask_aibridge.cli import aibridge
from flask_aibridge.cli import following as cli_following
from flask_aibridge.cli import interceptions as cli_interceptions
from flask_aibridge.cli.layout import Column, Layout, cut, fitted, line, printable, width_of, widths
from flask_aibridge.errors import ConfigError, ServicesUnavailable
from flask_aibridge.services.memory.store import MemoryStore
from flask_aibridge.services.storage import Store
from tests.services.contract_records import (
    a_full_start,
    a_prompt,
    a_start,
    a_thought,
    a_usage,
    an_end,
    everything_of,
    now,
)

Run = Callable[..., Result]

HOSTILE = "\x1b]0;owned\x07\x1b[31m\u202eevil\r\n"


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def app_with(open_store: Callable[[], Store]) -> Flask:
    app = Flask("host")
    app.extensions["aibridge"] = SimpleNamespace(store=open_store)
    return app


@pytest.fixture
def run(store: MemoryStore) -> Run:
    def run(*arguments: str) -> Result:
        return app_with(lambda: store).test_cli_runner().invoke(aibridge, ["interceptions", *arguments])

    return run


def test_a_list_is_a_table_newest_first(run: Run, store: MemoryStore) -> None:
    """A line for each, below one of titles."""
    at = datetime(2026, 3, 1, 12, tzinfo=UTC)
    starts = [
        a_start(at - timedelta(seconds=number), model=f"m{number}", client="Codex") for number in range(3)
    ]
    store.record([*starts, an_end(starts[1]), a_usage(starts[1], input=5, cache_read=6, output=7)])
    result = run("list")
    assert result.exit_code == 0
    titles, *lines = result.stdout.splitlines()
    assert titles.split("  ")[0] == "started (UTC)"
    assert [each.split()[-1] for each in lines] == [start.id for start in starts]
    cells = lines[1].split()
    assert cells == [
        "03-01",
        "11:59:59",
        "completed",
        "alice",
        "openai",
        "m1",
        "Codex",
        "11",
        "7",
        "2.0",
        starts[1].id,
    ]
    assert lines[0].split()[-2] == "-"


def test_a_list_for_scripts_has_a_json_object_in_each_line(run: Run, store: MemoryStore) -> None:
    """As the API shows it."""
    start = a_full_start()
    store.record([start, *everything_of(start), a_start()])
    lines = run("list", "--json").stdout.splitlines()
    assert [json.loads(each) for each in lines] == [document(view) for view in _all(store)]
    assert all(each.isascii() for each in lines)


def _all(store: Store) -> Any:
    from flask_aibridge.services.storage import Query

    return store.interceptions(Query()).interceptions


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--user", "alice"], 2),
        (["--initiator", "bob"], 1),
        (["--provider", "main"], 1),
        (["--model", "m1"], 2),
        (["--client", "Codex"], 1),
        (["--source", "agents"], 1),
        (["--session", "s"], 1),
        (["--status", "refused"], 1),
        (["--after", "90m"], 2),
        (["--before", "90m"], 1),
        (["--after", "2020-01-01", "--before", "2020-01-02"], 0),
        (["--user", "alice", "--model", "m1", "--limit", "1"], 1),
    ],
)
def test_a_list_is_filtered(run: Run, store: MemoryStore, options: list[str], found: int) -> None:
    """By whatever the API filters by."""
    at = now()
    starts = [
        a_start(at, model="m1", client="Codex", session_id="s"),
        a_start(at - timedelta(minutes=1), model="m1", source="agents"),
        a_start(at - timedelta(hours=2), initiator="bob", provider="main"),
    ]
    store.record([*starts, an_end(starts[0], "refused")])
    result = run("list", "--json", *options)
    assert (result.exit_code, len(result.stdout.splitlines())) == (0, found), result.output


def test_a_list_goes_on_over_pages(run: Run, store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to its limit, under one line of titles."""
    monkeypatch.setattr(cli_following, "MAX_LIMIT", 10)
    store.record([a_start(now() - timedelta(seconds=number)) for number in range(35)])
    assert len(run("list", "--limit", "25").stdout.splitlines()) == 1 + 25
    assert len(run("list", "--limit", "100").stdout.splitlines()) == 1 + 35


def test_an_empty_list_is_no_error(run: Run) -> None:
    """Nothing is printed for scripts, a sentence for people beside it."""
    result = run("list")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "no such interceptions" in result.stderr
    assert run("list", "--json").output == ""


@pytest.mark.parametrize("command", [["list"], ["list", "--json"], ["show"], ["show", "--json"]])
def test_a_terminal_obeys_nothing_that_came_from_outside(
    run: Run, store: MemoryStore, command: list[str]
) -> None:
    """No escape sequence, no change of direction, no broken line."""
    start = a_start(initiator=HOSTILE, model=HOSTILE, client=HOSTILE, session_id=HOSTILE, provider=HOSTILE)
    end = an_end(start, "upstream_error", error_type=HOSTILE, error_message=HOSTILE)
    store.record(
        [start, end, a_prompt(start, HOSTILE), a_thought(start, HOSTILE), a_usage(start, extra={HOSTILE: 1})]
    )
    result = run(*command, *([start.id] if command[0] == "show" else []))
    assert result.exit_code == 0
    assert all(character.isprintable() or character == "\n" for character in result.stdout)
    if command == ["list"]:
        assert len(result.stdout.splitlines()) == 2


def test_one_is_shown_with_everything(run: Run, store: MemoryStore) -> None:
    """Facts by name, then what was said."""
    start = a_full_start()
    store.record([start, *everything_of(start)])
    shown = run("show", start.id).stdout
    for text in (
        start.id,
        "claude-fable-5",
        "upstream_error",
        "Overloaded. Try again.",
        "reasoning_tokens",
        "Why is the sky blue?",
        "Rayleigh.",
        "Tool call: search",
        '{"query": "sky"}',
        "failed: Timed out.",
    ):
        assert text in shown
    view = store.interception(start.id)
    assert view is not None
    assert json.loads(run("show", start.id, "--json").stdout) == full_document(view)


@pytest.mark.parametrize("text", ["0" * 32, "x", "\x1b[31m"])
def test_an_unknown_one_is_an_error(run: Run, text: str) -> None:
    """Exit code 1, and a sentence."""
    result = run("show", text)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "There is no interception" in result.stderr
    assert "\x1b" not in result.stderr


@pytest.mark.parametrize(
    "options",
    [
        ["--limit", "0"],
        ["--status", "done"],
        ["--after", "soon"],
        ["--after", "999999999w"],
        ["--limit", "1000000"],
    ],
)
def test_a_wrong_option_is_a_wrong_command_line(run: Run, options: list[str]) -> None:
    """Exit code 2, as everywhere."""
    assert run("list", *options).exit_code == 2


@pytest.mark.parametrize("command", [["list"], ["show", "0" * 32], ["tail"]])
@pytest.mark.parametrize(
    ("error", "code"),
    [(ServicesUnavailable("Redis is away."), 75), (ConfigError("AIBRIDGE_REDIS_URL names no store."), 1)],
)
def test_without_a_store_the_exit_code_says_whether_to_try_again(
    command: list[str], error: Exception, code: int
) -> None:
    """75 where it is away, 1 where there is none."""

    def fail() -> Store:
        raise error

    result = app_with(fail).test_cli_runner().invoke(aibridge, ["interceptions", *command])
    assert (result.exit_code, result.stdout) == (code, "")
    assert str(error) in result.stderr


def test_an_app_without_a_bridge_is_told_so() -> None:
    """With what to do."""
    result = Flask("bare").test_cli_runner().invoke(aibridge, ["interceptions", "list"])
    assert result.exit_code == 1
    assert "init_app" in result.stderr


class Looks:
    """Something happens at each look of ``tail``; after the last of them comes Ctrl-C."""

    def __init__(self, *happenings: Callable[[], object]) -> None:
        self.happenings = list(happenings)

    def __call__(self, _seconds: float) -> None:
        if not self.happenings:
            raise KeyboardInterrupt
        self.happenings.pop(0)()


def test_tail_follows_what_comes(run: Run, store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last ones first, oldest at the top; then each as it starts, and again as it ends; Ctrl-C is no error."""
    at = now()
    old = [a_start(at - timedelta(minutes=number)) for number in range(12, 0, -1)]
    new = [a_start(at), a_start(at + timedelta(milliseconds=1))]
    store.record(old)
    looks = Looks(
        lambda: store.record(new),
        lambda: None,
        lambda: store.record([an_end(new[0]), an_end(old[11], "refused")]),
        lambda: None,
    )
    monkeypatch.setattr(cli_interceptions, "_wait", looks)
    result = run("tail", "--json", "-n", "3")
    assert (result.exit_code, result.stderr) == (0, "")
    found = [(each["id"], each["status"]) for each in map(json.loads, result.stdout.splitlines())]
    assert found == [
        *((start.id, "running") for start in old[9:]),
        *((start.id, "running") for start in new),
        (old[11].id, "refused"),
        (new[0].id, "completed"),
    ]


def test_tail_filters(run: Run, store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not match never shows; with a status, only what has come to it."""
    start = a_start()
    looks = Looks(
        lambda: store.record([start, a_start(initiator="bob")]), lambda: store.record([an_end(start)])
    )
    monkeypatch.setattr(cli_interceptions, "_wait", looks)
    shown = run("tail", "--json", "--user", "alice", "--status", "completed").stdout.splitlines()
    assert [json.loads(each)["id"] for each in shown] == [start.id]


def test_tail_of_a_busy_host_looks_at_so_many(
    run: Run, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest; it neither repeats nor grows without end."""
    monkeypatch.setattr(cli_following, "MAX_FOLLOWED", 5)
    batches = [[a_start(now() + timedelta(milliseconds=20 * n + i)) for i in range(20)] for n in range(5)]

    def recording(batch: Any) -> Callable[[], None]:
        return lambda: store.record(batch)

    monkeypatch.setattr(cli_interceptions, "_wait", Looks(*map(recording, batches)))
    shown = [json.loads(each)["id"] for each in run("tail", "--json", "-n", "0").stdout.splitlines()]
    assert shown == [start.id for batch in batches for start in batch[-5:]]


def test_tail_outlives_a_restart_of_the_store(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says once that the store is away, and shows afterwards what came meanwhile."""
    ask, away, start = store.interceptions, [False], a_start()

    def interceptions(*arguments: Any, **options: Any) -> Any:
        if away[0]:
            raise ServicesUnavailable("Redis is away.")
        return ask(*arguments, **options)

    def leave() -> None:
        store.record([start])
        away[0] = True

    monkeypatch.setattr(store, "interceptions", interceptions)
    monkeypatch.setattr(
        cli_interceptions, "_wait", Looks(leave, lambda: None, lambda: away.__setitem__(0, False))
    )
    result = app_with(lambda: store).test_cli_runner().invoke(aibridge, ["interceptions", "tail", "--json"])
    assert (result.exit_code, result.stderr.count("Redis is away.")) == (0, 1)
    assert json.loads(result.stdout)["id"] == start.id


def test_tail_gives_up_on_a_store_that_stays_away(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the exit code that says to try again."""
    monkeypatch.setattr(cli_following, "AWAY_SECONDS", -1.0)

    def leave() -> None:
        monkeypatch.setattr(store, "interceptions", fail)

    def fail(*_: Any, **__: Any) -> Any:
        raise ServicesUnavailable("Redis is away.")

    monkeypatch.setattr(cli_interceptions, "_wait", Looks(leave, lambda: None, lambda: None, lambda: None))
    result = app_with(lambda: store).test_cli_runner().invoke(aibridge, ["interceptions", "tail"])
    assert result.exit_code == 75


COLUMNS = (
    Column("id"),
    Column("model", gives_way=True),
    Column("user", gives_way=True),
    Column("n", right=True),
)
ROWS = st.lists(st.tuples(*[st.text(max_size=40).map(printable)] * 4), max_size=5)


@given(ROWS, st.integers(10, 200))
def test_a_table_fits_as_far_as_its_columns_give_way(rows: list[tuple[str, ...]], room: int) -> None:
    """Ids and numbers stay whole; rows stand under one another."""
    wanted = widths(COLUMNS, rows)
    sizes = fitted(COLUMNS, wanted, room)
    least = [6 if column.gives_way else 0 for column in COLUMNS]
    assert all(min(want, low) <= size <= want for want, low, size in zip(wanted, least, sizes, strict=True))
    fits = sum(sizes) + 6 <= room
    assert fits or all(size <= 6 for column, size in zip(COLUMNS, sizes, strict=True) if column.gives_way)
    for row in rows:
        text = line(COLUMNS, row, sizes)
        assert width_of(text) <= sum(sizes) + 6
        assert text.startswith(row[0].rstrip())


@given(st.text().map(printable), st.integers(1, 50))
def test_a_cut_text_takes_no_more_room(text: str, width: int) -> None:
    """Wide characters count twice."""
    found = cut(text, width)
    assert width_of(found) <= width
    assert found == text or (found.endswith("…") and text.startswith(found[:-1]))


@given(st.text())
def test_printable_text_has_nothing_to_obey(text: str) -> None:
    """Of one line, or of several."""
    assert printable(text).isprintable()
    assert printable(text, lines=True).replace("\n", "").replace("\t", "").isprintable()


def test_a_terminal_gets_a_table_that_fits(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe gets everything."""
    start = a_start(initiator="a" * 50, model="m" * 50, provider="p" * 50)
    store.record([start])
    monkeypatch.setenv("COLUMNS", "120")
    printed: list[str] = []
    monkeypatch.setattr(click, "echo", lambda text="", **_: printed.append(text))
    monkeypatch.setattr(click, "secho", lambda text="", **_: printed.append(text))
    for is_terminal in (True, False):
        monkeypatch.setattr(sys.stdout, "isatty", lambda is_terminal=is_terminal: is_terminal, raising=False)
        cli_interceptions._Printer(as_json=False).print(_all(store))
    assert max(map(len, printed[:2])) <= 120
    assert start.id in printed[1]
    assert "a" * 50 in printed[3]


@pytest.mark.parametrize("room", [40, 60, 80, 100, 120, 200])
def test_a_narrow_terminal_has_fewer_columns_and_whole_ids(room: int) -> None:
    """No line is broken by the terminal, and what ``show`` asks for is always there."""
    row = (
        "01-01 00:00:00",
        "upstream_truncated",
        "u" * 50,
        "p" * 20,
        "m" * 99,
        "b" * 20,
        "9" * 9,
        "9" * 9,
        "9.0",
        "f" * 32,
    )
    layout = Layout(cli_interceptions.COLUMNS, [row], room)
    for text in (layout.titles, layout.line(row)):
        assert width_of(text) <= room
    assert layout.line(row).endswith("f" * 32)
    assert ("upstream_truncated" in layout.line(row)) == (room >= 60)
