"""``license.features``: the table, the bundles, and what the numbers of a licence mean."""

from __future__ import annotations

import pytest

from flask_aibridge.license.features import FEATURE_SETS, FEATURES, GATEWAY, USER_LIMIT, features_of, granted
from tests.license.builders import claims


def test_the_table_names_each_feature_by_its_name() -> None:
    """The public door and the users; what a limit counts is said."""
    assert list(FEATURES) == [GATEWAY, USER_LIMIT] == ["aibridge", "user_limit"]
    assert all(feature.name == name for name, feature in FEATURES.items())
    assert all(bool(feature.counts) == (feature.kind == "limit") for feature in FEATURES.values())


def test_a_bundle_holds_known_features() -> None:
    """A misspelt one would license nothing."""
    assert all(bundle.keys() <= FEATURES.keys() for bundle in FEATURE_SETS.values())


def test_a_bundle_brings_its_features() -> None:
    """And the licence's own are laid over them; a zero takes one out."""
    assert features_of(claims(feature_set="aibridge", features={"x": 3})) == {"aibridge": 1, "x": 3}
    assert features_of(claims(feature_set="aibridge", features={"aibridge": 0})) == {"aibridge": 0}


def test_negative_numbers_mean_nothing() -> None:
    """Not even that a feature is off."""
    assert features_of(claims(feature_set="aibridge", features={"aibridge": -1, "x": -3})) == {"aibridge": 1}


@pytest.mark.parametrize("feature_set", [None, "", "no-such-bundle"])
def test_an_unknown_bundle_brings_nothing(feature_set: str | None) -> None:
    """What the licence spells out still holds."""
    assert features_of(claims(feature_set=feature_set)) == {"aibridge": 1}


@pytest.mark.parametrize(
    ("name", "number", "expected"),
    [
        ("aibridge", None, False),
        ("aibridge", 0, False),
        ("aibridge", 1, True),
        ("aibridge", 7, True),
        ("user_limit", None, False),
        ("user_limit", 0, True),
        ("user_limit", 1, True),
    ],
)
def test_a_switch_is_on_above_zero_and_a_limit_may_be_zero(
    name: str, number: int | None, expected: bool
) -> None:
    """A licence for nobody is one that anybody exceeds."""
    numbers = {} if number is None else {name: number}
    assert granted(FEATURES[name], numbers) is expected
