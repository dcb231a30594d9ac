"""Pure: the authorisations of the last minutes, for while the services are away.

A caller whose credential the services accepted lately goes on being accepted; one whose credential they refused since
is not. Neither keys nor anything they can be guessed from is kept: an entry is found by the SHA-256 of the key, whose
secret is random and long, or by the key's id.
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import sha256
from typing import Final, NamedTuple

from flask_aibridge.errors import UnauthorizedReason
from flask_aibridge.services.api_keys import key_id_of
from flask_aibridge.services.interfaces import Authorization, Credential

REMEMBERED_SECONDS: Final = 600.0
"""How long an acceptance counts: an outage is bridged, and a key revoked during one works no longer than that."""

MAX_ACCEPTED: Final = 10_000
"""Acceptances kept, the latest: some 5 MB."""

MAX_REFUSED: Final = 1_000
"""Refusals kept, the latest. They only have to outlive the answers that were on their way when they came, so that
none of those brings a refused key back; and a flood of wrong keys must not cost memory."""

_ABOUT_THE_KEY: Final = frozenset[UnauthorizedReason]({"unknown", "expired", "revoked"})
"""Reasons that hold for the key whatever secret was sent with it."""


class _Accepted(NamedTuple):
    authorization: Authorization
    at: float


class KeyCache:
    """Who was let in lately. Not for several threads at once. Times are seconds of one monotonic clock."""

    def __init__(
        self,
        *,
        seconds: float = REMEMBERED_SECONDS,
        max_accepted: int = MAX_ACCEPTED,
        max_refused: int = MAX_REFUSED,
    ) -> None:
        self._seconds = seconds
        self._max_accepted = max_accepted
        self._max_refused = max_refused
        self._accepted: OrderedDict[str, _Accepted] = OrderedDict()
        self._by_key_id: dict[str, set[str]] = {}
        self._refused: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._accepted)

    def __repr__(self) -> str:
        return f"<KeyCache of {len(self._accepted)}>"

    def accept(self, credential: Credential, authorization: Authorization, asked_at: float) -> None:
        """Remember that the services, asked at ``asked_at``, accepted a credential, unless they refused it later."""
        name, key_id = _name(credential), authorization.key_id
        if self._refused and any(
            self._refused.get(each, -1.0) >= asked_at for each in (name, _id_name(key_id))
        ):
            return
        known = self._accepted.get(name)
        if known is not None and known.authorization.key_id == key_id:  # as nearly always
            self._accepted[name] = _Accepted(authorization, asked_at)
            self._accepted.move_to_end(name)
            return
        self._forget(name)
        self._accepted[name] = _Accepted(authorization, asked_at)
        if key_id is not None:
            self._by_key_id.setdefault(key_id, set()).add(name)
        while len(self._accepted) > self._max_accepted:
            self._forget(next(iter(self._accepted)))

    def refuse(self, credential: Credential, reason: UnauthorizedReason, now: float) -> None:
        """Forget a credential that the services refused; where the reason lies in the key itself, under every name
        that the key has."""
        self._forget_as_refused(_name(credential), now)
        key_id = key_id_of(credential)
        if key_id is not None and reason in _ABOUT_THE_KEY:
            for name in (_id_name(key_id), *self._by_key_id.get(key_id, ())):
                self._forget_as_refused(name, now)

    def find(self, credential: Credential, now: float) -> Authorization | None:
        """Whom the credential belongs to, if it was accepted lately."""
        name = _name(credential)
        entry = self._accepted.get(name)
        if entry is None:
            return None
        if now - entry.at > self._seconds:
            self._forget(name)
            return None
        return entry.authorization

    def _forget(self, name: str) -> None:
        entry = self._accepted.pop(name, None)
        if entry is None or entry.authorization.key_id is None:
            return
        names = self._by_key_id[entry.authorization.key_id]
        names.discard(name)
        if not names:
            del self._by_key_id[entry.authorization.key_id]

    def _forget_as_refused(self, name: str, now: float) -> None:
        self._forget(name)
        self._refused[name] = now
        self._refused.move_to_end(name)
        if len(self._refused) > self._max_refused:
            self._refused.popitem(last=False)


def _name(credential: Credential) -> str:
    if credential.key is None:
        return _id_name(credential.key_id)
    return sha256(credential.key.encode("utf-8", "surrogatepass")).hexdigest()


def _id_name(key_id: str | None) -> str:
    """What an id is found by: never equal to a digest, which is hexadecimal and longer than this prefix."""
    return f"id:{key_id}"
