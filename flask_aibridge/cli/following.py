"""Interceptions for the terminal, page by page, and what is new of them since the last look."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Final

import click

from flask_aibridge.cli.layout import printable
from flask_aibridge.errors import ServicesUnavailable
from flask_aibridge.services.storage import MAX_LIMIT, InterceptionView, Query, Store

__all__ = ["Follower", "pages_of"]

FOLLOWED: Final = timedelta(minutes=15)
"""How long ago an interception may have started whose news are still looked for: longer than most answers take."""

MAX_FOLLOWED: Final = 5000
"""Interceptions that are read at each look, at most: the newest ones."""

AWAY_SECONDS: Final = 60.0
"""How long a store that is away is waited for: a restart takes less."""


def pages_of(store: Store, query: Query, limit: int) -> Iterator[Sequence[InterceptionView]]:
    """What matches, newest first, up to ``limit``."""
    cursor = None
    while limit > 0:
        page = store.interceptions(query, limit=min(limit, MAX_LIMIT), cursor=cursor)
        yield page.interceptions
        limit -= len(page.interceptions)
        cursor = page.next
        if cursor is None:
            return


class Follower:
    """Shows interceptions as they start, and again as they end.

    :param show: is given what is new, oldest first.
    """

    def __init__(
        self, store: Store, query: Query, show: Callable[[Sequence[InterceptionView]], None]
    ) -> None:
        self._store = store
        self._query = query
        self._show = show
        self._seen: OrderedDict[str, str] = OrderedDict()
        self._away_since: float | None = None

    def begin(self, limit: int) -> None:
        """Show the last ones, and take whatever else there is as seen."""
        last = [view for views in pages_of(self._store, self._query, limit) for view in views]
        for view in [*self._recent(), *last]:
            self._is_news(view)
        self._show(last[::-1])

    def look(self) -> None:
        """Show what has come or changed.

        :raises ServicesUnavailable: where the store has been away for ``AWAY_SECONDS``.
        """
        try:
            found = self._recent()
        except ServicesUnavailable as error:
            self._wait_for_store(error)
            return
        self._away_since = None
        self._show([view for view in found if self._is_news(view)])

    def _wait_for_store(self, error: ServicesUnavailable) -> None:
        if self._away_since is None:
            self._away_since = monotonic()
            click.echo(f"{printable(str(error))} Trying again.", err=True)
        elif monotonic() - self._away_since > AWAY_SECONDS:
            raise error

    def _recent(self) -> list[InterceptionView]:
        """What may have news, oldest first."""
        query = replace(self._query, started_after=datetime.now(UTC) - FOLLOWED)
        found = [view for views in pages_of(self._store, query, MAX_FOLLOWED) for view in views]
        return found[::-1]

    def _is_news(self, view: InterceptionView) -> bool:
        """Tell whether this was not seen as it is now; from here on it was."""
        was = self._seen.pop(view.start.id, None)
        self._seen[view.start.id] = view.status
        while len(self._seen) > 2 * MAX_FOLLOWED:
            self._seen.popitem(last=False)
        return was != view.status
