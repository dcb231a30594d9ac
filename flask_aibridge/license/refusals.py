"""Pure: why a licence does not count, or the public door is closed: one table of stable codes and their
sentences.

A code is public contract: programs compare it. A sentence is for people, says what to do next, and may
change.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from flask_aibridge.errors import LicenseError

__all__ = ["LEAD", "REFUSALS", "Refusal", "message", "refusal", "sentence"]

#: How the message of every closed door begins.
LEAD: Final = "AI Bridge is a licensed feature. "

_NEW = "ask the vendor for a new licence"

#: code → what is wrong and what to do about it. ``{detail}`` is filled in where there is one.
REFUSALS: Final = MappingProxyType(
    {
        "license_required": (
            "No licence is installed; set AIBRIDGE_LICENSE or AIBRIDGE_LICENSE_FILE to the one you received, "
            "or install it with `flask aibridge license install`."
        ),
        "license_store_away": (
            "The licences that are installed cannot be read now, because their store is away; have Redis started "
            "again, or wait until it is."
        ),
        "license_malformed": (
            "The licence cannot be read ({detail}); copy the whole of it again, as one compact JWT."
        ),
        "license_too_large": f"The licence is longer than {{detail}}, which no licence is; {_NEW}.",
        "license_algorithm": (
            f"The licence is not signed with EdDSA (Ed25519), the only algorithm accepted; {_NEW}."
        ),
        "license_unknown_key": (
            "The licence is signed with a key that this installation does not know; add the vendor's public "
            "key to AIBRIDGE_LICENSE_PUBLIC_KEYS under the licence's kid, or update Flask-AIBridge."
        ),
        "license_bad_signature": (
            f"The signature of the licence is wrong; copy the whole of it again, unchanged, or {_NEW}."
        ),
        "license_wrong_version": (
            f"The licence has a version that this release does not read; update Flask-AIBridge or {_NEW}."
        ),
        "license_claims": f"The licence has a claim that cannot be accepted ({{detail}}); {_NEW}.",
        "license_not_yet_valid": (
            "The licence is not valid yet; wait for its first day, or check the clock of this host."
        ),
        "license_expired": f"The licence and its grace period have expired; {_NEW}.",
        "license_feature_missing": (
            f"The licence does not include the feature {{detail}}; {_NEW} that includes it."
        ),
        "license_wrong_deployment": (
            f"The licence is for another deployment; {_NEW} for this one, whose id "
            "`flask aibridge license deployment-id` prints."
        ),
        "license_revoked": f"The licence has been revoked by the vendor; {_NEW}, and remove this one.",
        "license_too_many": "No more licences can be kept; remove those that are over.",
        "license_deny_list": (
            "The deny list cannot be accepted ({detail}); ask the vendor for it again, or take it out of the "
            "configuration."
        ),
    }
)


@dataclass(frozen=True)
class Refusal:
    """Why one licence does not count: a code of :data:`REFUSALS` and the sentence for the administrator."""

    code: str
    message: str

    @classmethod
    def of(cls, error: LicenseError) -> Refusal:
        """What an exception says."""
        return cls(error.code, str(error))


def sentence(code: str, detail: str = "") -> str:
    """What is wrong and what to do about it.

    :param detail: what exactly is wrong, without any value of the licence in it.
    """
    return REFUSALS[code].format(detail=detail)


def message(code: str, detail: str = "") -> str:
    """The whole message of a closed door: :data:`LEAD` and the sentence of its code."""
    return LEAD + sentence(code, detail)


def refusal(code: str, detail: str = "") -> LicenseError:
    """The exception for a licence that cannot be accepted; its message is the sentence of the code."""
    return LicenseError(code, sentence(code, detail))
