"""``license.grants``: the best of several grants, whole."""

from __future__ import annotations

from itertools import permutations

import pytest

from flask_aibridge.license.features import FEATURES
from flask_aibridge.license.grants import Grant, best_grant, grants_of
from flask_aibridge.license.licenses import License
from tests.license.builders import START, license_, refused

USERS = FEATURES["user_limit"]
GATEWAY = FEATURES["aibridge"]


def term(limit: int) -> License:
    return license_(0, 1000, 2000, features={"user_limit": limit})


def grace(limit: int) -> License:
    return license_(-1000, 0, 2000, features={"user_limit": limit})


def over() -> License:
    return license_(-1000, -500, -1, features={"user_limit": 1_000_000})


def to_come() -> License:
    return license_(500, 1000, 2000, features={"user_limit": 1_000_000})


def best(*licenses: License, actual: int | None) -> tuple[str, int | None] | None:
    """The best of them in whatever order."""
    found = {
        grant and (grant.state(START + 1), grant.limit)
        for order in permutations(licenses)
        for grant in [best_grant(list(grants_of(USERS, order, actual)), START + 1)]
    }
    [only] = found
    return only


@pytest.mark.parametrize(
    ("licenses", "actual", "expected"),
    [
        ((), 5, None),
        ((over(), to_come()), 5, None),
        ((refused(),), 5, None),
        ((term(10),), 5, ("entitled", 10)),
        ((term(10), term(20)), 5, ("entitled", 20)),
        ((term(10), grace(20)), 5, ("entitled", 10)),
        ((term(10), grace(20)), 10, ("entitled", 10)),
        ((term(10), grace(20)), 11, ("grace_period", 20)),
        ((term(10), grace(20)), 20, ("grace_period", 20)),
        ((term(10), grace(20)), 21, ("entitled", 10)),
        ((term(10), term(30), grace(20)), 11, ("entitled", 30)),
        ((term(10), grace(20), grace(30)), 11, ("grace_period", 30)),
        ((term(10), grace(20)), None, ("entitled", 10)),
        ((term(10), over(), to_come(), refused()), 11, ("entitled", 10)),
        ((term(0),), 0, ("entitled", 0)),
    ],
)
def test_the_best_wins_whole(
    licenses: tuple[License, ...], actual: int | None, expected: tuple[str, int] | None
) -> None:
    """Sufficient first, then its state, then its limit; in whatever order they stand."""
    assert best(*licenses, actual=actual) == expected


def test_a_switch_has_no_limit() -> None:
    """Whatever its number, and whatever is used."""
    [grant] = grants_of(GATEWAY, [license_(features={"aibridge": 7})], 1000)
    assert (grant.limit, grant.period.capable) == (None, True)


def test_what_a_licence_does_not_have_is_no_grant() -> None:
    """Neither by silence nor by a zero."""
    others = [license_(features={}), license_(features={"aibridge": 0}), license_(features={"x": 1})]
    assert list(grants_of(GATEWAY, others, None)) == []


def test_a_grant_knows_whether_it_is_a_trial() -> None:
    """For the warning that comes later then."""
    [trial] = grants_of(GATEWAY, [license_(trial=True)], None)
    assert isinstance(trial, Grant)
    assert trial.trial
