"""Brings records to the store, or, while that is away, to the spool."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from flask_aibridge.errors import AIBridgeError, InvalidRecord, ServicesUnavailable
from flask_aibridge.services.interfaces import Recorder
from flask_aibridge.services.recording.availability import Availability
from flask_aibridge.services.recording.queue import BATCH_BYTES, BATCH_RECORDS
from flask_aibridge.services.records import Record
from flask_aibridge.services.spool.spool import Spool

_log = logging.getLogger("flask_aibridge.services")

MAX_FAILURES: Final = 16
"""Calls in a row that may fail with an error that no recorder should raise, before it is taken for the recorder's own
and not for that of a record in the batch. Halving 500 records down to a bad one takes 10."""

MAX_REPLAYS: Final = 8
"""How often a batch out of the spool may fail with such an error, while other records are stored, before it is set
aside: else what is spooled behind it would wait for ever. It takes half a minute."""

LOG_FIRST: Final = 10
LOG_EVERY: Final = 1000
"""Of lost records, so many are logged, and then one in so many: a flood of them must not become one in the log."""


@dataclass(slots=True)
class Losses:
    """How many records were given up: ``dropped`` since there was room for them nowhere, ``refused`` since they can
    never be stored."""

    dropped: int = 0
    refused: int = 0

    def drop(self, record: Record) -> None:
        """There was room for it neither in the store, nor in memory, nor in the spool."""
        self.dropped += 1
        if _is_logged(self.dropped):
            _log.error(
                "There is no room for %s, and it is lost; %d are so far.", _named(record), self.dropped
            )

    def refuse(self, record: Record, error: Exception) -> None:
        """It cannot be stored. Nothing that it contains is logged."""
        self.refused += 1
        if _is_logged(self.refused):
            said = error if isinstance(error, InvalidRecord) else type(error).__name__
            _log.error("%s cannot be stored, and is left out: %s", _named(record), said)


def _is_logged(number: int) -> bool:
    return number <= LOG_FIRST or number % LOG_EVERY == 0


def _named(record: Record) -> str:
    name = f"{type(record).__name__} {_shown(getattr(record, 'id', ''))}"
    interception = getattr(record, "interception_id", None)
    return name if interception is None else f"{name} of interception {_shown(interception)}"


def _shown(name: object) -> str:
    """On one line, whatever it is: an id that is refused may be anything."""
    return str(name)[:64].encode("unicode_escape").decode()


def log_unexpected(what: str, error: BaseException) -> None:
    """Log an error that its caller does not expect. One that is a defect is logged by where it happened, without its
    message, which may quote what is recorded."""
    if isinstance(error, AIBridgeError):
        _log.error("%s failed: %s", what, error)
        return
    where = "".join(traceback.format_tb(error.__traceback__)).rstrip()
    _log.error("%s failed with %s; please report this.\n%s", what, type(error).__name__, where)


@dataclass(slots=True)
class _Attempt:
    """To store a batch, in parts where the whole is refused."""

    waiting: list[Sequence[Record]]
    suspects: list[Record] = field(default_factory=list)
    """Records that an error came of that no recorder should raise."""
    error: Exception | None = None
    failures: int = 0
    stored: bool = False

    @property
    def is_hopeless(self) -> bool:
        """Whether everything fails, whatever it is."""
        return self.failures > MAX_FAILURES and not self.stored

    def halve(self, part: Sequence[Record]) -> bool:
        """Try a part in two; not possible with a single record."""
        middle = len(part) // 2
        if middle:
            self.waiting += (part[middle:], part[:middle])
        return bool(middle)

    def left(self) -> list[Record]:
        """What is not stored and not refused."""
        return [*self.suspects, *(record for part in reversed(self.waiting) for record in part)]


class Delivery:
    """What is done with a batch. For one thread at a time."""

    def __init__(
        self, recorder: Recorder, spool: Spool | None, availability: Availability, losses: Losses
    ) -> None:
        self._recorder = recorder
        self._spool = spool
        self._availability = availability
        self._losses = losses
        self._failed_oddly = False
        self._stored = 0
        self._replays = 0
        self._stored_before = 0

    def store(self, records: Sequence[Record]) -> Sequence[Record]:
        """Store records, in one call; those that are left where the services are away.

        One that is refused is searched for by halves and given up, and the others are stored.
        """
        attempt = _Attempt([records])
        self._failed_oddly = False
        while attempt.waiting and not attempt.is_hopeless:
            part = attempt.waiting.pop()
            try:
                self._recorder.record(part)
            except ServicesUnavailable as error:
                self._availability.lost(error)
                attempt.waiting.append(part)
                return attempt.left()
            except InvalidRecord as error:
                if not attempt.halve(part):
                    self._losses.refuse(part[0], error)
            except Exception as error:
                attempt.failures, attempt.error = attempt.failures + 1, error
                if not attempt.halve(part):
                    attempt.suspects.append(part[0])
            else:
                attempt.stored = True
        return self._judged(attempt)

    def _judged(self, attempt: _Attempt) -> Sequence[Record]:
        """Where others were stored, records that an unexpected error came of are given up; else it is the services
        that do not work."""
        self._stored += attempt.stored
        if attempt.error is None:
            self._availability.found(working=True)
            return ()
        log_unexpected("Recording", attempt.error)
        if not attempt.stored:
            self._failed_oddly = True
            self._availability.lost(attempt.error)
            return attempt.left()
        for record in attempt.suspects:
            self._losses.refuse(record, attempt.error)
        return ()

    def spool(self, records: Sequence[Record]) -> Sequence[Record]:
        """Append records to the spool; those that it does not take."""
        if self._spool is None:
            return records
        try:
            return records[self._spool.append(records).taken :]
        except Exception:  # whatever it is about one of them, the others are not to be lost for it
            return [record for record in records if not self.spool_one(record)]

    def spool_one(self, record: Record) -> bool:
        """Append a record to the spool; true, too, where it can never be stored, and is given up."""
        try:
            return self._spool is not None and bool(self._spool.append([record]).taken)
        except Exception as error:
            self._losses.refuse(record, error)
            return True

    def replay(self, *, orphans: bool) -> bool:
        """Store a batch out of the spool; whether there was one, and it is stored."""
        if self._spool is None:
            return False
        batch = self._spool.batch(BATCH_RECORDS, BATCH_BYTES, orphans=orphans)
        if not batch:
            return False
        if self.store(batch):
            if self._is_stuck():
                self._spool.give_up(batch)
            return False
        self._replays = 0
        self._spool.stored(batch)
        return True

    def _is_stuck(self) -> bool:
        """Whether what failed just now has failed too often, while the services do store other records."""
        if not self._failed_oddly:
            return False
        if not self._replays:
            self._stored_before = self._stored
        self._replays += 1
        if self._replays < MAX_REPLAYS or self._stored == self._stored_before:
            return False
        self._replays = 0
        return True
