"""Pure: what clients were told, what the provider served and what is recorded, compared request by request.

A request is known by its marker: its prompt carries it to the provider, and its session into its record.

Tokens are compared exactly wherever the account can be exact: where an interception is recorded as completed, and
where a client saw the whole answer of a worker that was not killed (that one has to be recorded as completed). What
else reached the provider has some of the tokens, and never more than it said: an answer that broke off had not said
all, a killed worker had up to 50 ms of them in its memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from flask_aibridge.services.storage import InterceptionView, UsageRow
from tests.soak.clients import Asked
from tests.soak.provider import Served

FOLLOWED: Final = ("none", "slow-start", "stall")
"""What a client that stays gets to the end."""


@dataclass(frozen=True, slots=True)
class Accounts:
    """Of one soak. ``killed`` are the workers that were."""

    asked: Sequence[Asked]
    served: Mapping[str, Served]
    views: Sequence[InterceptionView]
    rows: Sequence[UsageRow]
    killed: Collection[int]
    by_marker: Mapping[str, list[InterceptionView]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        by_marker: dict[str, list[InterceptionView]] = {}
        for view in self.views:
            by_marker.setdefault(view.start.session_id or "", []).append(view)
        object.__setattr__(self, "by_marker", by_marker)

    def wrong(self) -> Iterator[str]:
        """A sentence for each thing that is not as it should be."""
        for asked in self.asked:
            for what in self._wrong_with(asked):
                records = [(view.status, view.tokens) for view in self.by_marker.get(asked.marker, ())]
                yield f"{what}: {asked}, {self.served.get(asked.marker)}, recorded {records}"
        yield from self._wrong_sums()

    def broken(self) -> list[Asked]:
        """Streams and answers that had begun and did not end as they should, though nobody killed their worker."""
        return [
            asked for asked in self.asked if self._is_clean(asked) and self._began(asked) and not asked.whole
        ]

    def unanswered(self) -> list[Asked]:
        """Requests that got no head at all."""
        return [asked for asked in self.asked if asked.status is None and asked.fault in FOLLOWED]

    def exact(self) -> list[Asked]:
        """Those whose tokens are compared exactly."""
        return [asked for asked in self.asked if self._is_exact(asked)]

    def statuses(self) -> Counter[str]:
        """How many records there are of each."""
        return Counter(view.status for view in self.views)

    def _wrong_with(self, asked: Asked) -> Iterator[str]:
        served, records = self.served.get(asked.marker), self.by_marker.get(asked.marker, [])
        if served is not None and len(records) != 1:
            yield f"{len(records)} records of a request that reached the provider"
        if served is not None and served.times != 1:
            yield f"the provider was asked {served.times} times"
        if len(records) > 1:
            yield "more than one record"
        for view in records:
            yield from self._wrong_record(asked, served, view)
        if asked.whole and (served is None or not served.whole):
            yield "an answer that the provider did not give"
        if self._is_clean(asked) and self._began(asked) and not asked.whole:
            yield "a broken answer"
        if asked.fault in FOLLOWED and asked.status not in (200, 503, None):
            yield "an answer of the wrong status"
        if asked.status == 503 and asked.fault in FOLLOWED and "Retry-After" not in asked.headers:
            yield "a refusal that does not say when to come again"

    def _wrong_record(self, asked: Asked, served: Served | None, view: InterceptionView) -> Iterator[str]:
        if view.end is None or view.status == "running" or view.end.status != view.status:
            yield "no end"
        if view.start.in_process != (asked.door == "in process"):
            yield "the wrong door"
        recorded = (view.tokens.input, view.tokens.output)
        if served is None:
            if view.status == "completed" or recorded != (0, 0):
                yield "a record of what nobody served"
        elif self._is_exact(asked):
            if view.status != "completed" or recorded != (served.input, served.output):
                yield "tokens that are not those that were served"
        elif recorded[0] not in (0, served.input) or recorded[1] > max(1, served.output):
            yield "more tokens than were served"

    def _is_exact(self, asked: Asked) -> bool:
        records = self.by_marker.get(asked.marker, [])
        completed = bool(records) and records[0].status == "completed"
        return completed or (asked.whole and asked.worker not in self.killed)

    def _is_clean(self, asked: Asked) -> bool:
        return asked.fault in FOLLOWED and not asked.leaves and asked.worker not in self.killed

    @staticmethod
    def _began(asked: Asked) -> bool:
        return asked.status == 200

    def _wrong_sums(self) -> Iterator[str]:
        counted = sum(row.requests for row in self.rows)
        if counted != len(self.views):
            yield f"{counted} requests in the sums, and {len(self.views)} records"
        for kind in ("input", "output"):
            summed = sum(getattr(row.tokens, kind) for row in self.rows)
            recorded = sum(getattr(view.tokens, kind) for view in self.views)
            if summed != recorded:
                yield f"{summed} {kind} tokens in the sums, and {recorded} in the records"
