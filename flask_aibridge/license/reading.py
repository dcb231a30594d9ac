"""Pure: a token → the licence it is, or why it does not count.

Two halves, because one is expensive and never changes (a signature: about 0.1 ms) and the other is cheap and
depends on the day and on the installation: :func:`read_claims` and :func:`check_claims`. A
:class:`LicenseReader` remembers the first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Set as AbstractSet
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from flask_aibridge.errors import LicenseError
from flask_aibridge.license.claims import Claims, check_term, parse_claims
from flask_aibridge.license.licenses import License, LicenseSource
from flask_aibridge.license.refusals import Refusal, refusal
from flask_aibridge.license.signature import MAX_LICENSE_BYTES, verify

if TYPE_CHECKING:
    from flask_aibridge.license.signature import PublicKeys

__all__ = ["LicenseReader", "check_claims", "read_claims", "read_license", "unreadable_id"]

#: Tokens whose verdict a reader remembers: more than any installation holds, and at 16 KiB each no more than
#: 64 MiB if somebody tries.
MAX_REMEMBERED: Final = 4096


def read_license(
    token: str,
    public_keys: PublicKeys,
    *,
    now: float,
    deployment_id: str | None,
    revoked: AbstractSet[str] = frozenset(),
) -> Claims:
    """The claims of a genuine licence for this installation, whether its term has begun or is over.

    :param now: seconds since the epoch.
    :param deployment_id: this installation's; ``None`` where it has none, and then a licence that is bound to
        deployments is refused.
    :param revoked: the ``jti`` of the deny lists.
    :raises LicenseError: with the code for the first rule that it breaks.
    """
    claims = read_claims(token, public_keys)
    check_claims(claims, now=now, deployment_id=deployment_id, revoked=revoked)
    return claims


def read_claims(token: str, public_keys: PublicKeys) -> Claims:
    """The claims of a genuine licence, for whatever installation and time: the same for ever.

    :raises LicenseError: for anything else.
    """
    return parse_claims(verify(token, public_keys))


def check_claims(
    claims: Claims, *, now: float, deployment_id: str | None, revoked: AbstractSet[str] = frozenset()
) -> None:
    """Refuse a genuine licence that this installation cannot use; see :func:`read_license`.

    :raises LicenseError: ``license_revoked``, ``license_wrong_deployment``, or ``license_claims`` for a term
        that ends too far ahead.
    """
    if claims.jti in revoked:
        raise refusal("license_revoked")
    if claims.deployment_ids and not _is_for(claims, deployment_id):
        raise refusal("license_wrong_deployment")
    check_term(claims, now)


def _is_for(claims: Claims, deployment_id: str | None) -> bool:
    # UUIDs are the same in either case (RFC 9562, section 4).
    return deployment_id is not None and deployment_id.lower() in map(str.lower, claims.deployment_ids)


def unreadable_id(token: str) -> str:
    """The id of a licence whose own cannot be known: the same for the same text, however it is wrapped."""
    text = "".join(token.split())
    return f"unreadable-{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()[:32]}"


class LicenseReader:
    """Reads licences with one set of public keys, and remembers the signatures it has verified.

    Belongs beside whoever reads the same licences again and again: one per process, made anew when the keys
    change. Safe in any number of threads.

    :param public_keys: see :func:`~flask_aibridge.license.signature.known_keys`.
    """

    def __init__(self, public_keys: PublicKeys) -> None:
        self.public_keys = public_keys
        self._remembered = lru_cache(maxsize=MAX_REMEMBERED)(self._judge)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} kids={list(self.public_keys)}>"

    def _verdict(self, token: str) -> Claims | Refusal:
        # A text that is too long to be a licence costs nothing to refuse again, and would cost memory to remember.
        return (self._judge if len(token) > MAX_LICENSE_BYTES else self._remembered)(token)

    def _judge(self, token: str) -> Claims | Refusal:
        try:
            return read_claims(token, self.public_keys)
        except LicenseError as error:
            return Refusal.of(error)

    def read(
        self, token: str, *, now: float, deployment_id: str | None, revoked: AbstractSet[str] = frozenset()
    ) -> Claims:
        """:func:`read_license`."""
        verdict = self._verdict(token)
        if isinstance(verdict, Refusal):
            raise LicenseError(verdict.code, verdict.message)
        check_claims(verdict, now=now, deployment_id=deployment_id, revoked=revoked)
        return verdict

    def license(
        self,
        token: str,
        *,
        source: LicenseSource,
        now: float,
        deployment_id: str | None,
        revoked: AbstractSet[str] = frozenset(),
        uploaded_at: float | None = None,
        license_id: str | None = None,
    ) -> License:
        """The licence that a token is, refused or not; never an exception.

        :param license_id: the id it is kept under; its ``jti`` (see :func:`unreadable_id` for one without)
            unless given.
        """
        verdict = self._verdict(token)
        claims, refused = (None, verdict) if isinstance(verdict, Refusal) else (verdict, None)
        if claims is not None:
            try:
                check_claims(claims, now=now, deployment_id=deployment_id, revoked=revoked)
            except LicenseError as error:
                refused = Refusal.of(error)
        known_as = license_id or (claims.jti if claims else unreadable_id(token))
        return License(known_as, token, source, uploaded_at, claims, refused)
