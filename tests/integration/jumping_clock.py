"""A clock of the host that is set back and forth: for a process of its own, and before anything else is imported."""

from __future__ import annotations

import datetime as dt
import time
from datetime import datetime
from typing import Any

_time = time.time


class JumpingClock:
    """What ``time.time`` and ``datetime.now`` say, and by how many seconds that is wrong."""

    shift = 0.0

    def install(self) -> None:
        class AnyDatetime(type(datetime)):  # type: ignore[misc]
            def __instancecheck__(cls, instance: object) -> bool:
                return isinstance(instance, datetime)

        clock = self

        class Datetime(datetime, metaclass=AnyDatetime):
            @classmethod
            def now(cls, tz: Any = None) -> Any:
                return datetime.now(tz) + dt.timedelta(seconds=clock.shift)

        dt.datetime = Datetime  # type: ignore[misc]
        time.time = lambda: _time() + clock.shift


CLOCK = JumpingClock()
