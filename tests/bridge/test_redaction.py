"""A secret is taken out of bytes, whatever pieces they come in."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_aibridge.bridge.redaction import Redactor

SECRETS = ["sk-secret-1", "aaaaaaaaab", "abababab"]


@given(
    st.sampled_from(SECRETS),
    st.lists(st.one_of(st.sampled_from([*SECRETS, "abab", "aaaa", "sk-"]), st.text("abk-s", max_size=5))),
    st.data(),
)
def test_nothing_of_a_secret_is_left_and_lengths_hold(
    secret: str, words: list[str], data: st.DataObject
) -> None:
    """As ``bytes.replace`` on the whole would have it, but for secrets that overlap."""
    text = "".join(words).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    redactor = Redactor(secret)
    passed = b"".join(redactor.feed(text[one:other]) for one, other in pairwise([0, *cuts, len(text)]))
    passed += redactor.finish()
    assert len(passed) == len(text)
    assert secret.encode() not in passed
    if secret.encode() not in text:
        assert passed == text


def test_an_end_that_may_be_a_beginning_waits() -> None:
    """And nothing else does."""
    redactor = Redactor("sk-secret")
    assert redactor.feed(b"key: sk-sec") == b"key: "
    assert redactor.feed(b"ond, sk") == b"sk-second, "
    assert redactor.feed(b"-secret.") == b"*********."
    assert redactor.finish() == b""


@pytest.mark.parametrize("place", range(len("a sk-secret b") + 1))
def test_a_secret_may_be_cut_anywhere(place: int) -> None:
    """Before its last character, too."""
    redactor, text = Redactor("sk-secret"), b"a sk-secret b"
    assert redactor.feed(text[:place]) + redactor.feed(text[place:]) + redactor.finish() == b"a ********* b"
