"""``license.warnings``: what is said, when it begins, and when it ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from flask_aibridge.license.entitlements import evaluate
from flask_aibridge.license.licenses import DAY, License
from tests.license.builders import START, license_, refused


def days(starts: float, term_ends: float, grace_ends: float | None = None, **changes: Any) -> License:
    """A licence whose times are in days after the start."""
    ends = term_ends if grace_ends is None else grace_ends
    return license_(*(int(day * DAY) for day in (starts, term_ends, ends)), **changes)


def said(
    *licenses: License, on: float = 0, usage: Mapping[str, int] | None = None, clock_behind: bool = False
) -> list[tuple[str, str]]:
    found = evaluate(licenses, usage=usage or {}, now=START + on * DAY, clock_behind=clock_behind)
    return [(warning.code, warning.message) for warning in found.warnings]


def codes(*licenses: License, on: float = 0, **usage: int) -> list[str]:
    return [code for code, _ in said(*licenses, on=on, usage=usage)]


SECOND = 1 / DAY


class TestExpiry:
    @pytest.mark.parametrize(
        ("left", "trial", "expected"),
        [
            (30 + SECOND, False, None),
            (30, False, "expires in 30 days"),
            (29, False, "expires in 29 days"),
            (1 + SECOND, False, "expires in 2 days"),
            (1, False, "expires in 1 day,"),
            (SECOND, False, "expires in 1 day,"),
            (7 + SECOND, True, None),
            (7, True, "expires in 7 days"),
            (SECOND, True, "expires in 1 day,"),
        ],
    )
    def test_it_is_said_in_time(self, left: float, trial: bool, expected: str | None) -> None:
        """30 days before, 7 for a trial, to the second; begun days count."""
        found = said(days(0, 100, trial=trial), on=100 - left)
        if expected is None:
            assert found == []
        else:
            [(code, message)] = found
            assert code == "license_expires_soon"
            assert expected in message

    def test_it_names_the_feature_and_the_day(self) -> None:
        """And says what to do."""
        [(_, message)] = said(days(0, 10))
        assert "the AI gateway" in message
        assert "2027-01-25 08:00 UTC" in message
        assert "ask the vendor" in message

    @pytest.mark.parametrize(("starts", "ends"), [(-5, 100), (10, 100), (9, 100), (5, 100), (-5, 41)])
    def test_a_licence_that_goes_on_from_there(self, starts: float, ends: float) -> None:
        """Already valid, or to come without a gap: nothing expires."""
        assert codes(days(0, 10), days(starts, ends)) == []
        assert codes(days(starts, ends), days(0, 10)) == []

    def test_a_licence_that_does_not_go_on_for_long(self) -> None:
        """Only puts the day off."""
        [(_, message)] = said(days(0, 10), days(10, 12))
        assert "expires in 12 days" in message

    def test_a_chain_of_licences(self) -> None:
        """Ends where the last of them ends, whatever their order."""
        chain = [days(40, 60), days(0, 20), days(20, 40)]
        assert codes(*chain, on=29) == []
        [(_, message)] = said(*chain, on=30)
        assert "expires in 30 days" in message

    @pytest.mark.parametrize("gap", [SECOND, 1])
    def test_a_gap_ends_the_term(self, gap: float) -> None:
        """Of a second or a day: what comes after it does not count."""
        [(code, message)] = said(days(0, 10), days(10 + gap, 400))
        assert code == "license_expires_soon"
        assert "expires in 10 days" in message

    def test_a_grace_does_not_go_on(self) -> None:
        """The paid term is what expires."""
        assert codes(days(0, 10, 400)) == ["license_expires_soon"]

    def test_only_licences_with_the_feature_go_on(self) -> None:
        """Each feature has a term of its own; those that end together are said together."""
        both = {"aibridge": 1, "user_limit": 5}
        [(_, message)] = said(days(0, 10, features=both), days(0, 100, features={"aibridge": 1}))
        assert "the user limit expires" in message
        assert "gateway" not in message
        [(_, message)] = said(days(0, 10, features=both))
        assert "the AI gateway and the user limit expires in 10 days" in message

    def test_a_refused_licence_does_not_go_on(self) -> None:
        """Nor does it disturb."""
        assert codes(days(0, 10), refused()) == ["license_expires_soon"]

    def test_a_trial_beside_a_paid_licence(self) -> None:
        """Whichever ends last is waited for."""
        assert codes(days(0, 20, trial=True), days(0, 5)) == []
        assert codes(days(0, 20), days(0, 5, trial=True)) == ["license_expires_soon"]
        assert codes(days(0, 20), days(0, 20, trial=True)) == ["license_expires_soon"]

    def test_what_is_over_or_to_come_does_not_expire(self) -> None:
        """There is an error for it instead."""
        assert codes(days(-10, -1), days(1, 5)) == []


class TestGrace:
    def test_it_is_said_until_it_ends(self) -> None:
        """With the day it ends."""
        [(code, message)] = said(days(-10, 0, 14))
        assert code == "license_in_grace"
        assert "the AI gateway has expired and is in its grace period" in message
        assert "the grace ends on 2027-01-29 08:00 UTC; ask the vendor" in message
        assert codes(days(-10, 0, 14), on=14 - SECOND) == ["license_in_grace"]
        assert codes(days(-10, 0, 14), on=14) == []

    def test_another_licence_takes_over(self) -> None:
        """Then there is nothing to do."""
        [(_, message)] = said(days(-10, 0, 14), days(4, 400))
        assert "another licence takes over on 2027-01-19 08:00 UTC." in message

    def test_of_several_graces_the_last_counts(self) -> None:
        """One after the other, they are one."""
        [(_, message)] = said(days(-10, 0, 2), days(-10, -1, 14))
        assert "ends on 2027-01-29 08:00 UTC" in message

    def test_a_term_beside_it(self) -> None:
        """Is what counts."""
        assert codes(days(-10, 0, 14), days(0, 400)) == []

    def test_features_whose_grace_ends_together(self) -> None:
        """Are said together."""
        [(_, message)] = said(days(-10, 0, 14, features={"aibridge": 1, "user_limit": 5}))
        assert "the AI gateway and the user limit has expired" in message


class TestLimits:
    @pytest.mark.parametrize(
        ("limit", "actual", "code"),
        [
            (100, 0, None),
            (100, 89, None),
            (100, 90, "license_limit_near"),
            (100, 100, "license_limit_near"),
            (100, 101, "license_limit_exceeded"),
            (1, 1, "license_limit_near"),
            (0, 0, None),
            (0, 1, "license_limit_exceeded"),
            (10**30, 10**29 * 9, "license_limit_near"),
        ],
    )
    def test_a_limit_is_a_warning(self, limit: int, actual: int, code: str | None) -> None:
        """From 90 % on; at 100 % it is full, above it is exceeded."""
        one = days(0, 400, features={"aibridge": 1, "user_limit": limit})
        assert codes(one, user_limit=actual) == ([] if code is None else [code])

    def test_it_says_how_many_and_of_what(self) -> None:
        """And that nothing is blocked."""
        one = days(0, 400, features={"user_limit": 100})
        [(_, near)] = said(one, usage={"user_limit": 95})
        assert near.startswith("There have been 95 users within 30 days of 100 licensed (95 %);")
        [(_, exceeded)] = said(one, usage={"user_limit": 120})
        assert "120 users within 30 days of 100 licensed; nothing is blocked." in exceeded

    def test_the_limit_is_that_of_the_licence_that_counts(self) -> None:
        """The greater of two, and never their sum."""
        licenses = [days(0, 400, features={"user_limit": limit}) for limit in (60, 100)]
        assert codes(*licenses, user_limit=90) == ["license_limit_near"]
        assert codes(*licenses, user_limit=101) == ["license_limit_exceeded"]

    def test_without_a_limit_or_a_count_nothing_is_said(self) -> None:
        """Nobody knows."""
        assert codes(days(0, 400), user_limit=1000) == []
        assert codes(days(0, 400, features={"user_limit": 1})) == []


def test_a_clock_that_is_behind() -> None:
    """Comes first, and says what to do."""
    (code, message), *others = said(days(0, 10), clock_behind=True)
    assert code == "license_clock_behind"
    assert "Set the clock right" in message
    assert [code for code, _ in others] == ["license_expires_soon"]


def test_every_warning_fits_a_header() -> None:
    """One line of printable ASCII."""
    features = {"aibridge": 1, "user_limit": 10}
    found = [
        *said(days(0, 10, features=features), usage={"user_limit": 9}, clock_behind=True),
        *said(days(-10, 0, 14, features=features), usage={"user_limit": 11}),
    ]
    assert {code for code, _ in found} == {
        "license_clock_behind",
        "license_expires_soon",
        "license_in_grace",
        "license_limit_near",
        "license_limit_exceeded",
    }
    assert all(message.isascii() and message.isprintable() and message.endswith(".") for _, message in found)
