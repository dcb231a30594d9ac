"""The contract of a store's API keys, and of the admission of requests by them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from flask_aibridge.errors import InvalidRecord, Unauthorized
from flask_aibridge.services import api_keys
from flask_aibridge.services.interfaces import Admission, Authorization, Credential, Scopes
from flask_aibridge.services.records import SHARDS, shard_of_key
from flask_aibridge.services.storage import MAX_LIMIT, APIKeyPage, APIKeyRow, Query, Store
from tests.services.contract_records import (
    ODD_NAMES,
    a_full_key_row,
    a_full_start,
    a_key_row,
    a_start,
    a_usage,
    an_end,
    new_id,
    now,
    read,
    usage_around,
)

KEY_ID = "key000000001"
SECRET = "S" * api_keys.SECRET_LENGTH
OTHER_SECRET = "T" * api_keys.SECRET_LENGTH
KEY = Credential(key=api_keys.spell(KEY_ID, SECRET))
PAST, FUTURE = now() - timedelta(days=1), now() + timedelta(days=1)


class KeyContract:
    """Tests over the fixture ``store``."""

    def test_every_field_of_a_key_comes_back(self, store: Store) -> None:
        """A row is read as it was put."""
        row = a_full_key_row()
        store.put_api_key(row)
        assert store.api_key(KEY_ID) == row
        assert store.api_keys() == APIKeyPage(count=1, rows=(row,), next=None)

    def test_what_a_key_does_not_have_comes_back_null(self, store: Store) -> None:
        """So does the difference between no limits and limits that allow nothing."""
        row = a_key_row(scopes=Scopes((), ()))
        store.put_api_key(row)
        assert store.api_key(KEY_ID) == row
        row = a_key_row(scopes=Scopes(None, ("x",)))
        store.put_api_key(row)
        assert store.api_key(KEY_ID) == row

    def test_putting_a_key_again_replaces_all_of_it(self, store: Store) -> None:
        """What the new row does not have, the stored one has no more."""
        full = a_full_key_row()
        store.put_api_key(replace(full, key=replace(full.key, revoked_at=None)))
        row = a_key_row()
        store.put_api_key(row)
        assert store.api_key(KEY_ID) == row
        assert store.api_keys() == APIKeyPage(count=1, rows=(row,), next=None)

    def test_a_revoked_key_stays_revoked(self, store: Store) -> None:
        """A row that was read before that, as a rotation's may be, does not bring it back."""
        row = _row()
        store.put_api_key(replace(row, key=replace(row.key, revoked_at=PAST)))
        store.put_api_key(row)
        store.put_api_key(replace(row, key=replace(row.key, revoked_at=FUTURE)))
        stored = store.api_key(KEY_ID)
        assert stored is not None
        assert stored.key.revoked_at == PAST
        with pytest.raises(Unauthorized) as refused:
            store.authorize(KEY)
        assert refused.value.reason == "revoked"

    @pytest.mark.parametrize("name", ODD_NAMES, ids=ascii)
    def test_owners_may_be_called_anything(self, store: Store, name: str) -> None:
        """Names come from outside."""
        row = a_key_row(owner=name, display_name=name, scopes=Scopes((name,), (name, name)))
        store.put_api_key(row)
        assert store.api_key(KEY_ID) == row
        assert store.authorize(Credential(key_id=KEY_ID)).user == name

    def test_there_is_no_key_where_none_was_put(self, store: Store) -> None:
        """One is null, all are none."""
        assert store.api_key("key000000009") is None
        assert store.api_key("") is None
        assert store.api_keys() == APIKeyPage(count=0, rows=(), next=None)

    def test_keys_are_listed_newest_first(self, store: Store) -> None:
        """Of every shard."""
        rows = [
            a_key_row(f"key{number:09}", created_at=now() - timedelta(minutes=number * 7 % 40))
            for number in range(40)
        ]
        for row in rows:
            store.put_api_key(row)
        listed = sorted(rows, key=lambda row: (row.key.created_at, row.key.id), reverse=True)
        assert list(store.api_keys().rows) == listed

    @pytest.mark.parametrize("limit", [1, 3, 7, 40, 1000])
    @pytest.mark.parametrize("owner", [None, "alice", "bob", "nobody"])
    def test_pages_of_keys_have_each_once(self, store: Store, owner: str | None, limit: int) -> None:
        """In order, also those of one moment, and those of one owner; with the number of all."""
        moment = now()
        rows = [
            a_key_row(
                f"key{number:09}",
                owner="alice" if number % 3 else "bob",
                created_at=moment - timedelta(milliseconds=number // 20),
            )
            for number in range(50)
        ]
        for row in rows:
            store.put_api_key(row)
        expected = [row for row in rows if owner in (None, row.key.owner)]
        expected.sort(key=lambda row: (row.key.created_at, row.key.id), reverse=True)
        found, cursor, is_last = list[APIKeyRow](), None, False
        while not is_last:
            page = store.api_keys(owner, limit=limit, cursor=cursor)
            assert page.count == len(expected)
            assert len(page.rows) == min(limit, len(expected) - len(found))
            found += page.rows
            cursor, is_last = page.next, page.next is None
        assert found == expected

    def test_what_comes_meanwhile_does_not_move_the_pages_of_keys(self, store: Store) -> None:
        """A cursor stands between two keys; what changes hands is listed under its new owner alone."""
        moment = now()
        rows = [
            a_key_row(f"key{number:09}", created_at=moment - timedelta(hours=number)) for number in range(6)
        ]
        for row in rows:
            store.put_api_key(row)
        first = store.api_keys(limit=2)
        moved = replace(rows[4], key=replace(rows[4].key, owner="carol"))
        for row in (a_key_row("key000000009", created_at=moment + timedelta(hours=1)), moved):
            store.put_api_key(row)
        assert store.api_keys(limit=10, cursor=first.next).rows == (rows[2], rows[3], moved, rows[5])
        assert store.api_keys("carol").rows == (moved,)
        assert [row.key.id for row in store.api_keys(rows[0].key.owner).rows] == [
            f"key{number:09}" for number in (9, 0, 1, 2, 3, 5)
        ]

    def test_a_cursor_of_another_list_of_keys_is_refused(self, store: Store) -> None:
        """Of another owner's, or of something else; and pages have bounds."""
        for number in range(3):
            store.put_api_key(a_key_row(f"key{number:09}"))
        store.record([a_start() for _ in range(2)])
        of_keys, of_interceptions = store.api_keys(limit=1).next, store.interceptions(Query(), limit=1).next
        for owner, cursor in (("alice", of_keys), (None, of_interceptions), (None, "x"), (None, "")):
            with pytest.raises(ValueError):
                store.api_keys(owner, cursor=cursor)
        for limit in (0, -1, MAX_LIMIT + 1):
            with pytest.raises(ValueError):
                store.api_keys(limit=limit)

    def test_a_key_says_whose_it_is(self, store: Store) -> None:
        """With its name and its limits, by the key and by its id."""
        scopes = Scopes(("main",), ("claude-*",))
        store.put_api_key(_row(owner="Zoë", display_name="laptop", scopes=scopes))
        expected = Authorization("Zoë", KEY_ID, "laptop", scopes)
        assert store.authorize(KEY) == expected
        assert store.authorize(Credential(key_id=KEY_ID)) == expected

    @pytest.mark.parametrize(
        ("row", "credential", "reason"),
        [
            ({}, Credential(key="no key"), "malformed"),
            ({}, Credential(key=""), "malformed"),
            ({}, Credential(key=f"aib_{KEY_ID}"), "malformed"),
            ({}, Credential(key=api_keys.spell("key000000002", SECRET)), "unknown"),
            ({}, Credential(key_id="key000000002"), "unknown"),
            ({}, Credential(key_id=""), "unknown"),
            ({"expires_at": PAST}, KEY, "expired"),
            ({"expires_at": PAST}, Credential(key_id=KEY_ID), "expired"),
            ({"expires_at": PAST, "revoked_at": PAST}, Credential(key_id=KEY_ID), "expired"),
            (
                {"expires_at": PAST, "revoked_at": PAST},
                Credential(key=api_keys.spell(KEY_ID, OTHER_SECRET)),
                "expired",
            ),
            ({}, Credential(key=api_keys.spell(KEY_ID, OTHER_SECRET)), "wrong_secret"),
            ({"revoked_at": PAST}, Credential(key=api_keys.spell(KEY_ID, OTHER_SECRET)), "wrong_secret"),
            ({"revoked_at": PAST}, KEY, "revoked"),
            ({"revoked_at": PAST}, Credential(key_id=KEY_ID), "revoked"),
        ],
    )
    def test_a_credential_is_refused_for_the_first_reason_there_is(
        self, store: Store, row: dict[str, Any], credential: Credential, reason: str
    ) -> None:
        """In the order of the model; by ``authorize`` and ``admit`` alike; and nothing is recorded."""
        store.put_api_key(_row(**row))
        start = a_start(shard=shard_of_key(credential.key_id or KEY_ID))
        with pytest.raises(Unauthorized) as refused:
            store.authorize(credential)
        assert refused.value.reason == reason
        with pytest.raises(Unauthorized) as refused:
            store.admit(start, credential)
        assert refused.value.reason == reason
        with pytest.raises(Unauthorized):
            store.admit(None, credential)
        assert store.interception(start.id) is None
        assert store.interceptions(Query()).count == 0
        assert usage_around(store, start.started_at) == ()
        stored = store.api_key(KEY_ID)
        assert stored is not None
        assert stored.key.last_used_at is None

    def test_after_a_rotation_both_secrets_are_accepted_for_a_time(self, store: Store) -> None:
        """The old one until the overlap ends."""
        old_key, new_key = KEY, Credential(key=api_keys.spell(KEY_ID, OTHER_SECRET))
        store.put_api_key(api_keys.rotated(_row(), OTHER_SECRET, FUTURE))
        assert store.authorize(old_key) == store.authorize(new_key)
        assert store.admit(None, old_key) == store.admit(None, new_key)
        store.put_api_key(api_keys.rotated(_row(), OTHER_SECRET, PAST))
        store.authorize(new_key)
        for ask in (store.authorize, lambda credential: store.admit(None, credential)):
            with pytest.raises(Unauthorized) as refused:
                ask(old_key)
            assert refused.value.reason == "wrong_secret"

    def test_a_key_is_accepted_until_it_expires(self, store: Store) -> None:
        """An end in the future refuses nothing."""
        store.put_api_key(_row(expires_at=FUTURE))
        assert store.authorize(KEY).user == "alice"
        assert store.admit(None, KEY).authorization == store.authorize(KEY)

    def test_use_is_noted_and_outlives_a_change(self, store: Store) -> None:
        """By an admission, to the millisecond; putting the key again leaves it."""
        store.put_api_key(_row())
        before = now()
        store.admit(a_start(shard=shard_of_key(KEY_ID)), KEY)
        used = _last_use(store)
        assert before - timedelta(seconds=1) <= used <= now() + timedelta(seconds=1)
        store.put_api_key(_row(display_name="renamed"))
        stored = store.api_key(KEY_ID)
        assert stored is not None
        assert (stored.key.display_name, stored.key.last_used_at) == ("renamed", used)

    def test_an_admission_records_on_whose_behalf(self, store: Store) -> None:
        """The start is kept with its initiator and key filled in, whatever was in them."""
        store.put_api_key(_row(owner="Zoë", display_name="laptop"))
        start = replace(a_full_start(shard=shard_of_key(KEY_ID)), initiator=None, key_id=None)
        admission = store.admit(start, KEY)
        assert admission == Admission(
            Authorization("Zoë", KEY_ID, "laptop", Scopes()), store.config_version()
        )
        view = read(store, start)
        assert view.start == replace(start, initiator="Zoë", key_id=KEY_ID)
        assert view.status == "running"
        assert store.interceptions(Query(initiator="Zoë")).count == 1
        (row,) = usage_around(store, start.started_at, user="Zoë")
        assert row.requests == 1
        forged = a_start(shard=shard_of_key(KEY_ID), initiator="mallory", key_id="key000000002")
        store.admit(forged, KEY)
        assert (read(store, forged).start.initiator, read(store, forged).start.key_id) == ("Zoë", KEY_ID)

    def test_an_admission_twice_records_once(self, store: Store) -> None:
        """With the same answer; also after the end, which it does not take back."""
        store.put_api_key(_row())
        start = a_start(shard=shard_of_key(KEY_ID), initiator=None)
        admission = store.admit(start, KEY)
        assert store.admit(start, KEY) == admission
        end = an_end(start)
        store.record([end, a_usage(start, input=1)])
        assert store.admit(start, KEY) == admission
        view = read(store, start)
        assert (view.end, view.tokens.input) == (end, 1)
        assert store.interceptions(Query()).count == 1
        assert sum(row.requests for row in usage_around(store, start.started_at)) == 1

    def test_an_admission_joins_what_came_before_it(self, store: Store) -> None:
        """As a start does that is recorded."""
        start = a_start(shard=5)
        store.record([a_usage(start, input=3), an_end(start)])
        store.admit(start, None)
        view = read(store, start)
        assert (view.status, view.tokens.input) == ("completed", 3)

    def test_without_a_credential_the_start_is_kept_as_it_is(self, store: Store) -> None:
        """Nobody is authorised; the version is told."""
        start = a_full_start()
        assert store.admit(start, None) == Admission(None, store.config_version())
        assert read(store, start).start == start

    def test_without_a_start_nothing_is_recorded(self, store: Store) -> None:
        """The caller is authorised all the same."""
        store.put_api_key(_row())
        admission = store.admit(None, KEY)
        assert admission.authorization == store.authorize(KEY)
        assert store.admit(None, None) == Admission(None, store.config_version())
        assert store.interceptions(Query()).count == 0

    def test_an_admission_tells_the_version(self, store: Store) -> None:
        """As it is after a change that this store has made, in every shard."""
        store.put_api_key(_row())
        version = store.put_config_row("providers", "main", "{}")
        assert version > 0
        for shard in range(SHARDS):
            assert store.admit(a_start(shard=shard), None).config_version == version
        assert store.admit(None, KEY).config_version == version
        assert store.admit(None, None).config_version == version

    def test_any_key_goes_with_any_shard(self, store: Store) -> None:
        """A start of another shard than its key's is admitted too, in more round trips."""
        store.put_api_key(_row())
        for shard in range(SHARDS):
            start = a_start(shard=shard, initiator=None)
            admission = store.admit(start, KEY)
            assert store.admit(start, KEY) == admission
            assert (read(store, start).start.initiator, read(store, start).start.key_id) == ("alice", KEY_ID)
        assert store.interceptions(Query(initiator="alice")).count == SHARDS

    def test_an_impossible_start_is_refused(self, store: Store) -> None:
        """Before anything is recorded."""
        with pytest.raises(InvalidRecord):
            store.admit(replace(a_start(), id="x"), None)
        with pytest.raises(InvalidRecord):
            store.admit(replace(a_start(), started_at=now().replace(tzinfo=None)), None)
        assert store.interceptions(Query()).count == 0

    def test_nothing_secret_is_shown(self, store: Store) -> None:
        """Neither by the store nor by what it answers or refuses."""
        store.put_api_key(_row())
        start = a_start(new_at := now(), shard=shard_of_key(KEY_ID), id=new_id(new_at, shard_of_key(KEY_ID)))
        shown = [repr(store), repr(store.api_keys()), repr(store.admit(start, KEY))]
        with pytest.raises(Unauthorized) as refused:
            store.authorize(Credential(key=api_keys.spell(KEY_ID, OTHER_SECRET)))
        shown += [repr(refused.value), str(refused.value)]
        for text in shown:
            assert SECRET not in text
            assert OTHER_SECRET not in text
            assert api_keys.secret_hash(SECRET) not in text


def _row(**fields: Any) -> APIKeyRow:
    return a_key_row(KEY_ID, secret_hash=api_keys.secret_hash(SECRET), **fields)


def _last_use(store: Store) -> Any:
    stored = store.api_key(KEY_ID)
    assert stored is not None
    assert stored.key.last_used_at is not None
    return stored.key.last_used_at
