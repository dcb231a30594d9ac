"""Pure: what interceptions come to: the sums of their tokens, and the session that they make."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from flask_aibridge.services.storage import InterceptionView, SessionView, TokenSums

__all__ = ["session_of", "sum_tokens"]


def sum_tokens(sums: Iterable[TokenSums]) -> TokenSums:
    """The sum of sums."""
    total = TokenSums()
    extra: Counter[str] = Counter()
    for each in sums:
        extra.update(each.extra)
        total = TokenSums(
            input=total.input + each.input,
            output=total.output + each.output,
            cache_read=total.cache_read + each.cache_read,
            cache_write=total.cache_write + each.cache_write,
        )
    return TokenSums(
        input=total.input,
        output=total.output,
        cache_read=total.cache_read,
        cache_write=total.cache_write,
        extra=dict(extra),
    )


def session_of(views: Sequence[InterceptionView]) -> SessionView:
    """The session that one user's interceptions with one session id make; or a single one without.

    :param views: at least one.
    """
    starts = sorted((view.start for view in views), key=lambda start: start.id)
    newest = starts[-1]
    ends = [view.end.ended_at for view in views if view.end is not None]
    return SessionView(
        id=newest.session_id or newest.id,
        initiator=newest.initiator or "",
        providers=tuple(sorted({start.provider for start in starts})),
        models=tuple(sorted({start.model for start in starts if start.model})),
        client=newest.client,
        started_at=min(start.started_at for start in starts),
        ended_at=max(ends) if len(ends) == len(views) else None,
        last_active_at=max(start.started_at for start in starts),
        interceptions=len(views),
        tokens=sum_tokens(view.tokens for view in views),
    )
