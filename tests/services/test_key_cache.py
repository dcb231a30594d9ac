"""A key that was accepted lately is accepted while the services are away; one refused since is not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flask_aibridge.errors import UnauthorizedReason
from flask_aibridge.services.interfaces import Authorization, Credential, Scopes
from flask_aibridge.services.recording.key_cache import REMEMBERED_SECONDS, KeyCache

ID = "abcdefghijkl"
KEY = Credential(key=f"aib_{ID}_{'A' * 43}")
ROTATED = Credential(key=f"aib_{ID}_{'B' * 43}")
BY_ID = Credential(key_id=ID)
OTHER = Credential(key=f"aib_{'z' * 12}_{'A' * 43}")
ADA = Authorization("ada", ID, "laptop", Scopes(providers=("openai",), models=("gpt-*",)))
BOB = Authorization("bob", "z" * 12)


def filled() -> KeyCache:
    cache = KeyCache()
    for credential in (KEY, ROTATED, BY_ID):
        cache.accept(credential, ADA, asked_at=100.0)
    cache.accept(OTHER, BOB, asked_at=100.0)
    return cache


def test_an_acceptance_is_kept_with_its_scopes() -> None:
    """What a key is limited to holds during an outage, too."""
    assert filled().find(KEY, 101.0) == ADA
    assert ADA.scopes.models == ("gpt-*",)


def test_a_key_that_was_never_seen_is_not_found() -> None:
    """Nor is the id of one that was seen as a key only."""
    cache = KeyCache()
    cache.accept(KEY, ADA, asked_at=0.0)

    assert cache.find(OTHER, 0.0) is None
    assert cache.find(BY_ID, 0.0) is None


def test_ten_minutes_count_from_the_answer_of_the_services() -> None:
    """To be found does not make an acceptance any younger."""
    cache = filled()

    assert cache.find(KEY, 100.0 + REMEMBERED_SECONDS) == ADA
    assert cache.find(KEY, 100.1 + REMEMBERED_SECONDS) is None
    assert cache.find(KEY, 101.0) is None  # it is forgotten, not hidden


def test_a_new_answer_makes_an_acceptance_younger() -> None:
    """And replaces what it said."""
    cache = filled()
    cache.accept(KEY, Authorization("eve", ID), asked_at=500.0)

    assert cache.find(KEY, 500.0 + REMEMBERED_SECONDS) == Authorization("eve", ID)


def test_a_revoked_key_is_forgotten_by_every_name() -> None:
    """By the secret that was refused, by another one, and by its id; other keys stay."""
    for refused in (KEY, ROTATED, BY_ID):
        cache = filled()
        cache.refuse(refused, "revoked", 200.0)

        assert [cache.find(each, 201.0) for each in (KEY, ROTATED, BY_ID)] == [None, None, None]
        assert cache.find(OTHER, 201.0) == BOB


def test_a_wrong_secret_says_nothing_about_the_key() -> None:
    """Whoever knows an id, but no secret, cannot shut its owner out."""
    cache = filled()
    cache.refuse(ROTATED, "wrong_secret", 200.0)

    assert cache.find(ROTATED, 201.0) is None
    assert cache.find(KEY, 201.0) == ADA


def test_an_answer_that_was_on_its_way_does_not_bring_a_refused_key_back() -> None:
    """The services accepted a key before it was revoked; their answer comes after the refusal."""
    cache = KeyCache()
    cache.refuse(KEY, "revoked", 200.0)
    for credential in (KEY, BY_ID, ROTATED):
        cache.accept(credential, ADA, asked_at=199.0)

    assert [cache.find(each, 201.0) for each in (KEY, ROTATED, BY_ID)] == [None, None, None]


def test_a_refused_key_may_be_accepted_again() -> None:
    """The services have the last word."""
    cache = filled()
    cache.refuse(KEY, "revoked", 200.0)
    cache.accept(KEY, ADA, asked_at=201.0)

    assert cache.find(KEY, 202.0) == ADA


def test_the_number_of_acceptances_is_bounded() -> None:
    """The one that was confirmed longest ago goes first."""
    cache = KeyCache(max_accepted=2)
    for number, credential in enumerate((KEY, OTHER, KEY, ROTATED)):
        cache.accept(credential, ADA, asked_at=float(number))

    assert len(cache) == 2
    assert cache.find(OTHER, 4.0) is None
    assert cache.find(KEY, 4.0) == ADA


def test_a_flood_of_wrong_keys_pushes_nobody_out() -> None:
    """Refusals have a bound of their own."""
    cache = filled()
    for number in range(5000):
        cache.refuse(Credential(key=f"wrong-{number}"), "malformed", 200.0)

    assert cache.find(KEY, 201.0) == ADA
    assert len(cache._refused) <= 1000


def test_the_cache_holds_no_key() -> None:
    """Not even in a dump of its memory."""
    cache = filled()
    cache.refuse(ROTATED, "revoked", 200.0)

    assert "A" * 43 not in repr(vars(cache))
    assert "B" * 43 not in repr(vars(cache))


CREDENTIALS = st.sampled_from([KEY, ROTATED, BY_ID])
REASONS: list[UnauthorizedReason] = ["revoked", "expired", "unknown", "wrong_secret"]


@given(st.lists(st.tuples(CREDENTIALS, st.booleans(), st.sampled_from(REASONS)), max_size=30))
def test_nothing_outlives_its_refusal(steps: list[tuple[Credential, bool, UnauthorizedReason]]) -> None:
    """After any history, a credential is found only if its last acceptance is later than all that speaks against it."""
    cache, accepted, refused = KeyCache(), dict[Credential, float](), dict[Credential, float]()
    for now, (credential, is_accepted, reason) in enumerate(steps):
        if is_accepted:
            cache.accept(credential, ADA, asked_at=float(now))
            accepted[credential] = now
        else:
            cache.refuse(credential, reason, float(now))
            names = [credential] if reason == "wrong_secret" else [KEY, ROTATED, BY_ID]
            refused |= {each: float(now) for each in names}
    for credential in (KEY, ROTATED, BY_ID):
        expected = accepted.get(credential, -1.0) > refused.get(credential, -0.5)
        assert (cache.find(credential, 50.0) is not None) == expected
