"""Pure: when the circuit breaker opens, and for how long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from flask_aibridge.config.complaints import refuse_unknown_fields, wrong
from flask_aibridge.config.keys import CIRCUIT_BREAKER

MAX_SECONDS: Final = 86_400
"""The longest interval and time-out: a day. More would be a switch that nobody remembers."""

MAX_REQUESTS: Final = 10_000
"""The largest numbers of requests; more is a mistake."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitBreaker:
    """After ``failure_threshold`` failures in a row within ``interval`` seconds (0: however long it takes) a provider
    is not asked for ``timeout`` seconds; then for ``max_requests``, all of which have to succeed."""

    failure_threshold: int = 5
    interval: float = 10.0
    timeout: float = 30.0
    max_requests: int = 3


_WHOLE: Final = ("failure_threshold", "max_requests")
CIRCUIT_BREAKER_FIELDS: Final = tuple(field.name for field in fields(CircuitBreaker))


def read_circuit_breaker(value: object) -> CircuitBreaker | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise wrong(
            CIRCUIT_BREAKER, value, f"None, or a mapping with some of {', '.join(CIRCUIT_BREAKER_FIELDS)}"
        )
    refuse_unknown_fields(CIRCUIT_BREAKER, value, CIRCUIT_BREAKER_FIELDS)
    return CircuitBreaker(**{name: _number(name, given) for name, given in value.items()})


def _number(name: str, value: Any) -> Any:
    key = f"{CIRCUIT_BREAKER}[{name!r}]"
    if name in _WHOLE:
        if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_REQUESTS:
            return value
        raise wrong(key, value, f"a whole number from 1 to {MAX_REQUESTS}")
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and 0 <= value <= MAX_SECONDS and (value or name == "interval"):
        return float(value)
    least = "from 0" if name == "interval" else "above 0, up"
    raise wrong(key, value, f"a number of seconds {least} to {MAX_SECONDS}")
