"""What interceptions come to: sums, and sessions."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from flask_aibridge.services.storage import InterceptionView, TokenSums
from flask_aibridge.services.summaries import session_of, sum_tokens
from tests.services.contract_records import a_start, an_end, now

COUNTS = st.integers(0, 10**12)
SUMS = st.builds(
    TokenSums,
    input=COUNTS,
    output=COUNTS,
    cache_read=COUNTS,
    cache_write=COUNTS,
    extra=st.dictionaries(st.sampled_from("abc"), COUNTS),
)


@given(st.lists(SUMS))
def test_each_kind_of_token_is_summed(sums: list[TokenSums]) -> None:
    """Extra kinds by their name."""
    total = sum_tokens(sums)
    assert (total.input, total.output) == (
        sum(each.input for each in sums),
        sum(each.output for each in sums),
    )
    assert (total.cache_read, total.cache_write) == (
        sum(each.cache_read for each in sums),
        sum(each.cache_write for each in sums),
    )
    assert set(total.extra) == {name for each in sums for name in each.extra}
    for name, count in total.extra.items():
        assert count == sum(each.extra.get(name, 0) for each in sums)


def test_a_session_spans_its_interceptions() -> None:
    """In whatever order they come; its client is the newest one's."""
    at = now()
    old = a_start(at - timedelta(hours=1), session_id="one", model="m2", client="Codex")
    new = a_start(at, session_id="one", model="m1", client="Zed")
    views = [
        InterceptionView(start=start, status="completed", end=an_end(start), tokens=TokenSums(input=1))
        for start in (new, old)
    ]
    session = session_of(views)
    assert session == session_of(views[::-1])
    assert (session.id, session.client, session.models, session.interceptions) == (
        "one",
        "Zed",
        ("m1", "m2"),
        2,
    )
    assert (session.started_at, session.last_active_at) == (old.started_at, at)
    assert (session.ended_at, session.tokens.input) == (at + timedelta(seconds=2), 2)


def test_a_session_with_a_running_interception_has_not_ended() -> None:
    """And one without an id of its own has its interception's; empty names are none."""
    start = a_start(session_id="", model="")
    session = session_of([InterceptionView(start=start, status="running", end=None, tokens=TokenSums())])
    assert (session.id, session.ended_at, session.models) == (start.id, None, ())
