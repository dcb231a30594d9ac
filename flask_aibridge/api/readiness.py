"""Whether this process can serve the gateway: what ``/readyz`` says."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Final, Protocol

from flask_aibridge.errors import AIBridgeError, ConfigError

if TYPE_CHECKING:
    from flask_aibridge.config import Settings
    from flask_aibridge.license.gate import Gate
    from flask_aibridge.services.interfaces import ProviderConfigurator
    from flask_aibridge.services.recording.recorder import Recording
    from flask_aibridge.services.storage import Store

__all__ = ["BLOCKING", "Readiness", "ReadinessCheck"]

LOOK_SECONDS: Final = 1.0
"""How often it is looked, however often it is asked: probes of many balancers cost as much as one's."""

AWAY_SECONDS: Final = 600.0
"""How long a store may be away before it keeps from serving: for so long keys that were accepted are accepted on, and
records wait in the spool."""

BLOCKING: Final = frozenset(
    {
        "draining",
        "starting",
        "not_mounted",
        "no_providers",
        "store_missing",
        "store_not_reached",
        "store_away_too_long",
        "spool_full",
    }
)
"""The reasons with which this process is not to be sent requests. The others it lives with: a licence that has ended
closes the public door of every process alike, and a store that is away for a while costs nobody their answer."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Readiness:
    """Stable words for what is not as it should be; none where all is well."""

    reasons: tuple[str, ...] = ()

    @property
    def ready(self) -> bool:
        """Whether requests may be sent here."""
        return not BLOCKING.intersection(self.reasons)


class Looked(Protocol):
    """What is looked at: the state of an app."""

    draining: bool

    @property
    def settings(self) -> Settings: ...

    @property
    def gate(self) -> Gate: ...

    @property
    def mounted(self) -> tuple[object, object]: ...

    @property
    def serves_own_bridge(self) -> bool: ...

    @property
    def opened_recording(self) -> Recording | None: ...

    def store(self) -> Store: ...

    def provider_configurator(self) -> ProviderConfigurator: ...


class ReadinessCheck:
    """Looks at an app once a second at most, whoever asks and from however many threads.

    :param clock: seconds that never go back.
    """

    def __init__(self, app: Looked, clock: Callable[[], float] = monotonic) -> None:
        self._app = app
        self._clock = clock
        self._look_at = float("-inf")
        self._seen = Readiness(("starting",))
        self._reached_at: float | None = None

    def __call__(self) -> Readiness:
        """What was seen within the last second. While the first look goes on in another thread: ``starting``."""
        if self._app.draining:
            return Readiness(("draining",))
        now = self._clock()
        if now >= self._look_at:
            # First, and with no lock that a fork could leave behind: who comes while it is looked takes what was seen
            # before, and a second look by chance does no harm.
            self._look_at = now + LOOK_SECONDS
            self._seen = Readiness((*self._bridge(), *self._license()))
            self._look_at = self._clock() + LOOK_SECONDS
        return self._seen

    def _bridge(self) -> tuple[str, ...]:
        app = self._app
        if app.mounted[0] is None:
            return ("not_mounted",)
        if app.serves_own_bridge:
            return ()
        if app.settings.recording == "off":
            return () if app.settings.providers else ("no_providers",)
        return (*self._store(), *self._providers(), *self._records())

    def _store(self) -> tuple[str, ...]:
        try:
            self._app.store().ping()
        except ConfigError:
            return ("store_missing",)
        except AIBridgeError:
            return (self._away(),)
        except Exception:
            _log.exception("The store was reached, and could not be asked whether it is well.")
            return (self._away(),)
        self._reached_at = self._clock()
        return ()

    def _away(self) -> str:
        if self._reached_at is None:
            return "store_not_reached"
        return "store_away" if self._clock() - self._reached_at < AWAY_SECONDS else "store_away_too_long"

    def _providers(self) -> tuple[str, ...]:
        try:
            offered = self._app.provider_configurator().providers().providers
        except AIBridgeError:
            return ()  # nobody can say, and that the store is away has been said
        return () if any(each.enabled for each in offered) else ("no_providers",)

    def _records(self) -> tuple[str, ...]:
        recording = self._app.opened_recording
        if recording is None:
            return ()
        state, found = recording.state(), []
        if recording.is_full:
            found.append("spool_full")
        if state.spooled_records:
            found.append("records_spooled")
        if state.dropped:
            found.append("records_lost")
        return tuple(found)

    def _license(self) -> tuple[str, ...]:
        decision = self._app.gate.check()
        if not decision.open:
            return (decision.code or "license_required",)
        return ("license_grace_period",) if decision.grace else ()
