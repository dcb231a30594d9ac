"""``services.sealing``: what is sealed opens for its purpose alone, and shows nothing."""

from __future__ import annotations

import copy
import threading
from base64 import urlsafe_b64decode, urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_aibridge.config import MIN_SECRET
from flask_aibridge.errors import ConfigError, SecretKeyMissing, ServiceError, Unsealable
from flask_aibridge.services.configuration.sealing import NONCE_BYTES, Sealer, secret_key_missing

OLD = "old-" * 10
NEW = "new-" * 10
SECRET = "sk-very-secret"
SEALER = Sealer([NEW])

ANY_TEXT = st.text(st.characters(exclude_categories=[]))
PURPOSES = st.lists(ANY_TEXT, max_size=4)


@given(text=ANY_TEXT, purpose=PURPOSES)
def test_what_is_sealed_opens_again(text: str, purpose: list[str]) -> None:
    """Any text, for any purpose, lone surrogates too."""
    assert SEALER.open(SEALER.seal(text, *purpose), *purpose) == text


@given(text=st.text(min_size=4), purpose=PURPOSES)
def test_a_sealed_text_shows_nothing_of_it(text: str, purpose: list[str]) -> None:
    """And it is ASCII, on one line."""
    sealed = SEALER.seal(text, *purpose)

    assert sealed.isascii()
    assert sealed.isprintable()
    assert text.encode() not in urlsafe_b64decode(sealed.rpartition(".")[2])


def test_the_same_text_is_sealed_differently_each_time() -> None:
    """Nobody sees that two users have the same token."""
    assert len({SEALER.seal(SECRET, "x") for _ in range(100)}) == 100


@given(text=ANY_TEXT, bit=st.integers(min_value=0))
def test_any_flipped_bit_is_refused(text: str, bit: int) -> None:
    """In nonce, ciphertext or tag."""
    head, _, body = SEALER.seal(text, "p").rpartition(".")
    raw = bytearray(urlsafe_b64decode(body))
    raw[bit // 8 % len(raw)] ^= 1 << bit % 8

    with pytest.raises(Unsealable):
        SEALER.open(f"{head}.{urlsafe_b64encode(raw).decode()}", "p")


@given(text=ANY_TEXT, position=st.integers(min_value=0), character=st.characters(exclude_categories=[]))
def test_any_changed_character_is_refused(text: str, position: int, character: str) -> None:
    """Of the whole text, version and key id too: base64's unused bits are no way around it."""
    sealed = SEALER.seal(text, "p")
    position %= len(sealed)
    changed = sealed[:position] + character + sealed[position + 1 :]
    if changed == sealed:
        return
    with pytest.raises(Unsealable):
        SEALER.open(changed, "p")


@given(text=ANY_TEXT, cut=st.integers(min_value=0))
def test_a_cut_text_is_refused(text: str, cut: int) -> None:
    """At any place, from either end."""
    sealed = SEALER.seal(text, "p")
    cut %= len(sealed)
    for part in (sealed[:cut], sealed[cut + 1 :]):
        with pytest.raises(Unsealable):
            SEALER.open(part, "p")


@given(sealed=ANY_TEXT)
def test_arbitrary_text_is_refused(sealed: str) -> None:
    """With the one error there is."""
    with pytest.raises(Unsealable):
        SEALER.open(sealed)


@given(purpose=PURPOSES, other=PURPOSES)
def test_another_purpose_is_refused(purpose: list[str], other: list[str]) -> None:
    """A sealed text cannot be moved to another row; the parts of a purpose do not run into one another."""
    sealed = SEALER.seal("text", *purpose)
    if purpose == other:
        return
    with pytest.raises(Unsealable):
        SEALER.open(sealed, *other)


@pytest.mark.parametrize("other", [("a:b",), ("a", "b", ""), ("", "a", "b"), ("b", "a"), ("a",), ("ab",)])
def test_parts_that_look_alike_are_different(other: tuple[str, ...]) -> None:
    """However a name is spelled."""
    with pytest.raises(Unsealable):
        SEALER.open(SEALER.seal("text", "a", "b"), *other)


def test_two_spellings_of_a_character_are_different() -> None:
    """Half by half, as JSON can spell it, it is another name."""
    with pytest.raises(Unsealable):
        SEALER.open(SEALER.seal("text", "\U00010000"), "\ud800\udc00")


class TestRotation:
    def test_the_first_seals_and_all_open(self) -> None:
        """So old values stay readable, and new ones need the new key alone."""
        both = Sealer([NEW, OLD])
        old = Sealer([OLD]).seal(SECRET, "p")

        assert both.open(old, "p") == SECRET
        assert SEALER.open(both.seal(SECRET, "p"), "p") == SECRET

    def test_what_should_be_sealed_again_can_be_told(self) -> None:
        """Without opening it."""
        both = Sealer([NEW, OLD])

        assert both.is_current(both.seal(SECRET))
        assert not both.is_current(Sealer([OLD]).seal(SECRET))
        assert not both.is_current("")

    def test_a_key_that_is_gone_is_named_as_the_reason(self) -> None:
        """The key's name, not the value."""
        with pytest.raises(Unsealable, match="a key that is not in AIBRIDGE_SECRET_KEY") as caught:
            SEALER.open(Sealer([OLD]).seal(SECRET, "p"), "p")
        assert SECRET not in str(caught.value)
        assert OLD not in str(caught.value)

    def test_digests_fit_under_any_key(self) -> None:
        """A rotation alone is no change of what was digested."""
        both = Sealer([NEW, OLD])

        assert both.digest_fits(Sealer([OLD]).digest("text", "p"), "text", "p")
        assert both.digest_fits(both.digest("text", "p"), "text", "p")
        assert not SEALER.digest_fits(Sealer([OLD]).digest("text", "p"), "text", "p")


@given(text=ANY_TEXT, other=ANY_TEXT, purpose=PURPOSES)
def test_digests_tell_texts_apart(text: str, other: str, purpose: list[str]) -> None:
    """And fit what they were made of, for the purpose they were made for."""
    digest = SEALER.digest(text, *purpose)

    assert SEALER.digest_fits(digest, text, *purpose)
    assert SEALER.digest_fits(digest, other, *purpose) is (text == other)
    assert not SEALER.digest_fits(digest, text, *purpose, "more")
    assert not SEALER.digest_fits(other, text, *purpose)


class TestSecretKeys:
    @pytest.mark.parametrize("secret", ["", "zw$q", "x" * (MIN_SECRET - 1)])
    def test_a_short_one_is_refused_with_a_sentence(self, secret: str) -> None:
        """That says how long it must be, how to make one, and nothing of the key."""
        with pytest.raises(
            ConfigError, match=f"AIBRIDGE_SECRET_KEY is too short.* {MIN_SECRET} characters"
        ) as caught:
            Sealer([NEW, secret])
        assert "secrets.token_urlsafe(32)" in str(caught.value)
        assert secret == "" or secret not in str(caught.value)

    def test_the_shortest_is_accepted(self) -> None:
        """The bound is inclusive, and characters need not be ASCII."""
        sealer = Sealer(["ä" * MIN_SECRET])
        assert sealer.open(sealer.seal(SECRET)) == SECRET

    def test_none_is_an_error_that_says_how_to_make_one(self) -> None:
        """It is a matter of configuration."""
        with pytest.raises(
            SecretKeyMissing, match="AIBRIDGE_SECRET_KEY is not set.*secrets.token_urlsafe"
        ) as caught:
            Sealer([])
        assert isinstance(caught.value, ConfigError)
        assert "so tokens cannot be stored." in str(secret_key_missing("tokens cannot be stored"))

    def test_a_single_text_is_misuse(self) -> None:
        """Its characters would be taken for keys."""
        with pytest.raises(TypeError):
            Sealer(NEW)


def test_nothing_secret_is_in_its_repr() -> None:
    """Not the key, and nothing derived from it."""
    sealer = Sealer([NEW, OLD])
    shown = repr(sealer) + repr(sealer._keys)

    assert repr(sealer) == "<Sealer with 2 key(s)>"
    assert NEW not in shown
    assert repr(sealer._keys[0].digest) not in shown


def test_an_unsealable_value_is_a_service_error() -> None:
    """Whoever expects services to fail expects this too."""
    assert issubclass(Unsealable, ServiceError)
    assert str(copy.copy(Unsealable("x"))) == "x"


def test_threads_share_one(deadline: float) -> None:
    """No two seal with the same nonce."""
    sealed: list[str] = []
    threads = [
        threading.Thread(target=lambda: sealed.extend(SEALER.seal(SECRET) for _ in range(50)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(deadline)

    assert len({urlsafe_b64decode(one.rpartition(".")[2])[:NONCE_BYTES] for one in sealed}) == 200
    assert {SEALER.open(one) for one in sealed} == {SECRET}
