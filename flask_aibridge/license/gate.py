"""The gate of the public door: a licence, verified once, and a decision per request.

:meth:`Gate.check` is on the path of every request by the public door: it compares the time with what was
computed when the licence was installed, with no I/O and no lock. A licence that cannot be accepted closes the
door and nothing else.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from flask_aibridge.config import LICENSE_FILE
from flask_aibridge.errors import ConfigError, LicenseError
from flask_aibridge.license.entitlements import Decision, Entitlement, closed, entitlement

if TYPE_CHECKING:
    from flask_aibridge.license.signature import PublicKeys

__all__ = ["Gate", "read_license_file"]

logger = logging.getLogger("flask_aibridge.license")

#: Seconds between two warnings that the paid term is over: often enough to be seen, too rare to fill a log.
GRACE_WARNING_INTERVAL: Final = 24 * 60 * 60

#: Bytes read of a licence file: one more than a licence may have, so that a larger one is known to be too
#: large.
MAX_FILE_BYTES: Final = 16 * 1024 + 1


class Gate:
    """Says whether the public door is open.

    :param public_keys: ``{kid: Ed25519 public key}`` in PEM or base64, beside the built-in ones.
    :param token: the licence to begin with. One that cannot be accepted is logged as a warning and closes the
        door with its own code; so does ``None``, with ``license_required``.
    :param clock: seconds since the epoch.
    :raises ConfigError: for a public key that cannot be used.
    """

    def __init__(
        self,
        public_keys: Mapping[str, str] | None = None,
        token: str | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._public_keys = _load(public_keys) if public_keys else None
        self._entitlement = Entitlement(refused=closed("license_required"))
        self._warning = threading.Lock()
        self._next_warning = float("-inf")
        if token is not None and token.strip():
            self._begin_with(token)

    def __repr__(self) -> str:
        decision = self._entitlement.at(self._clock())
        state = decision.code or ("open in grace" if decision.grace else "open")
        return f"<{type(self).__name__} {state}>"

    def check(self, now: float | None = None) -> Decision:
        """The decision at a time (seconds since the epoch; ``None`` for the present)."""
        if now is None:
            now = self._clock()
        decision = self._entitlement.at(now)
        if decision.grace and now >= self._next_warning:
            self._warn_of_grace(now)
        return decision

    def install(self, token: str) -> Decision:
        """Verify a licence and put it in force for this process, at once for every request that follows.

        :returns: the decision it leads to now. A genuine licence that opens nothing (expired, not yet valid,
            without the feature) is installed all the same.
        :raises LicenseError: for one that cannot be accepted; what was in force before stays.
        """
        self._entitlement = self._verified(token)
        self._next_warning = float("-inf")
        return self.check()

    def _verified(self, token: str) -> Entitlement:
        # Here, because they bring PyJWT and marshmallow, 130 ms of imports that an app without a licence need
        # not pay.
        from flask_aibridge.license.claims import load_claims
        from flask_aibridge.license.signature import verify

        if self._public_keys is None:
            self._public_keys = _load({})
        return entitlement(load_claims(verify(token, self._public_keys), self._clock()))

    def _begin_with(self, token: str) -> None:
        try:
            decision = self.install(token)
        except LicenseError as error:
            decision = Decision(False, error.code, str(error))
            self._entitlement = Entitlement(refused=decision)
        if not decision.open:
            logger.warning("The public door is closed (%s). %s", decision.code, decision.message)

    def _warn_of_grace(self, now: float) -> None:
        # Never waits: a request that comes second leaves the warning to the first.
        if not self._warning.acquire(blocking=False):
            return
        try:
            if now < self._next_warning:
                return
            self._next_warning = now + GRACE_WARNING_INTERVAL
        finally:
            self._warning.release()
        ends = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(self._entitlement.grace_ends))
        logger.warning(
            "The licence has expired and is in its grace period: the public door closes on %s.", ends
        )


def _load(public_keys: Mapping[str, str]) -> PublicKeys:
    from flask_aibridge.license.signature import BUILT_IN_KEYS, load_public_keys

    return load_public_keys({**BUILT_IN_KEYS, **public_keys})


def read_license_file(path: Path) -> str:
    """The text of a licence file; no more of it than shows that it is too large.

    :raises ConfigError: for a file that cannot be read, naming it.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(f"{LICENSE_FILE} names {str(path)!r}, which cannot be read: {reason}.") from error
    # A byte that is not ASCII cannot be part of a licence; the gate then says so.
    return raw.decode("ascii", "replace")
