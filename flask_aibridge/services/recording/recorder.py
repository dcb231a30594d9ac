"""The recorder that a bridge holds: admits requests, and records them without ever being in their way.

A request's start is recorded while it is admitted, in the one round trip that authorises it. Everything else is
stored in batches by a background thread. While the services are away, starts and all else go to a spool on disk, which
is replayed when they are back, and keys that were accepted lately go on being accepted.

What survives what: a record that the store or the spool took survives the death of the process. One that waits in
memory survives everything but a kill without notice; for the accounting that is some 50 ms, for the prompts, tool calls
and thoughts of a running interception up to 10 s.
"""

from __future__ import annotations

import os
import secrets
import threading
import weakref
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from time import monotonic
from typing import Final, Literal, TypeAlias

from flask_aibridge.config import RateLimit
from flask_aibridge.errors import (
    InvalidRecord,
    KeyNotChecked,
    NotRecorded,
    ServicesUnavailable,
    Unauthorized,
)
from flask_aibridge.services.interfaces import (
    Admission,
    Authorization,
    Credential,
    MCPConfigurator,
    ProviderConfigurator,
    Services,
)
from flask_aibridge.services.local_rate_limits import LocalRateLimits
from flask_aibridge.services.recording.delivery import log_unexpected
from flask_aibridge.services.recording.key_cache import KeyCache
from flask_aibridge.services.recording.state import RecordingState
from flask_aibridge.services.recording.writer import Writer
from flask_aibridge.services.records import (
    InterceptionStart,
    Record,
    given_up_end,
    without_content,
)
from flask_aibridge.services.spool.spool import Spool

__all__ = ["Recording", "RecordingMode", "RecordingState"]

RecordingMode: TypeAlias = Literal["required", "best-effort"]
"""What becomes of a request whose start nothing takes: it is refused, or it passes and is counted."""

CLOSE_SECONDS: Final = 5.0
"""How long ``close()`` waits for what is not stored yet."""

RETRY_AFTER: Final = 5.0
"""Seconds after which a client whose request was refused for lack of room may come again: about as long as it takes to
notice that the services are back, and to store the first of what was kept."""

RESERVED_PART: Final = 8
"""One part in so many of the spool is not for starts, so that the interceptions that are running when it is full can
still be ended."""


class Recording:
    """Admits and records interceptions. All methods may be called from any thread.

    Nothing is started before the first record. A process that forks goes on with a recording of its own in the child.

    :param services: the four services, in this process or behind RPC.
    :param spool: where records go while the services are away; null for nowhere.
    :param mode: see ``RecordingMode``.
    :param record_content: whether prompts, tool calls and thoughts are recorded.
    :param worker: this process' name in leases; by default, and in forked children, one made at random.
    :param rate_limit: of a key that has none of its own, while the services are away: each process counts alone then.
    :param clock: monotonic seconds.
    """

    def __init__(
        self,
        services: Services,
        *,
        spool: Spool | None,
        mode: RecordingMode = "required",
        record_content: bool = True,
        worker: str | None = None,
        rate_limit: RateLimit | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._services = services
        self._spool = spool
        self._is_required = mode == "required"
        self._record_content = record_content
        self._clock = clock
        self._lock = threading.RLock()
        self._keys = KeyCache()
        self._rate_limits = LocalRateLimits(rate_limit, clock)
        self._config_version = 0
        self._writer = Writer(services, spool, _new_worker() if worker is None else worker, clock)
        # Given up without close(): what waits is stored all the same. At exit, the writer has a handler of its own.
        weakref.finalize(self, self._writer.ask_to_end).atexit = False
        _recordings.add(self)

    def __repr__(self) -> str:
        return f"<Recording as {self.worker}: {self.state()}>"

    @property
    def worker(self) -> str:
        """This process' name in leases."""
        return self._writer.worker

    @property
    def provider_configurator(self) -> ProviderConfigurator:
        """The services' own."""
        return self._services.provider_configurator

    @property
    def mcp_configurator(self) -> MCPConfigurator:
        """The services' own."""
        return self._services.mcp_configurator

    def admit(self, start: InterceptionStart | None, credential: Credential | None) -> Admission:
        """Authorise a caller and record that a request is about to be forwarded: one round trip, or none while the
        services are known to be away and the credential was accepted in the last ten minutes.

        :param start: null for a request that is not recorded; its ``worker`` is filled in, unless it is this one.
        :param credential: null for a caller that needs none.
        :raises Unauthorized: the services refuse the credential.
        :raises ServicesUnavailable: they are away, and the credential cannot be checked without them.
        :raises NotRecorded: nothing takes the start, and recording is required; with ``retry_after`` where that is for
            lack of room, which comes back with the services.
        """
        if start is not None:
            if start.worker != self._writer.worker:
                start = replace(start, worker=self._writer.worker)
            self._refuse_without_room()
            if not self._writer.is_running:
                self._writer.ensure_running()
        admission = self._admit(start, credential)
        if start is not None:
            self._writer.running.add(start.id)
        return admission

    def check(self, credential: Credential) -> None:
        """Return if a credential is one that :meth:`admit` might accept; without asking anybody where it did so in the
        last ten minutes. It is for what should not be done for just anyone, such as receiving a large request.

        :raises Unauthorized: the services refuse it.
        :raises ServicesUnavailable: they are away, and it cannot be checked without them.
        """
        asked_at = self._clock()
        if self._find(credential, asked_at) is None:
            self._accept(credential, self._authorize_by_services(credential), asked_at)

    def record(self, record: Record) -> None:
        """Have a record stored soon. Never blocks on the services and never raises."""
        try:
            kept = record if self._record_content else without_content(record)
            if kept is not None:
                self._writer.put(kept)
        except Exception as error:
            self._writer.losses.dropped += 1
            log_unexpected("Recording", error)

    def state(self) -> RecordingState:
        """How far behind the records are."""
        writer, spool = self._writer, self._spool
        return RecordingState(
            queued=len(writer.queue),
            queued_bytes=writer.queue.size,
            spooled_records=spool.records if spool else 0,
            spooled_bytes=spool.size if spool else 0,
            dropped=writer.losses.dropped + writer.losses.refused,
            oldest_age=writer.queue.oldest_age(),
            services_away_since=writer.availability.away_since,
        )

    @property
    def is_full(self) -> bool:
        """Whether there is no room for the start of another interception."""
        return (self._writer.availability.is_away or self._writer.queue.is_full) and not self._has_room()

    def close(self, timeout: float = CLOSE_SECONDS) -> None:
        """Store what waits, within ``timeout`` seconds, spool what could not be stored, and end the thread. A record
        that comes later starts it again.

        Interceptions that have not ended are recorded as interrupted; an end that comes later replaces that.
        """
        self._writer.close(timeout)

    def _admit(self, start: InterceptionStart | None, credential: Credential | None) -> Admission:
        asked_at = self._clock()
        if self._is_settled_here(credential, asked_at):
            return self._admit_here(start, credential, asked_at)
        try:
            return self._accepted(self._ask(start, credential), credential, asked_at)
        except Unauthorized as refusal:
            self._forget(credential, refusal)
            raise
        except KeyNotChecked:
            # The services are not away: who sends what the host's callback fails with must not have everybody else's
            # keys accepted unchecked.
            if credential is None or self._find(credential, asked_at) is None:
                raise
            may_be_stored = False
        except ServicesUnavailable as error:
            self._has_lost(error)
            may_be_stored = not error.not_asked
        try:
            return self._admit_here(start, credential, asked_at)
        except BaseException:
            if may_be_stored:
                self._end_refused(start)
            raise

    def _ask(self, start: InterceptionStart | None, credential: Credential | None) -> Admission:
        try:
            return self._services.admit(start, credential)
        except InvalidRecord as error:
            if start is None:
                raise
            self._give_up(start, error)
            return self._services.admit(None, credential)
        except Exception:
            raise
        except BaseException:  # such as the end of a greenlet that waited for the answer
            self._end_refused(start)
            raise

    def _end_refused(self, start: InterceptionStart | None) -> None:
        """The request does not go on, but its start may have been stored, and nobody else would end it."""
        if start is not None:
            self.record(given_up_end(start.id, datetime.now(UTC)))

    def _accepted(self, admission: Admission, credential: Credential | None, asked_at: float) -> Admission:
        self._writer.availability.found()
        self._config_version = admission.config_version
        if credential is not None and admission.authorization is not None:
            self._accept(credential, admission.authorization, asked_at)
        return admission

    def _accept(self, credential: Credential, authorization: Authorization, asked_at: float) -> None:
        with self._lock:
            self._keys.accept(credential, authorization, asked_at)

    def _forget(self, credential: Credential | None, refusal: Unauthorized) -> None:
        if credential is not None:
            with self._lock:
                self._keys.refuse(credential, refusal.reason, self._clock())

    def _has_lost(self, error: ServicesUnavailable) -> None:
        self._writer.availability.lost(error)
        self._writer.ensure_running()
        self._writer.wake()

    def _is_settled_here(self, credential: Credential | None, now: float) -> bool:
        """Whether there is no need to ask services that are known to be away: the writer tries them meanwhile."""
        if not self._writer.availability.is_away or not self._writer.is_running:
            return False
        return credential is None or self._find(credential, now) is not None

    def _find(self, credential: Credential, now: float) -> Authorization | None:
        with self._lock:
            return self._keys.find(credential, now)

    def _admit_here(
        self, start: InterceptionStart | None, credential: Credential | None, now: float
    ) -> Admission:
        authorization = None if credential is None else self._authorize_here(credential, now)
        standing = self._rate_limits.count(credential, authorization)
        if start is not None:
            if authorization is not None:
                start = replace(start, initiator=authorization.user, key_id=authorization.key_id)
            self._spool_start(start)
        return Admission(authorization, self._config_version, standing)

    def _authorize_here(self, credential: Credential, now: float) -> Authorization:
        return self._find(credential, now) or self._authorize_by_services(credential)

    def _authorize_by_services(self, credential: Credential) -> Authorization:
        try:
            return self._services.authorizer.authorize(credential)
        except Unauthorized as refusal:
            self._forget(credential, refusal)
            raise

    def _refuse_without_room(self) -> None:
        if self._is_required and self._writer.queue.is_full and not self._has_room():
            raise NotRecorded(
                "Too many records wait to be stored: the services are away or slow, and the spool is full.",
                RETRY_AFTER,
            )

    def _has_room(self) -> bool:
        return self._spool is not None and self._spool.room >= self._reserve(self._spool)

    @staticmethod
    def _reserve(spool: Spool) -> int:
        return spool.max_bytes // RESERVED_PART

    def _spool_start(self, start: InterceptionStart) -> None:
        spool, is_full = self._spool, False
        if spool is not None:
            try:
                taken, is_full = spool.append([start], leaving=self._reserve(spool))
            except (InvalidRecord, TypeError) as error:
                self._give_up(start, error)
                return
            if taken:
                self._writer.wake()
                return
        if not self._is_required:
            self._writer.losses.drop(start)
        elif is_full:
            raise NotRecorded("The services are away, and the spool is full.", RETRY_AFTER)
        else:
            raise NotRecorded(
                "The services are away, and the spool cannot be written: the log says why."
                if spool
                else "The services are away, and there is no spool."
            )

    def _give_up(self, start: InterceptionStart, error: Exception) -> None:
        self._writer.losses.refuse(start, error)
        if self._is_required:
            raise NotRecorded(
                "The request cannot be recorded: the log names the field that is wrong."
            ) from error

    def _begin_anew(self) -> None:
        self._lock = threading.RLock()
        self._writer.reset(_new_worker())


def _new_worker() -> str:
    return f"{secrets.token_hex(8)}-{os.getpid()}"


_recordings: weakref.WeakSet[Recording] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    """The thread and the records that wait are the parent's; so is the lease."""
    for recording in list(_recordings):
        recording._begin_anew()


os.register_at_fork(after_in_child=_after_fork_in_child)
