"""The keys of one provider, best first, and which of them can be used now. Any number of threads may use one pool."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

from flask_aibridge.bridge.providers.cool_downs import CoolDowns, Lane, Reason
from flask_aibridge.services.masking import masked


@dataclass(frozen=True, slots=True)
class ProviderKey:
    """A key of the host's. ``hint`` is what may be shown of it."""

    number: int
    secret: str = field(repr=False)
    hint: str


class KeyPool:
    """The first key that does not rest is the one to use, so the later ones are spared for when they are needed.

    :param keys: best first; one that is there twice counts once.
    :param clock: seconds that never go back.
    """

    def __init__(self, keys: Iterable[str], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._keys = tuple(
            ProviderKey(number, key, masked(key)) for number, key in enumerate(dict.fromkeys(keys))
        )
        self._clock = clock
        self._cool_downs = CoolDowns()

    def __len__(self) -> int:
        return len(self._keys)

    def best(self, lane: Lane, tried: Collection[ProviderKey] = ()) -> ProviderKey | None:
        """Return the best key for a request that was not ``tried`` with it before; null where none is left.

        A single key never rests: there is no other to spare it for, and the provider's own answer says more. One that
        was not accepted comes last, but it comes: what it was not accepted for may have been one caller's request.
        """
        if len(self._keys) == 1:
            return None if tried else self._keys[0]
        now, last = self._clock(), None
        for key in self._keys:
            if key in tried or self._cool_downs.limited_until(key.number, lane, now) > now:
                continue
            if not self._cool_downs.was_rejected(key.number, lane, now):
                return key
            last = last or key
        return last

    def rest(self, key: ProviderKey, lane: Lane, reason: Reason, seconds: float) -> None:
        """Leave a key alone for a while."""
        self._cool_downs.rest(key.number, lane, reason, self._clock(), seconds)

    def accepted(self, key: ProviderKey, lane: Lane) -> None:
        """Take a key for one that is accepted, whatever was said of it before."""
        self._cool_downs.accepted(key.number, lane)

    def limited_for(self, lane: Lane) -> float | None:
        """Return the seconds until the first rate limit in this lane ends; null where no key has one."""
        now = self._clock()
        ends = [self._cool_downs.limited_until(key.number, lane, now) for key in self._keys]
        return min((end - now for end in ends if end > now), default=None)
