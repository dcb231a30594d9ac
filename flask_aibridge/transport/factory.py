"""``Source`` and ``TransportFactory``: transports to the bridge, one for each provider and call site."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, ClassVar

from .mounted import MountedApp
from .urllib3 import WSGIPoolManager

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

__all__ = ["Source", "TransportFactory"]

# One path segment as it is: what would split, end or leave it, or need encoding, is refused.
_is_segment = re.compile(r"[^\x00-\x20\x7f-\U0010ffff/\\%?#]+").fullmatch


class Source(str):
    """Where in the application a request comes from, for logs and records; nothing is allowed or refused
    because of it.

    Open: ``Source("batch-jobs")`` is as good as :attr:`AGENTS`.
    """

    __slots__ = ()

    AGENTS: ClassVar[Source]

    def __repr__(self) -> str:
        return f"Source({str(self)!r})"


Source.AGENTS = Source("agents")


class TransportFactory:
    """Makes the transports of the in-process door: they lead to ``wsgi_app`` mounted at ``script_name``.

    :raises TypeError: where ``wsgi_app`` is ``None`` or not callable.
    :raises ValueError: for a ``script_name`` that is not empty and not like ``/mount``.
    """

    def __init__(self, wsgi_app: WSGIApplication, *, script_name: str = "/api/v2/aibridge") -> None:
        MountedApp(wsgi_app, script_name=script_name)  # raises what every transport would
        self.wsgi_app = wsgi_app
        self.script_name = script_name

    def __repr__(self) -> str:
        return f"<TransportFactory {self.script_name} → {self.wsgi_app!r}>"

    def transport_for(
        self, provider: str, source: Source | str, *, key_id: str | None = None
    ) -> WSGIPoolManager:
        """A transport whose requests reach ``provider`` by the bridge: ``/v1/messages`` arrives as
        ``/<provider>/v1/messages``.

        :param provider: the provider's name in the bridge: one path segment.
        :param source: the call site, for logs and records.
        :param key_id: the id of the API key on whose behalf the requests are made.
        :raises TypeError: where one of them is not a string.
        :raises ValueError: where ``provider`` is empty or not one path segment, or ``key_id`` is empty.
        """
        _check_provider(provider)
        if not isinstance(source, str):
            raise TypeError(
                f"source must be a Source or str, such as Source.AGENTS, not {type(source).__name__}."
            )
        environ: dict[str, Any] = {
            "flask_aibridge.source": source if isinstance(source, Source) else Source(source)
        }
        if key_id is not None:
            if not isinstance(key_id, str):
                raise TypeError(f"key_id must be a str or None, not {type(key_id).__name__}.")
            if not key_id:
                raise ValueError("key_id is empty; pass the id of an API key, or leave it out.")
            environ["flask_aibridge.key_id"] = key_id
        return WSGIPoolManager(
            self.wsgi_app, script_name=self.script_name, path_prefix=f"/{provider}", environ=environ
        )


def _check_provider(provider: str) -> None:
    if not isinstance(provider, str):
        raise TypeError(f"provider must be a str such as 'anthropic', not {type(provider).__name__}.")
    if not _is_segment(provider) or provider in (".", ".."):
        raise ValueError(
            "provider must be one path segment of ASCII such as 'anthropic', without / \\ % ? # or spaces; "
            f"it is {provider!r}."
        )
