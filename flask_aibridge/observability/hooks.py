"""Pure: the records handed to hooks, and what a hook looks like.

A hook is any object with the methods of ``Hook``. It is called in the thread that served the request, once
per request, after the answer has ended; an exception it raises is logged and changes nothing for the caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol, TypeAlias

Outcome: TypeAlias = Literal[
    "completed", "client_closed", "upstream_error", "upstream_truncated", "interrupted", "refused"
]
"""How an interception ended.

``completed``: the provider's answer was relayed to its end. ``client_closed``: the caller left before the
end. ``upstream_error``: the provider answered with an error, or could not be reached. ``upstream_truncated``:
the answer broke off. ``interrupted``: the bridge itself stopped it. ``refused``: the bridge turned the
request away.
"""


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """The tokens of one answer, in the same counting for every provider.

    ``input`` never includes tokens read from or written to the provider's cache; ``output`` includes
    reasoning. ``extra`` holds every further count that the provider reported, under the provider's own name
    for it.
    """

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    extra: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class InterceptionEnded:
    """One request that the bridge answered, whatever the answer was.

    ``provider``, ``provider_type`` and ``route`` are empty where the path named none that is known, so that a
    label made of them cannot be filled by strangers. ``source`` is null for requests that came over HTTP.
    ``time_to_first_byte`` and ``duration`` are seconds since the request arrived; ``time_to_first_byte`` is
    null where no body byte was sent. ``usage`` is null where the provider reported none. ``error`` is a
    sentence for operators, free of secrets.
    """

    interception_id: str
    provider: str
    provider_type: str
    route: str
    model: str | None
    source: str | None
    in_process: bool
    user: str | None
    key_id: str | None
    status: int
    outcome: Outcome
    started_at: datetime
    time_to_first_byte: float | None
    duration: float
    bytes_sent: int
    usage: TokenUsage | None
    error: str | None = None


class Hook(Protocol):
    """What the bridge tells the world. Calls must be quick: the answer's thread makes them."""

    def interception_ended(self, record: InterceptionEnded) -> None:
        """Take the record of a request that has just been answered."""
