"""``license.entitlements``: what any number of licences allow together."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import permutations
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from flask_aibridge.license.entitlements import (
    CLOCK_TOLERANCE,
    Entitlements,
    FeatureEntitlement,
    Rejected,
    evaluate,
    trusted_time,
)
from flask_aibridge.license.features import FEATURES, Feature
from flask_aibridge.license.licenses import DAY, License
from flask_aibridge.license.refusals import LEAD
from tests.license import oracle
from tests.license.builders import START, license_, refused

OFF = FeatureEntitlement("not_entitled", False, None, None)
ON = FeatureEntitlement("entitled", True, None, None)


def at(seconds: float, *licenses: License, **usage: int) -> Entitlements:
    return evaluate(licenses, usage=usage, now=START + seconds)


def code_at(seconds: float, *licenses: License) -> str | None:
    return at(0, *licenses).gate().at(START + seconds).code


def test_without_a_licence() -> None:
    """Every feature is there, and none is entitled."""
    nothing = at(5)
    assert nothing.features == {"aibridge": OFF, "user_limit": OFF}
    assert (nothing.has_license, nothing.trial, nothing.errors, nothing.warnings) == (False, False, (), ())
    assert nothing.refreshed_at == START + 5
    assert nothing.gate().at(START).code == "license_required"


def test_a_licence_for_the_gateway() -> None:
    """Opens it, and nothing else."""
    one = at(0, license_(grace_ends=2000))
    assert one.features == {"aibridge": ON, "user_limit": OFF}
    assert (one.has_license, one.trial, one.errors) == (True, False, ())
    assert one.gate().at(START).open
    assert one.gate("user_limit").at(START).code == "license_feature_missing"


def test_a_limit_shows_what_is_used() -> None:
    """Entitled or not, where it is known."""
    limited = license_(features={"aibridge": 1, "user_limit": 10})
    assert at(0, limited, user_limit=3).features["user_limit"] == FeatureEntitlement("entitled", True, 10, 3)
    assert at(0, user_limit=3).features["user_limit"] == FeatureEntitlement("not_entitled", False, None, 3)
    assert at(0, limited, aibridge=3).features["aibridge"] == ON


def test_an_exceeded_limit_blocks_nothing() -> None:
    """It stays enabled; see the warnings."""
    over = at(0, license_(features={"aibridge": 1, "user_limit": 10}), user_limit=11)
    assert over.features["user_limit"].enabled
    assert over.gate().at(START).open
    assert over.gate("user_limit").at(START).open


def test_grace_is_enabled() -> None:
    """The same as before, with a warning."""
    grace = at(1500, license_())
    assert grace.features["aibridge"] == FeatureEntitlement("grace_period", True, None, None)
    assert grace.gate().at(START + 1500).grace
    assert grace.has_license


def test_unknown_features_do_nothing() -> None:
    """Nor does their licence count as one that lacks something."""
    odd = at(0, license_(features={"tomorrow": 5, "aibridge": -1, "user_limit": -5}))
    assert odd.features == {"aibridge": OFF, "user_limit": OFF}
    assert odd.has_license
    assert odd.errors == ()


class TestErrors:
    def test_a_refused_licence_is_named(self) -> None:
        """With its code and its sentence, free of the words before the door."""
        assert at(0, refused()).errors == (Rejected("bad", "license_bad_signature", "A sentence."),)
        assert not at(0, refused()).has_license

    def test_licences_outside_their_time_are_named(self) -> None:
        """They do not count either, for now or any more."""
        early, late = license_(10, 20, 30, jti="early"), license_(-30, -20, -10, jti="late")
        errors = at(0, early, late).errors
        assert [(error.license_id, error.code) for error in errors] == [
            ("early", "license_not_yet_valid"),
            ("late", "license_expired"),
        ]

    def test_one_bad_licence_never_disables_a_good_one(self) -> None:
        """Wherever it stands."""
        for licenses in permutations([refused(), license_(), refused("license_claims", "worse")]):
            both = at(0, *licenses)
            assert both.features["aibridge"] == ON
            assert both.gate() == at(0, license_()).gate()
            assert both.has_license

    def test_the_same_error_is_said_once(self) -> None:
        """The licence of the configuration may be installed too."""
        assert len(at(0, refused(), refused()).errors) == 1


class TestClosedDoor:
    """What is said before it is what the administrator should mend first."""

    def test_a_licence_to_come_is_better_news_than_one_that_is_over(self) -> None:
        """Between the two."""
        two = license_(0, 10, 20), license_(30, 40, 50)
        assert [code_at(second, *two) for second in (-1, 0, 20, 30, 50)] == [
            "license_not_yet_valid",
            None,
            "license_not_yet_valid",
            None,
            "license_expired",
        ]

    def test_a_licence_that_was_good_is_what_has_expired(self) -> None:
        """Whatever else lies about."""
        assert code_at(50, refused(), license_(0, 10, 20)) == "license_expired"

    def test_a_damaged_licence_may_be_the_one_that_is_missing(self) -> None:
        """Beside one for something else."""
        other = license_(features={"user_limit": 5})
        assert code_at(0, other) == "license_feature_missing"
        assert code_at(0, other, refused()) == "license_bad_signature"

    def test_its_words(self) -> None:
        """Those of every closed door, then the licence's own."""
        assert at(0, refused()).gate().at(START).message == f"{LEAD}A sentence."


def test_trial_is_that_of_any_licence_in_force() -> None:
    """Of one that is over, to come or refused it is not."""
    assert at(0, license_(), license_(trial=True)).trial
    assert at(1500, license_(trial=True)).trial
    assert not at(2000, license_(trial=True)).trial
    assert not at(0, license_(5, trial=True), license_()).trial


def test_an_unknown_feature_has_no_gate() -> None:
    """The error names those that there are."""
    with pytest.raises(ValueError, match="no feature 'aibrige' to license; there is aibridge, user_limit"):
        at(0).gate("aibrige")


def test_another_table() -> None:
    """Features are data: a row is all that a new one needs."""
    table = {**FEATURES, "reports": Feature("reports", "reports", "switch")}
    with_reports = evaluate([license_(features={"reports": 1})], usage={}, now=START, features=table)
    assert with_reports.features["reports"] == ON
    assert with_reports.gate("reports").at(START).open
    assert not with_reports.gate().at(START).open


def test_a_thousand_licences_are_no_burden() -> None:
    """Evaluated in far less than a second; a measurement is in the benchmarks."""
    licenses = [
        license_(n, n + 5000, n + 6000, jti=str(n), features={"aibridge": 1, "user_limit": n})
        for n in range(1000)
    ]
    started = time.process_time()
    found = evaluate(licenses, usage={"user_limit": 500}, now=START + 999)
    assert time.process_time() - started < 1
    assert found.features["user_limit"] == FeatureEntitlement("entitled", True, 999, 500)
    assert found.gate().boundaries == (START, START + 5999, START + 6999)


# -- against the oracle ---------------------------------------------------------------------------------------

seconds = st.integers(0, 8)


@st.composite
def some_license(draw: st.DrawFn) -> License:
    """Any licence: also with times out of order, with nothing in it, or refused."""
    if draw(st.integers(0, 9)) == 0:
        code = draw(st.sampled_from(["license_revoked", "license_claims"]))
        return refused(code, license_id=code)
    starts, *ends = draw(seconds), draw(seconds), draw(seconds)
    if draw(st.booleans()):
        starts, *ends = sorted((starts, *ends))
    numbers = {"aibridge": st.sampled_from([-1, 0, 1, 2]), "user_limit": st.sampled_from([-1, 0, 3, 5, 7])}
    changes: dict[str, Any] = {
        "features": draw(st.fixed_dictionaries({}, optional=numbers)),
        "feature_set": draw(st.sampled_from([None, "aibridge", "other"])),
        "trial": draw(st.booleans()),
    }
    if draw(st.booleans()):
        changes["iat"] = START + 300 + draw(seconds)
    return license_(starts, *ends, **changes)


def edges(licenses: Sequence[License]) -> list[float]:
    """Every second at which something may change, and those around it."""
    found = {START - 1.0}
    for each in licenses:
        if each.claims is not None:
            begins, ends = (each.claims.nbf, each.claims.iat), (each.claims.license_expires, each.claims.exp)
            moments = *(moment - 300 for moment in begins), *ends
            found.update(moment + off for moment in moments for off in (-1, -0.001, 0, 1))
    return sorted(found)


usages = st.none() | st.integers(0, 8)
names = st.sampled_from(["aibridge", "user_limit"])


@given(st.lists(some_license(), max_size=5), names, usages)
def test_every_second_is_as_the_oracle_says(licenses: list[License], name: str, used: int | None) -> None:
    """State, limit and gate, at every edge; and the gate made at one time is right at all others."""
    usage = {} if used is None else {"user_limit": used}
    made_now = evaluate(licenses, usage=usage, now=START + 4).gate(name)
    for now in edges(licenses):
        found = evaluate(licenses, usage=usage, now=now)
        state, limit, code = oracle.best(licenses, name, used, now)
        actual = used if name == "user_limit" else None
        assert found.features[name] == FeatureEntitlement(state, state != "not_entitled", limit, actual)  # type: ignore[arg-type]
        decision = found.gate(name).at(now)
        assert (decision.open, decision.grace) == (state != "not_entitled", state == "grace_period")
        assert decision.code == code
        assert made_now.at(now) == decision
    assert made_now == evaluate(licenses, usage=usage, now=0).gate(name)


@given(st.lists(some_license(), min_size=1, max_size=4), usages, st.sampled_from(range(-1, 10)), st.data())
def test_order_and_duplicates_change_nothing(
    licenses: list[License], used: int | None, second: int, data: st.DataObject
) -> None:
    """Of any licences, at any time; only the errors keep the order in which the licences stand."""
    # Of several refused licences, the first one's code is shown at the door.
    assume(len({each.refused for each in licenses} - {None}) < 2)
    usage = {} if used is None else {"user_limit": used}
    again = data.draw(st.lists(st.sampled_from(licenses), max_size=3))
    shuffled = data.draw(st.permutations([*licenses, *again]))
    one = evaluate(licenses, usage=usage, now=START + second)
    other = evaluate(shuffled, usage=usage, now=START + second)
    assert (one.features, one.schedules, one.warnings) == (other.features, other.schedules, other.warnings)
    assert (one.has_license, one.trial) == (other.has_license, other.trial)
    assert set(one.errors) == set(other.errors)
    assert len(other.errors) == len(set(other.errors))


days = st.integers(0, 60)
spans = st.builds(lambda a, b: license_(min(a, b) * DAY, max(a, b) * DAY, max(a, b) * DAY), days, days)


@given(st.lists(spans, max_size=5), days, st.sampled_from([-1, 0, 1]))
def test_the_term_ends_where_the_oracle_stops(licenses: list[License], day: int, off: int) -> None:
    """Walking on from now, day by day, over every licence that goes on."""
    now = START + day * DAY + off
    open_now = evaluate(licenses, usage={}, now=now).features["aibridge"].enabled
    first_day = START + (day if off < 0 else day + 1) * DAY
    ends = oracle.first_second_without_a_term(licenses, range(first_day, START + 62 * DAY, DAY))
    codes = [warning.code for warning in evaluate(licenses, usage={}, now=now).warnings]
    assert codes == (["license_expires_soon"] if open_now and ends - now <= 30 * DAY else [])


class TestTrustedTime:
    @pytest.mark.parametrize(
        ("now", "highest", "expected"),
        [
            (1000.0, None, (1000.0, False)),
            (1000.0, 1000.0, (1000.0, False)),
            (2000.0, 1000.0, (2000.0, False)),
            (1e6 - CLOCK_TOLERANCE, 1e6, (1e6 - CLOCK_TOLERANCE, False)),
            (1e6 - CLOCK_TOLERANCE - 1, 1e6, (1e6, True)),
            (0.0, 1e9, (1e9, True)),
        ],
    )
    def test_a_clock_is_believed_within_a_day(
        self, now: float, highest: float | None, expected: tuple[float, bool]
    ) -> None:
        """Behind that, the latest time seen counts."""
        assert trusted_time(now, highest) == expected

    def test_a_clock_turned_back_does_not_revive_a_licence(self) -> None:
        """While a correction of seconds neither revives nor kills one."""
        one = license_(0, 10 * DAY, 10 * DAY)
        seen = START + 20.0 * DAY
        for back, is_open in ((5 * DAY, False), (60, False)):
            now, _ = trusted_time(seen - back, seen)
            assert evaluate([one], usage={}, now=now).features["aibridge"].enabled is is_open
        now, behind = trusted_time(START + 5, START + 65.0)
        assert (evaluate([one], usage={}, now=now).features["aibridge"], behind) == (ON, False)
