"""CSV: whole, bounded, and harmless in a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
from datetime import timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st

from flask_aibridge.api import csv_export, interceptions, sessions
from flask_aibridge.api.csv_export import Chunk, csv_response, defuse
from flask_aibridge.errors import ServicesUnavailable
from flask_aibridge.services.memory.store import MemoryStore
from flask_aibridge.services.storage import Page
from tests.api.management_app import AS_ADMIN, PREFIX, make_app, sent_as, stored_key
from tests.services.contract_records import a_full_start, a_start, everything_of, now

TOKENS = {"input": 1, "output": 2, "cache_read": 0, "cache_write": 0, "extra": {}}
FORMULAS = tuple("=+-@＝＋－＠")


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def client(store: MemoryStore) -> FlaskClient:
    return make_app(lambda: store, parts=("interceptions", "sessions", "usage")).test_client()


def rows_of(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


@given(st.text())
def test_a_defused_cell_is_no_formula(text: str) -> None:
    """Whatever stands before the sign; and nothing but an apostrophe is ever added."""
    cell = defuse(text)
    assert cell in (text, f"'{text}")
    assert not cell.startswith((*FORMULAS, "\t", "\r", "\n"))
    assert not cell.lstrip().startswith(FORMULAS)
    assert defuse(cell) == cell


@given(
    st.text(alphabet=" \t\r\n\x00\x0b\u00a0\u200b\u202e\ufeff\x1b", max_size=5),
    st.sampled_from(FORMULAS),
    st.text(),
)
def test_a_formula_is_defused_behind_whatever_cannot_be_seen(before: str, sign: str, after: str) -> None:
    """Spaces, breaks, marks of direction, zero-width characters."""
    assert defuse(before + sign + after) == f"'{before}{sign}{after}"


@pytest.mark.parametrize(
    "text", ["", "a=1", "gpt-5", "Zoë", "1-2", "'=1", "a\tb", "  plain", "\u200b", "_x", "(a)"]
)
def test_what_is_no_formula_stays_as_it_is(text: str) -> None:
    """Signs inside are harmless."""
    assert defuse(text) == text


@given(st.lists(st.text(), min_size=1, max_size=20), st.integers(1, 5))
def test_cells_come_back_as_they_were(names: list[str], size: int) -> None:
    """By a reader of RFC 4180: every row is there, with CRLF at its end, however it was cut into pages."""
    rows = [{"name": name, "token_usage": TOKENS} for name in names]
    chunks = [Chunk(rows[at : at + size], None) for at in range(0, len(rows), size)]
    response = csv_response("x", ("name", "input_tokens"), chunks)
    text = response.get_data(as_text=True)
    assert rows_of(text) == [["name", "input_tokens"], *([defuse(name), "1"] for name in names)]
    assert text.endswith("\r\n")


@pytest.mark.parametrize("how", ["?format=csv", ""])
def test_interceptions_are_exported(client: FlaskClient, store: MemoryStore, how: str) -> None:
    """By the parameter, or by the Accept header; a column for each kind of token."""
    start = a_full_start()
    store.record([start, *everything_of(start)])
    headers = AS_ADMIN if how else {**AS_ADMIN, "Accept": "text/csv"}
    response = client.get(f"{PREFIX}/interceptions{how}", headers=headers)
    assert response.headers["Content-Type"] == "text/csv; charset=utf-8; header=present"
    assert response.headers["Content-Disposition"] == 'attachment; filename="interceptions.csv"'
    assert response.headers["Cache-Control"] == "no-store"
    header, row = rows_of(response.text)
    assert header == list(interceptions.COLUMNS)
    shown = dict(zip(header, row, strict=True))
    assert (shown["id"], shown["source"], shown["cache_read_tokens"]) == (start.id, "agents", "21")
    assert json.loads(shown["extra_tokens"]) == {"reasoning_tokens": 39, "web search: requests": 51}


def test_hostile_names_are_defused(client: FlaskClient, store: MemoryStore) -> None:
    """Users, models, clients and sessions are chosen outside."""
    evil = '=HYPERLINK("https://x.example","click")'
    store.record([a_start(initiator=evil, model="+1", client="@x", session_id="\t=1", source="-2")])
    row = dict(
        zip(*rows_of(client.get(f"{PREFIX}/interceptions?format=csv", headers=AS_ADMIN).text), strict=True)
    )
    assert row["initiator"] == f"'{evil}"
    assert (row["model"], row["client"], row["session_id"], row["source"]) == ("'+1", "'@x", "'\t=1", "'-2")
    row = dict(zip(*rows_of(client.get(f"{PREFIX}/sessions?format=csv", headers=AS_ADMIN).text), strict=True))
    assert (row["id"], row["models"]) == ("'\t=1", "'+1")


def test_an_export_has_every_page(
    client: FlaskClient, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the order of the list, each once."""
    monkeypatch.setattr(csv_export, "PAGE", 7)
    starts = [a_start(now() - timedelta(seconds=number)) for number in range(30)]
    store.record(starts)
    _, *rows = rows_of(client.get(f"{PREFIX}/interceptions?format=csv", headers=AS_ADMIN).text)
    assert [row[0] for row in rows] == [start.id for start in starts]


def test_a_long_export_says_that_it_is_cut(
    client: FlaskClient, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its last row, with the cursor of the rest."""
    monkeypatch.setattr(csv_export, "PAGE", 4)
    monkeypatch.setattr(csv_export, "MAX_ROWS", 10)
    starts = [a_start(now() - timedelta(seconds=number)) for number in range(15)]
    store.record(starts)
    _, *rows, last = rows_of(client.get(f"{PREFIX}/interceptions?format=csv", headers=AS_ADMIN).text)
    assert [row[0] for row in rows] == [start.id for start in starts[:10]]
    assert last[0].startswith("# Cut after 10 rows.")
    cursor = last[0].partition("cursor=")[2]
    rest = client.get(f"{PREFIX}/interceptions?format=csv&cursor={cursor}", headers=AS_ADMIN).text
    assert [row[0] for row in rows_of(rest)[1:]] == [start.id for start in starts[10:]]


def test_a_limit_cuts_an_export(client: FlaskClient, store: MemoryStore) -> None:
    """As it cuts a page."""
    store.record([a_start(session_id=str(number)) for number in range(5)])
    for path in ("interceptions", "sessions"):
        _, *rows, last = rows_of(client.get(f"{PREFIX}/{path}?format=csv&limit=2", headers=AS_ADMIN).text)
        assert (len(rows), last[0][:18]) == (2, "# Cut after 2 rows")


def test_sessions_and_usage_are_exported(client: FlaskClient, store: MemoryStore) -> None:
    """The columns of usage are what it is grouped by."""
    store.record([a_start(session_id="one", model=model) for model in ("m1", "m2")])
    header, row = rows_of(client.get(f"{PREFIX}/sessions?format=csv", headers=AS_ADMIN).text)
    assert header == list(sessions.COLUMNS)
    assert dict(zip(header, row, strict=True))["models"] == "m1; m2"
    url = f"{PREFIX}/usage?format=csv&group_by=user,day"
    header, row = rows_of(client.get(url, headers=AS_ADMIN).text)
    assert header[:4] == ["user", "period", "requests", "input_tokens"]
    assert (row[0], row[2]) == ("alice", "2")


def test_an_empty_export_has_a_header(client: FlaskClient) -> None:
    """So that programs need no special case."""
    for path in ("interceptions", "sessions", "usage"):
        assert len(rows_of(client.get(f"{PREFIX}/{path}?format=csv", headers=AS_ADMIN).text)) == 1


@pytest.mark.parametrize(
    ("accept", "is_csv"),
    [
        ("text/csv", True),
        ("text/csv, */*;q=0.1", True),
        ("application/json", False),
        ("*/*", False),
        ("text/html, */*;q=0.8", False),
        ("text/*", True),
        ("image/png", False),
        ("", False),
    ],
)
def test_json_is_what_is_not_asked_to_be_csv(client: FlaskClient, accept: str, is_csv: bool) -> None:
    """The parameter goes before the header."""
    headers = {**AS_ADMIN, "Accept": accept}
    assert (client.get(f"{PREFIX}/interceptions", headers=headers).mimetype == "text/csv") == is_csv
    assert client.get(f"{PREFIX}/interceptions?format=json", headers=headers).mimetype == "application/json"


def test_what_is_wrong_is_a_problem_also_of_an_export(client: FlaskClient) -> None:
    """The first page is asked for before anything is sent."""
    for query in ("format=csv&cursor=x", "format=csv&nonsense=1"):
        response = client.get(f"{PREFIX}/interceptions?{query}", headers=AS_ADMIN)
        assert (response.status_code, response.mimetype) == (400, "application/problem+json")
    assert client.get(f"{PREFIX}/interceptions?format=csv").status_code == 401


def test_users_export_their_own(client: FlaskClient, store: MemoryStore) -> None:
    """The same rows as in JSON."""
    store.record([a_start(initiator=user) for user in ("alice", "bob")])
    as_alice = sent_as(stored_key(store, "alice"))
    _, row = rows_of(client.get(f"{PREFIX}/interceptions?format=csv", headers=as_alice).text)
    assert row[1] == "alice"


def test_an_export_that_fails_on_the_way_breaks_off(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part must not look like the whole."""
    monkeypatch.setattr(csv_export, "PAGE", 2)
    store.record([a_start() for _ in range(5)])
    ask = store.interceptions

    def fail_later(query: Any, *, limit: int = 100, cursor: str | None = None) -> Page:
        if cursor is not None:
            raise ServicesUnavailable("The store is away.")
        return ask(query, limit=limit, cursor=cursor)

    monkeypatch.setattr(store, "interceptions", fail_later)
    client = make_app(lambda: store, parts=("interceptions",)).test_client()
    response = client.get(f"{PREFIX}/interceptions?format=csv", headers=AS_ADMIN, buffered=False)
    assert response.status_code == 200
    with pytest.raises(ServicesUnavailable):
        response.get_data()
    response.close()
