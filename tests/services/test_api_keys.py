"""``services.api_keys``: how keys are spelled, made, hashed and checked."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_aibridge.errors import Unauthorized
from flask_aibridge.services import api_keys
from flask_aibridge.services.interfaces import Authorization, Credential, Scopes
from flask_aibridge.services.storage import APIKeyRow

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
RANDOMNESS = bytes(range(api_keys.RANDOM_BYTES))
ID, SECRET = api_keys.generate(RANDOMNESS)
OTHER_SECRET = api_keys.generate(RANDOMNESS[::-1])[1]

randomness = st.binary(min_size=api_keys.RANDOM_BYTES, max_size=api_keys.RANDOM_BYTES)


def make_row(
    *, expires_at: datetime | None = None, revoked_at: datetime | None = None, **more: Any
) -> APIKeyRow:
    row = api_keys.new_row(ID, SECRET, owner="ada", now=NOW, expires_at=expires_at)
    return replace(row, key=replace(row.key, revoked_at=revoked_at), **more)


@given(randomness)
def test_a_generated_key_has_the_form_and_parses_back(data: bytes) -> None:
    key_id, secret = api_keys.generate(data)
    key = api_keys.spell(key_id, secret)
    assert re.fullmatch(r"aib_[a-z0-9]{12}_[A-Za-z0-9]{43}", key)
    assert api_keys.parse(key) == (key_id, secret)
    assert api_keys.key_id_of(Credential(key=key)) == key_id


@given(randomness, randomness)
def test_no_bit_of_the_secret_is_lost(one: bytes, other: bytes) -> None:
    """Keys of other random bytes have other secrets: 43 digits hold all 256 bits."""
    same = api_keys.generate(one)[1] == api_keys.generate(other)[1]
    assert same == (one[8:] == other[8:])


def test_the_largest_secret_has_no_more_digits() -> None:
    """2²⁵⁶ − 1 needs 43 digits in base 62, so none is dropped."""
    assert 62**api_keys.SECRET_LENGTH > 2**256
    key_id, secret = api_keys.generate(b"\xff" * api_keys.RANDOM_BYTES)
    assert len(key_id) == 12
    assert len(secret) == 43


@pytest.mark.parametrize("size", [0, api_keys.RANDOM_BYTES - 1, api_keys.RANDOM_BYTES + 1])
def test_too_little_randomness_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="40 random bytes"):
        api_keys.generate(b"x" * size)


@given(st.text())
def test_anything_else_is_malformed(text: str) -> None:
    """Whatever is sent is parsed or refused; nothing else happens."""
    with pytest.raises(Unauthorized) as refused:
        api_keys.parse(text)
    assert refused.value.reason == "malformed"
    assert api_keys.key_id_of(Credential(key=text)) is None


KEY = api_keys.spell(ID, SECRET)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "aib_",
        "aib__",
        f"aib_{ID}",
        f"aib_{ID}_",
        f"aib_{ID}_{SECRET[:-1]}",
        f"aib_{ID}_{'x' * 129}",
        f"aib_{ID[:-1]}_{SECRET}",
        f"aib_{ID.upper()}_{SECRET}",
        f"AIB_{ID}_{SECRET}",
        f"sk-{KEY}",
        f"{KEY}_",
        f"{KEY}\n",
        f" {KEY}",
        KEY.replace(SECRET, SECRET[:-1] + "é"),
        KEY.replace(SECRET, SECRET[:-1] + "-"),
        KEY.replace(ID, ID[:-1] + "٣"),
    ],
)
def test_what_is_nearly_a_key_is_malformed(key: str) -> None:
    with pytest.raises(Unauthorized, match="malformed"):
        api_keys.parse(key)


def test_a_refusal_does_not_show_the_key() -> None:
    with pytest.raises(Unauthorized) as refused:
        api_keys.parse(f"{KEY}!")
    assert SECRET not in repr(refused.value) + str(refused.value)


def test_a_credential_by_id_names_its_key() -> None:
    assert api_keys.key_id_of(Credential(key_id="whatever")) == "whatever"


def test_the_hash_is_sha_256_in_hexadecimal() -> None:
    assert api_keys.secret_hash(SECRET) == hashlib.sha256(SECRET.encode()).hexdigest()


@given(st.text())
def test_any_text_has_a_hash(text: str) -> None:
    assert re.fullmatch("[0-9a-f]{64}", api_keys.secret_hash(text + "\ud800"))


@pytest.mark.parametrize(
    ("expired", "wrong", "revoked", "reason"),
    [
        (False, False, False, None),
        (False, False, True, "revoked"),
        (False, True, False, "wrong_secret"),
        (False, True, True, "wrong_secret"),
        (True, False, False, "expired"),
        (True, False, True, "expired"),
        (True, True, False, "expired"),
        (True, True, True, "expired"),
    ],
)
def test_the_checks_are_made_in_the_order_of_the_model(
    expired: bool, wrong: bool, revoked: bool, reason: str | None
) -> None:
    row = make_row(expires_at=NOW if expired else None, revoked_at=NOW if revoked else None)
    assert api_keys.check(row, OTHER_SECRET if wrong else SECRET, NOW) == reason


@pytest.mark.parametrize(("revoked", "reason"), [(False, None), (True, "revoked")])
def test_by_its_id_a_key_is_checked_for_all_but_the_secret(revoked: bool, reason: str | None) -> None:
    assert api_keys.check(make_row(revoked_at=NOW if revoked else None), None, NOW) == reason


@pytest.mark.parametrize(
    ("offset", "reason"), [(-SECOND, None), (0 * SECOND, "expired"), (SECOND, "expired")]
)
def test_a_key_expires_at_its_moment(offset: timedelta, reason: str | None) -> None:
    assert api_keys.check(make_row(expires_at=NOW), SECRET, NOW + offset) == reason


@pytest.mark.parametrize(("offset", "reason"), [(-SECOND, None), (0 * SECOND, "wrong_secret")])
def test_a_rotated_secret_is_accepted_until_its_overlap_ends(offset: timedelta, reason: str | None) -> None:
    row = api_keys.rotated(make_row(), OTHER_SECRET, NOW)
    assert api_keys.check(row, OTHER_SECRET, NOW + offset) is None
    assert api_keys.check(row, SECRET, NOW + offset) == reason


def test_without_an_overlap_the_old_secret_is_forgotten() -> None:
    row = api_keys.rotated(make_row(), OTHER_SECRET, None)
    assert (row.old_hash, row.old_until) == (None, None)
    assert api_keys.check(row, SECRET, NOW) == "wrong_secret"


def test_an_old_secret_without_a_time_is_not_accepted() -> None:
    row = make_row(secret_hash=api_keys.secret_hash(OTHER_SECRET), old_hash=api_keys.secret_hash(SECRET))
    assert api_keys.check(row, SECRET, NOW) == "wrong_secret"


def test_an_empty_secret_fits_nothing() -> None:
    assert api_keys.check(make_row(), "", NOW) == "wrong_secret"


def test_hashes_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both hashes are compared by ``hmac.compare_digest``, whichever fits."""
    compared = []
    real = hmac.compare_digest

    def spy(one: str, other: str) -> bool:
        compared.append(other)
        return real(one, other)

    monkeypatch.setattr(hmac, "compare_digest", spy)
    row = api_keys.rotated(make_row(), OTHER_SECRET, NOW + SECOND)
    for secret in (SECRET, OTHER_SECRET, "neither"):
        compared.clear()
        api_keys.check(row, secret, NOW)
        assert compared == [row.secret_hash, row.old_hash]


def test_revoking_again_keeps_the_time() -> None:
    row = api_keys.revoked(make_row(), NOW)
    assert row.key.revoked_at == NOW
    assert api_keys.revoked(row, NOW + SECOND) == row


def test_standing_is_for_people() -> None:
    assert api_keys.standing(make_row().key, NOW) == "active"
    assert api_keys.standing(make_row(expires_at=NOW).key, NOW) == "expired"
    assert api_keys.standing(make_row(expires_at=NOW, revoked_at=NOW).key, NOW) == "revoked"


def test_a_key_authorises_its_owner() -> None:
    scopes = Scopes(providers=("openai",))
    row = api_keys.new_row(ID, SECRET, owner="ada", now=NOW, display_name="laptop", scopes=scopes)
    assert api_keys.authorization_of(row.key) == Authorization("ada", ID, "laptop", scopes)
    assert api_keys.authorization_of(make_row().key).display_name is None


def test_a_row_shows_no_hash() -> None:
    row = api_keys.rotated(make_row(), OTHER_SECRET, NOW)
    assert api_keys.secret_hash(SECRET) not in repr(row)
    assert api_keys.secret_hash(OTHER_SECRET) not in repr(row)


@pytest.mark.parametrize(
    ("headers", "presented"),
    [
        ({}, ()),
        ({"HTTP_AUTHORIZATION": "Bearer a"}, ("a",)),
        ({"HTTP_AUTHORIZATION": "  bEARER   a  "}, ("a",)),
        ({"HTTP_AUTHORIZATION": "Basic a"}, ()),
        ({"HTTP_AUTHORIZATION": "Bearer"}, ()),
        ({"HTTP_AUTHORIZATION": "Bearer "}, ()),
        ({"HTTP_X_API_KEY": " b "}, ("b",)),
        ({"HTTP_X_API_KEY": " "}, ()),
        ({"HTTP_AUTHORIZATION": "Bearer a", "HTTP_X_API_KEY": "b"}, ("a", "b")),
        ({"HTTP_AUTHORIZATION": "Bearer a", "HTTP_X_API_KEY": "a"}, ("a",)),
    ],
)
def test_a_key_is_presented_in_either_header(headers: dict[str, str], presented: tuple[str, ...]) -> None:
    assert api_keys.presented_keys(headers) == presented
