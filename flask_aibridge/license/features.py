"""Pure: what can be licensed: the table of features, the bundles of them, and what a licence grants.

A new feature is a new row; nothing else names one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from flask_aibridge.license.claims import Claims

__all__ = ["FEATURES", "FEATURE_SETS", "GATEWAY", "USER_LIMIT", "Feature", "features_of", "granted"]

#: The feature that opens the public door.
GATEWAY: Final = "aibridge"
#: The feature that counts people.
USER_LIMIT: Final = "user_limit"


@dataclass(frozen=True)
class Feature:
    """One row of the table.

    :param name: its name in the claims and in the API.
    :param title: what people call it, in the middle of a sentence.
    :param kind: a ``switch`` is on with any number above zero; of a ``limit`` the number is how much is
        licensed (zero is a limit too). Going over a limit is a warning and never blocks.
    :param counts: what a limit counts, in the plural and with the period it counts them in.
    """

    name: str
    title: str
    kind: Literal["switch", "limit"]
    counts: str = ""


def _table(*features: Feature) -> Mapping[str, Feature]:
    return MappingProxyType({feature.name: feature for feature in features})


#: Every feature that this release knows, by name. A name that is not here is kept in the claims and ignored.
FEATURES: Final = _table(
    Feature(GATEWAY, "the AI gateway", "switch"),
    Feature(USER_LIMIT, "the user limit", "limit", counts="users within 30 days"),
)

#: Named bundles: ``feature_set`` → features. A licence's own ``features`` are laid over its set. A bundle may
#: grow with a release, and the licences that name it grow with it; one that is not here adds nothing, so that
#: a newer licence still works for the features it spells out.
FEATURE_SETS: Final[Mapping[str, Mapping[str, int]]] = MappingProxyType(
    {"aibridge": MappingProxyType({GATEWAY: 1})}
)


def features_of(claims: Claims) -> dict[str, int]:
    """Every feature of a licence with its number: those of its bundle, then its own, known or not.

    Negative numbers mean nothing and are left out; a zero takes a feature out of the bundle.
    """
    bundle = FEATURE_SETS.get(claims.feature_set or "", {})
    return {**bundle, **{name: number for name, number in claims.features.items() if number >= 0}}


def granted(feature: Feature, numbers: Mapping[str, int]) -> bool:
    """Whether a licence with these numbers (see :func:`features_of`) has the feature at all."""
    return numbers.get(feature.name, -1) >= (1 if feature.kind == "switch" else 0)
