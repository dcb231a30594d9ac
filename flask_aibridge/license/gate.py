"""The gate: asked before each request that needs a licence.

:meth:`Gate.check` compares the time with numbers that were computed when the licences changed, with no I/O, and waits
for nothing that a refresh holds. A licence that cannot be accepted closes the door and nothing else.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from math import inf
from typing import Final

from flask_aibridge.license.features import GATEWAY
from flask_aibridge.license.holder import InForce, LicenseHolder
from flask_aibridge.license.licenses import day_of
from flask_aibridge.license.schedule import OPEN, Decision
from flask_aibridge.license.sources import read_license_file

__all__ = ["Gate", "read_license_file"]

logger = logging.getLogger("flask_aibridge.license")

#: Seconds between two warnings that the paid term is over: often enough to be seen, too rare to fill a log.
GRACE_WARNING_INTERVAL: Final = 24 * 60 * 60


class Gate:
    """Says whether a feature may be used; by default the public door.

    :param public_keys: ``{kid: Ed25519 public key}`` in PEM or base64, beside the built-in ones.
    :param token: the one licence there is. One that cannot be accepted is logged as a warning and closes the door with
        its own code; so does ``None``, with ``license_required``.
    :param holder: who holds the licences, in place of the two above.
    :param feature: what is asked for.
    :param clock: seconds since the epoch; the holder's own where there is one.
    :raises ConfigError: for a public key that cannot be used.
    """

    def __init__(
        self,
        public_keys: Mapping[str, str] | None = None,
        token: str | None = None,
        *,
        holder: LicenseHolder | None = None,
        feature: str = GATEWAY,
        clock: Callable[[], float] = time.time,
    ) -> None:
        own = holder is None
        if holder is None:
            holder = LicenseHolder(public_keys, () if token is None else (token,), clock=clock)
        self.holder = holder
        self.feature = feature
        self._refresher = holder.refresher
        self._clock = holder.clock
        # The last decision, and when it holds: from, to (seconds since the epoch), and while this is in force.
        self._last: tuple[float, float, InForce | None, Decision] = (inf, -inf, None, OPEN)
        self._warning = threading.Lock()
        self._next_warning = float("-inf")
        if own:
            self.check()  # a grace is warned of at once; with a store this would begin to look into it

    def __repr__(self) -> str:
        in_force = self.holder.in_force
        schedule = in_force.schedules.get(self.feature)
        decision = None if schedule is None else schedule.at(in_force.time(self._clock()))
        if decision is None:
            return f"<{type(self).__name__} of {self.feature}>"
        state = decision.code or ("open in grace" if decision.grace else "open")
        return f"<{type(self).__name__} {state}>"

    def check(self, now: float | None = None) -> Decision:
        """The decision at a time (seconds since the epoch; ``None`` for the present)."""
        if now is None:
            now = self._clock()
        begins, ends, in_force, decision = self._last
        if begins <= now < ends and in_force is self.holder.in_force and self._refresher.is_settled:
            return decision
        return self._look_up(now)

    def _look_up(self, now: float) -> Decision:
        in_force, decision = self.holder.decide(self.feature, now)
        if decision.grace:
            self._warn_of_grace(now)
        elif now >= in_force.believed_from:
            span = in_force.schedules[self.feature].span(now)
            self._last = (max(span.begins, in_force.believed_from), span.ends, in_force, decision)
        return decision

    def notice(self, now: float | None = None) -> str | None:
        """What every response says while the term is over and the grace is not: one line of ASCII, or ``None``."""
        now = self._clock() if now is None else now
        in_force, decision = self.holder.decide(self.feature, now)
        if not decision.grace:
            return None
        schedule = in_force.schedules[self.feature]
        ends = schedule.span(in_force.time(now)).ends
        then = "another takes over" if schedule.at(ends).open else "the door closes"
        return f"The licence has expired and is in its grace period; {then} on {day_of(ends)}."

    def install(self, token: str) -> Decision:
        """Verify a licence and put it in force for this process alone, in place of that of the configuration.

        :returns: the decision it leads to now. A genuine licence that opens nothing (expired, not yet valid,
            without the feature) is installed all the same.
        :raises LicenseError: for one that cannot be accepted; what was in force before stays.
        """
        self.holder.hold(token)
        self._next_warning = float("-inf")
        return self.check()

    def _warn_of_grace(self, now: float) -> None:
        # Never waits: a request that comes second leaves the warning to the first.
        if now < self._next_warning or not self._warning.acquire(blocking=False):
            return
        try:
            if now < self._next_warning:
                return
            self._next_warning = now + GRACE_WARNING_INTERVAL
        finally:
            self._warning.release()
        logger.warning("%s", self.notice(now))
