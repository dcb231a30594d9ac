"""Pure: what interceptions come to: the sums of their tokens, and the session that they make."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from flask_aibridge.services.storage import MAX_TIMELINE, InterceptionView, SessionView, TokenSums

__all__ = ["root_of", "session_of", "sum_tokens"]


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


def session_of(views: Sequence[InterceptionView], *, timeline: bool = False) -> SessionView:
    """The session that one user's interceptions with one session id make; or those of a thread without.

    :param views: at least one.
    :param timeline: whether the interceptions themselves are wanted.
    """
    views = sorted(views, key=lambda view: view.start.id)
    starts = [view.start for view in views]
    newest = starts[-1]
    roots = {root_of(view) for view in views}
    ends = [view.end.ended_at for view in views if view.end is not None]
    return SessionView(
        id=newest.session_id or root_of(views[-1]),
        initiator=newest.initiator or "",
        providers=tuple(sorted({start.provider for start in starts})),
        models=tuple(sorted({start.model for start in starts if start.model})),
        client=newest.client,
        started_at=min(start.started_at for start in starts),
        ended_at=max(ends) if len(ends) == len(views) else None,
        last_active_at=max(start.started_at for start in starts),
        interceptions=len(views),
        threads=len(roots),
        tokens=sum_tokens(view.tokens for view in views),
        timeline=tuple(views[-MAX_TIMELINE:]) if timeline else (),
    )


def root_of(view: InterceptionView) -> str:
    """The id of the interception that began the thread: of itself, where it goes on with none."""
    return view.thread_root_id or view.start.id
