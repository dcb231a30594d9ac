"""``cli_keys``: API keys from the terminal."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import Result
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from flask_aibridge.api.signals import configuration_changed
from flask_aibridge.cli.keys import key, read_moment, read_span
from flask_aibridge.errors import ConfigError, ServicesUnavailable, Unauthorized
from flask_aibridge.services import api_keys
from flask_aibridge.services.interfaces import Credential, Scopes
from flask_aibridge.services.memory.store import MemoryStore
from flask_aibridge.services.storage import Store

NOBODY = "aaaaaaaaaaaa"


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def run(store: Callable[[], Store] | None, *arguments: str) -> Result:
    app = Flask("host")
    if store is not None:
        app.extensions["aibridge"] = SimpleNamespace(store=store)
    return app.test_cli_runner().invoke(key, arguments)


def create(store: MemoryStore, *arguments: str) -> str:
    """The key, as a pipe gets it."""
    result = run(lambda: store, "create", *arguments)
    assert result.exit_code == 0, result.output
    return result.stdout.removesuffix("\n")


def id_of(key: str) -> str:
    return api_keys.parse(key)[0]


def reason_of(store: Store, key: str) -> str | None:
    try:
        store.authorize(Credential(key=key))
    except Unauthorized as refused:
        return refused.reason
    return None


class TestCreate:
    def test_the_key_alone_is_printed_and_works(self, store: MemoryStore) -> None:
        """What there is to say about it goes to the terminal, and a pipe gets the key."""
        result = run(lambda: store, "create", "ada")
        assert result.exit_code == 0
        text = result.stdout.removesuffix("\n")
        assert store.authorize(Credential(key=text)).user == "ada"
        assert "not shown again" in result.stderr
        assert api_keys.parse(text)[1] not in result.stderr

    def test_everything_may_be_said(self, store: MemoryStore) -> None:
        limits = ["--provider", "openai", "--provider", "anthropic-*", "--model", "gpt-*"]
        text = create(
            store, "ada", "--name", "laptop", "--expires", "30d", "--rate-limit", "60/minute", *limits
        )
        authorization = store.authorize(Credential(key=text))
        assert authorization.display_name == "laptop"
        assert authorization.scopes == Scopes(("openai", "anthropic-*"), ("gpt-*",))
        row = store.api_key(id_of(text))
        assert row is not None
        assert row.key.expires_at is not None
        assert str(row.key.rate_limit) == "60/minute burst=60"
        assert "60/minute burst=60" in run(lambda: store, "list").stdout
        assert timedelta(days=29) < row.key.expires_at - datetime.now(UTC) < timedelta(days=31)

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            (["create", ""], "owner: "),
            (["create", "a\nb"], "control characters"),
            (["create", "ada", "--provider", "Open AI"], "provider's name"),
            (["create", "ada", "--model", "a*b"], "at its end"),
            (["create", "ada", "--expires", "2020-01-01"], "in the future"),
            (["create", "ada", "--expires", "99999d"], "ten years"),
            (["create", "ada", "--rate-limit", "often"], "60/minute burst=20"),
        ],
    )
    def test_wrong_values_are_explained(
        self, store: MemoryStore, arguments: list[str], sentence: str
    ) -> None:
        result = run(lambda: store, *arguments)
        assert result.exit_code == 1
        assert result.stderr.startswith("Error: ")
        assert sentence in result.stderr
        assert store.api_keys().rows == ()

    @pytest.mark.parametrize(
        "expires", ["soon", "30", "d", "30 d", "-1d", "99999999999d", "999999999w", "2030-13-01"]
    )
    def test_what_is_no_time_is_a_wrong_usage(self, store: MemoryStore, expires: str) -> None:
        result = run(lambda: store, "create", "ada", f"--expires={expires}")
        assert result.exit_code == 2
        assert "30d" in result.stderr
        assert store.api_keys().rows == ()


class TestList:
    def test_a_table_newest_first(self, store: MemoryStore) -> None:
        adas = create(store, "ada", "--name", "laptop", "--model", "gpt-*")
        create(store, "bob", "--expires", "2030-12-31")
        result = run(lambda: store, "list")
        assert result.exit_code == 0
        header, *rows = result.stdout.splitlines()
        assert re.split(r" {2,}", header)[:4] == ["id", "owner", "display_name", "status"]
        assert len(rows) == 2
        row = next(row for row in rows if id_of(adas) in row)
        assert re.split(r" {2,}", row)[1:4] == ["ada", "laptop", "active"]
        assert row.endswith("models: gpt-*")
        assert "2030-12-31T00:00:00Z" in result.stdout
        assert api_keys.parse(adas)[1] not in result.stdout

    def test_nothing_in_it_is_for_the_terminal_to_obey(self, store: MemoryStore) -> None:
        """Whatever names a row of the store has: it may be another program's."""
        key_id, secret = api_keys.generate(bytes(api_keys.RANDOM_BYTES))
        store.put_api_key(
            api_keys.new_row(
                key_id, secret, owner="\x1b[2Jme\n", now=datetime.now(UTC), display_name="\x9b\u202e"
            )
        )
        for arguments in (["list"], ["revoke", key_id]):
            output = run(lambda: store, *arguments).output
            assert "me" in output
            assert output.replace("\n", "").isprintable()

    def test_a_narrow_terminal_has_fewer_columns(
        self, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The id, the owner, how it stands and when it expires come first."""
        create(store, "alice-in-wonderland", "--name", "l" * 90, "--expires", "9d")
        monkeypatch.setattr("flask_aibridge.cli.answers.room", lambda: 52)
        lines = run(lambda: store, "list").output.splitlines()
        assert max(map(len, lines)) <= 52
        assert lines[0].split() == ["id", "owner", "status", "expires_at"]

    def test_json(self, store: MemoryStore) -> None:
        adas = create(store, "ada")
        document = json.loads(run(lambda: store, "list", "--json").stdout)
        assert document["count"] == 1
        assert document["keys"][0]["id"] == id_of(adas)
        assert api_keys.parse(adas)[1] not in json.dumps(document)

    def test_of_one_owner(self, store: MemoryStore) -> None:
        create(store, "ada")
        create(store, "bob")
        document = json.loads(run(lambda: store, "list", "--json", "--owner", "bob").stdout)
        assert [shown["owner"] for shown in document["keys"]] == ["bob"]

    def test_where_there_are_none_it_says_how_to_make_one(self, store: MemoryStore) -> None:
        assert "key create OWNER" in run(lambda: store, "list").stdout
        assert json.loads(run(lambda: store, "list", "--json").stdout) == {"count": 0, "keys": []}


class TestChange:
    def test_revoke(self, store: MemoryStore) -> None:
        adas = create(store, "ada")
        for _ in range(2):
            result = run(lambda: store, "revoke", id_of(adas))
            assert result.exit_code == 0
            assert "of ada is revoked" in result.stdout
        assert reason_of(store, adas) == "revoked"

    def test_rotate(self, store: MemoryStore) -> None:
        old = create(store, "ada")
        result = run(lambda: store, "rotate", id_of(old))
        assert result.exit_code == 0
        assert reason_of(store, result.stdout.strip()) is None
        assert reason_of(store, old) == "wrong_secret"

    def test_rotate_with_an_overlap(self, store: MemoryStore) -> None:
        old = create(store, "ada")
        result = run(lambda: store, "rotate", id_of(old), "--overlap", "1h")
        assert reason_of(store, result.stdout.strip()) is None
        assert reason_of(store, old) is None

    @pytest.mark.parametrize("overlap", ["8d", "an hour", "1"])
    def test_a_wrong_overlap_is_a_wrong_usage(self, store: MemoryStore, overlap: str) -> None:
        old = create(store, "ada")
        result = run(lambda: store, "rotate", id_of(old), "--overlap", overlap)
        assert result.exit_code == 2
        assert "--overlap" in result.stderr
        assert reason_of(store, old) is None

    def test_a_revoked_key_is_not_rotated(self, store: MemoryStore) -> None:
        adas = create(store, "ada")
        run(lambda: store, "revoke", id_of(adas))
        result = run(lambda: store, "rotate", id_of(adas))
        assert result.exit_code == 1
        assert "create another one" in result.stderr

    @pytest.mark.parametrize("command", ["revoke", "rotate"])
    def test_an_unknown_key(self, store: MemoryStore, command: str) -> None:
        result = run(lambda: store, command, NOBODY)
        assert (result.exit_code, result.stderr) == (1, "Error: There is no API key with this id.\n")

    def test_changes_are_announced(self, store: MemoryStore) -> None:
        seen: list[Any] = []

        def receive(_sender: Flask, **change: Any) -> None:
            seen.append((change["action"], change["by"]))

        with configuration_changed.connected_to(receive):
            run(lambda: store, "revoke", id_of(create(store, "ada")))
        assert seen == [("created", "the command line"), ("revoked", "the command line")]


COMMANDS = [["create", "ada"], ["list"], ["revoke", NOBODY], ["rotate", NOBODY]]


@pytest.mark.parametrize("arguments", COMMANDS)
@pytest.mark.parametrize(
    "error",
    [ServicesUnavailable("The store is away."), ConfigError("There is no store: set AIBRIDGE_REDIS_URL.")],
)
def test_a_store_that_cannot_be_had_is_a_sentence(error: Exception, arguments: list[str]) -> None:
    def away() -> Store:
        raise error

    result = run(away, *arguments)
    assert (result.exit_code, result.stderr) == (1, f"Error: {error}\n")


@pytest.mark.parametrize("arguments", COMMANDS)
def test_an_application_without_a_bridge_is_told_so(arguments: list[str]) -> None:
    result = run(None, *arguments)
    assert result.exit_code == 1
    assert "init_app" in result.stderr


@given(st.text(max_size=20))
def test_any_text_is_a_time_or_none(text: str) -> None:
    assert isinstance(read_span(text), timedelta | None)
    moment = read_moment(text)
    assert moment is None or moment.tzinfo is UTC


@given(st.integers(0, 10**6), st.sampled_from("smhdw"))
def test_a_span_is_a_number_and_a_unit(number: int, unit: str) -> None:
    seconds = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
    assert read_span(f"{number}{unit}") == timedelta(seconds=number * seconds[unit])


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2030-12-31", datetime(2030, 12, 31, tzinfo=UTC)),
        ("2030-12-31T12:00", datetime(2030, 12, 31, 12, tzinfo=UTC)),
        ("2030-12-31T12:00+02:00", datetime(2030, 12, 31, 10, tzinfo=UTC)),
    ],
)
def test_a_date_is_in_utc_unless_it_says_otherwise(text: str, moment: datetime) -> None:
    assert read_moment(text) == moment
