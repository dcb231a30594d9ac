"""The contract of a store's rate limits: counted in the one call that admits, by the store's own clock."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from flask_aibridge.config import RateLimit, parse_rate_limit
from flask_aibridge.errors import RateLimited, Unauthorized
from flask_aibridge.services import api_keys
from flask_aibridge.services.interfaces import Credential
from flask_aibridge.services.records import SHARDS, InterceptionStart, shard_of_key
from flask_aibridge.services.storage import Store
from tests.services.contract_records import a_key_row, a_start, read
from tests.services.servers import wait_until

KEY_ID = "key000000001"
SECRET = "S" * api_keys.SECRET_LENGTH
KEY = Credential(key=api_keys.spell(KEY_ID, SECRET))
THREE_A_DAY = parse_rate_limit("3/day")
FAST = parse_rate_limit("5/second burst=1")


class RateContract:
    """Tests over the fixture ``store``."""

    def test_a_burst_is_let_through_and_what_remains_is_said(self, store: Store) -> None:
        """Then the next is refused, with the time to wait: a third of a day, less what the test took."""
        _put(store)
        standings = [store.admit(None, KEY, limit=THREE_A_DAY).rate for _ in range(3)]
        assert [each and each.remaining for each in standings] == [2, 1, 0]
        assert all(each is not None and each.limit == THREE_A_DAY for each in standings)
        last = standings[-1]
        assert last is not None
        assert 86400 / 3 - 60 < last.reset_after <= 86400 / 3
        for _ in range(2):
            with pytest.raises(RateLimited) as refused:
                store.admit(None, KEY, limit=THREE_A_DAY)
            assert refused.value.limit == str(THREE_A_DAY)
            assert 86400 / 3 - 60 < refused.value.retry_after <= 86400 / 3

    def test_nothing_is_recorded_of_a_request_that_is_refused(self, store: Store) -> None:
        """Nor is the key used."""
        _put(store)
        store.admit(None, KEY, limit=parse_rate_limit("1/day"))
        start = _start()
        with pytest.raises(RateLimited):
            store.admit(start, KEY, limit=parse_rate_limit("1/day"))
        assert store.interception(start.id) is None
        assert store.admit(start, KEY).rate is None
        assert read(store, start).start.initiator == "alice"

    def test_without_a_limit_nothing_is_counted(self, store: Store) -> None:
        """Neither for a key, nor for a name."""
        _put(store)
        for _ in range(3):
            assert store.admit(None, KEY).rate is None
            assert store.admit(_start(), None, counted_as="static").rate is None

    def test_a_key_s_own_limit_takes_the_place_of_the_gateway_s(self, store: Store) -> None:
        """Whether that is larger, smaller or none; and it comes back with the key and with whom it belongs to."""
        _put(store, THREE_A_DAY)
        row = store.api_key(KEY_ID)
        assert row is not None
        assert row.key.rate_limit == THREE_A_DAY
        assert store.authorize(KEY).rate_limit == THREE_A_DAY
        for limit in (None, parse_rate_limit("1/day"), parse_rate_limit("1000/second")):
            admission = store.admit(None, KEY, limit=limit)
            assert admission.authorization is not None
            assert admission.authorization.rate_limit == THREE_A_DAY
            assert admission.rate is not None
        with pytest.raises(RateLimited):
            store.admit(None, KEY)

    def test_in_process_callers_and_questions_are_not_counted(self, store: Store) -> None:
        """A key that is named by its id alone, and one whose owner is only asked for."""
        _put(store, parse_rate_limit("1/day"))
        for _ in range(3):
            assert store.admit(_start(), Credential(key_id=KEY_ID), limit=THREE_A_DAY).rate is None
            store.authorize(KEY)
        assert store.admit(None, KEY).rate is not None

    def test_a_key_that_is_not_accepted_is_not_counted(self, store: Store) -> None:
        """Whoever guesses secrets does not keep the owner out."""
        _put(store, parse_rate_limit("1/day"))
        wrong = Credential(key=api_keys.spell(KEY_ID, "T" * api_keys.SECRET_LENGTH))
        for _ in range(3):
            with pytest.raises(Unauthorized):
                store.admit(None, wrong)
        store.admit(None, KEY)

    def test_the_same_start_is_counted_once(self, store: Store) -> None:
        """An admission may be asked for again, where its answer was lost."""
        _put(store)
        start, limit = _start(), parse_rate_limit("1/day")
        for _ in range(3):
            admission = store.admit(start, KEY, limit=limit)
            assert admission.rate is not None
            assert admission.rate.remaining == 0
        with pytest.raises(RateLimited):
            store.admit(_start(), KEY, limit=limit)

    @pytest.mark.parametrize("name", ["static000001", "user:Zoë {1}", "user:" + "x" * 250])
    @pytest.mark.parametrize("recorded", [False, True])
    def test_those_who_were_settled_elsewhere_are_counted_by_name(
        self, store: Store, name: str, recorded: bool
    ) -> None:
        """Whatever shard their interceptions are in."""
        for number in range(3):
            start = a_start(shard=(5 * number) % SHARDS) if recorded else None
            admission = store.admit(start, None, limit=THREE_A_DAY, counted_as=name)
            assert admission.authorization is None
            assert admission.rate is not None
            assert admission.rate.remaining == 2 - number
            if start is not None:
                assert read(store, start).start == start
        with pytest.raises(RateLimited):
            store.admit(a_start() if recorded else None, None, limit=THREE_A_DAY, counted_as=name)
        assert store.admit(None, None, limit=THREE_A_DAY, counted_as="another").rate is not None

    def test_what_was_used_up_comes_back(self, store: Store) -> None:
        """One request after each interval, for as long as somebody asks."""
        _put(store)
        waits: list[float] = []

        def is_let_through() -> bool:
            try:
                store.admit(None, KEY, limit=FAST)
            except RateLimited as refused:
                waits.append(refused.retry_after)
                return False
            return True

        for _ in range(3):
            wait_until(is_let_through, "what comes back")
        assert all(0 < wait <= 1 / 5 for wait in waits)

    def test_many_at_once_are_never_more_than_the_limit(self, store: Store) -> None:
        """A hundred and sixty requests from eight threads, of which ten may pass."""
        _put(store)
        limit = parse_rate_limit("10/day")

        def admit(number: int) -> bool:
            try:
                store.admit(_start() if number % 2 else None, KEY, limit=limit)
            except RateLimited:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(admit, range(160))) == 10


def _put(store: Store, limit: RateLimit | None = None) -> None:
    store.put_api_key(a_key_row(KEY_ID, secret_hash=api_keys.secret_hash(SECRET), rate_limit=limit))


def _start() -> InterceptionStart:
    return replace(a_start(shard=shard_of_key(KEY_ID)), initiator=None)
