"""Reading JSON of which nothing is certain."""

from __future__ import annotations

from flask_aibridge.bridge.intercept.documents import member, parse_document


def test_documents_that_are_none() -> None:
    """Neither broken JSON, nor JSON of another kind, nor one nested beyond reason is an error here."""
    for data in (b"", b"[]", b"{", b"\xff", b"[" * 100_000, b'{"a":' * 100_000, b"1"):
        assert parse_document(data) is None


def test_the_last_of_two_members_counts() -> None:
    """As with every parser that the providers are known to use."""
    assert parse_document(b'{"a": 1, "a": NaN, "b": {"c": 2}}')["b"] == {"c": 2}  # type: ignore[index]


def test_a_member_that_is_no_object_is_an_empty_one() -> None:
    """Whoever reads on finds nothing."""
    assert member({"a": {"b": 1}}, "a") == {"b": 1}
    assert member({"a": 1}, "a") == member({}, "a") == {}
