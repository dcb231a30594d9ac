"""``license.schedule``: what any number of licences decide together, second by second."""

from __future__ import annotations

from itertools import pairwise
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_aibridge.license.refusals import LEAD, Refusal
from flask_aibridge.license.schedule import (
    EXPIRED,
    NOT_YET_VALID,
    OPEN,
    OPEN_IN_GRACE,
    Decision,
    Period,
    Schedule,
    closed,
    refused,
    schedule,
)

NONE = closed("license_required")


def decided(*periods: tuple[float, float, float, bool], at: float) -> Decision:
    return schedule([Period(*period) for period in periods], NONE).at(at)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (-inf, NOT_YET_VALID),
        (0, NOT_YET_VALID),
        (999.999, NOT_YET_VALID),
        (1000, OPEN),
        (1999.999, OPEN),
        (2000, OPEN_IN_GRACE),
        (2999.999, OPEN_IN_GRACE),
        (3000, EXPIRED),
        (inf, EXPIRED),
    ],
)
def test_a_licence_through_its_life(now: float, expected: Decision) -> None:
    """Each boundary belongs to what it begins."""
    assert decided((1000, 2000, 3000, True), at=now) == expected


def test_no_grace() -> None:
    """A grace of no length is none."""
    assert schedule([Period(1000, 2000, 2000, True)], NONE).decisions == (NOT_YET_VALID, OPEN, EXPIRED)


def test_a_term_that_ends_before_it_begins() -> None:
    """Leaves the grace, from the beginning on; and nothing if that ends before it as well."""
    assert schedule([Period(1000, 500, 2000, True)], NONE).decisions == (
        NOT_YET_VALID,
        OPEN_IN_GRACE,
        EXPIRED,
    )
    assert schedule([Period(1000, 500, 800, True)], NONE) == Schedule((1000,), (NOT_YET_VALID, EXPIRED))


def test_no_licence() -> None:
    """At no time."""
    assert schedule([], NONE) == Schedule.always(NONE)
    assert Schedule.always(NONE).at(5) == NONE


def test_entitled_then_grace_then_the_next_licence() -> None:
    """A renewal that begins within the grace of the old licence ends that grace."""
    both = schedule([Period(0, 10, 30, True), Period(20, 40, 50, True)], NONE)
    assert both.boundaries == (0, 10, 20, 40, 50)
    assert both.decisions == (NOT_YET_VALID, OPEN, OPEN_IN_GRACE, OPEN, OPEN_IN_GRACE, EXPIRED)


def test_a_gap_says_that_another_licence_is_to_come() -> None:
    """Rather than that one is over."""
    assert decided((0, 10, 20, True), (30, 40, 50, True), at=25) == NOT_YET_VALID
    assert decided((0, 10, 20, True), (30, 40, 50, True), at=55) == EXPIRED


def test_licences_that_follow_one_another_are_one_term() -> None:
    """No boundary where the decision stays the same: touching, overlapping, or one within the other."""
    for second in ((10, 20, 20), (5, 20, 20), (2, 3, 20)):
        both = schedule([Period(0, 10, 10, True), Period(*second, True)], NONE)
        assert both.at(9.999) == OPEN
        assert len(set(pairwise(both.decisions))) == len(both.decisions) - 1
    assert schedule([Period(0, 10, 10, True), Period(10, 20, 20, True)], NONE).boundaries == (0, 20)


def test_a_grace_that_suffices_is_better_than_a_term_that_does_not() -> None:
    """And where neither suffices, the term is better."""
    term, grace = (0, 100, 100), (0, 10, 100)
    assert decided((*term, False), (*grace, True), at=50) == OPEN_IN_GRACE
    assert decided((*term, False), (*grace, False), at=50) == OPEN
    assert decided((*term, True), (*grace, True), at=50) == OPEN
    assert decided((*term, False), at=50) == OPEN


def test_a_span_is_the_time_between_two_changes() -> None:
    """Endless at both ends."""
    one = schedule([Period(1000, 2000, 3000, True)], NONE)
    assert one.span(999) == (-inf, 1000, NOT_YET_VALID)
    assert one.span(1000) == (1000, 2000, OPEN)
    assert one.span(2999) == (2000, 3000, OPEN_IN_GRACE)
    assert one.span(3000) == (3000, inf, EXPIRED)
    assert Schedule.always(NONE).span(0) == (-inf, inf, NONE)


def test_a_refusal_becomes_the_closed_door_it_leads_to() -> None:
    """With the words that every closed door begins with."""
    assert refused(Refusal("code", "A sentence.")) == Decision(False, "code", f"{LEAD}A sentence.")


times = st.integers(0, 12)
periods = st.builds(Period, times, times, times, st.booleans())


@given(st.lists(periods, max_size=6), st.integers(-1, 13), st.sampled_from([0.0, 0.5]))
def test_a_schedule_is_sorted_and_says_something_new_at_each_boundary(
    some: list[Period], second: int, part: float
) -> None:
    """And its spans agree with it."""
    made = schedule(some, NONE)
    assert len(made.decisions) == len(made.boundaries) + 1
    assert all(earlier < later for earlier, later in pairwise(made.boundaries))
    assert all(earlier != later for earlier, later in pairwise(made.decisions))
    begins, ends, decision = made.span(second + part)
    assert begins <= second + part < ends
    assert decision == made.at(second + part) == made.at(max(begins, -2))


@given(st.floats(allow_nan=False), st.lists(periods, max_size=4))
def test_a_decision_is_open_or_has_a_code(now: float, some: list[Period]) -> None:
    """Never both, never neither; grace is a way of being open."""
    decision = schedule(some, NONE).at(now)
    assert decision.open == (decision.code is None) == (decision.message == "")
    assert decision.open or not decision.grace
