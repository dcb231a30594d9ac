"""Pure: deny lists: a signed list of licences that the vendor has revoked.

A deny list is a compact JWT like a licence, of its own ``typ``: header ``alg: EdDSA``, ``kid``, ``typ:
aibridge-license-denylist+jwt``; claims ``iat`` (seconds since the epoch) and ``jti`` (a list of licences' ids).
It travels offline: with a release (:data:`BUILT_IN_DENY_LISTS`), or in the configuration. Lists add up; a newer
one does not take anything back.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from flask_aibridge.errors import LicenseError
from flask_aibridge.license.refusals import refusal
from flask_aibridge.license.signature import verify

if TYPE_CHECKING:
    from flask_aibridge.license.signature import PublicKeys

__all__ = [
    "BUILT_IN_DENY_LISTS",
    "DENY_LIST_TYPE",
    "MAX_DENY_LIST_BYTES",
    "revoked_ids",
    "verify_deny_list",
]

DENY_LIST_TYPE: Final = "aibridge-license-denylist+jwt"

#: About 20,000 ids in the form of UUIDs; the limit keeps a wrong file from being parsed at all.
MAX_DENY_LIST_BYTES: Final = 1024 * 1024

#: The lists that come with this release. Empty: nothing has been revoked.
BUILT_IN_DENY_LISTS: Final[tuple[str, ...]] = ()

_REASONS: Final = MappingProxyType(
    {
        "license_algorithm": "it is not signed with EdDSA (Ed25519)",
        "license_unknown_key": "it is signed with a key that this installation does not know",
        "license_bad_signature": "its signature is wrong",
        "license_too_large": f"it is longer than {MAX_DENY_LIST_BYTES} bytes",
    }
)


def verify_deny_list(token: str, keys: PublicKeys) -> frozenset[str]:
    """The ids that a deny list revokes.

    :raises LicenseError: ``license_deny_list``, with the reason, for a list that cannot be accepted.
    """
    try:
        payload = verify(token, keys, typ=DENY_LIST_TYPE, max_bytes=MAX_DENY_LIST_BYTES)
    except LicenseError as error:
        reason = _REASONS.get(error.code, f"it is not a compact JWT of typ {DENY_LIST_TYPE}")
        raise refusal("license_deny_list", reason) from None
    return _ids(payload)


def _ids(payload: dict[str, Any]) -> frozenset[str]:
    if type(payload.get("iat")) is not int:
        raise refusal("license_deny_list", "iat: must be a whole number")
    ids = payload.get("jti")
    if not isinstance(ids, list) or not all(isinstance(entry, str) for entry in ids):
        raise refusal("license_deny_list", "jti: must be a list of strings")
    return frozenset(ids)


def revoked_ids(tokens: Iterable[str], keys: PublicKeys) -> frozenset[str]:
    """All that these deny lists and the built-in ones revoke.

    :raises LicenseError: see :func:`verify_deny_list`.
    """
    return frozenset().union(*(verify_deny_list(token, keys) for token in chain(BUILT_IN_DENY_LISTS, tokens)))
