"""Pure: the paths of a provider that the bridge lets through, and which models they ask for.

The host's key may have more rights than its callers should, so paths and methods are listed one by one; everything
else is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from flask_aibridge.bridge.intercept.content import dicts
from flask_aibridge.bridge.intercept.documents import Document, member
from flask_aibridge.bridge.intercept.wire_format import WireFormat

READ: Final = ("GET", "HEAD")

ModelsOf: TypeAlias = Callable[[Document], list[Any]]
"""Which models a request's document names; anything but a string stands for one that cannot be known."""


_BESIDE: Final = ("tools", "models", "fallbacks")
"""Members that name more models: those that tools work with (images by OpenAI, advice by Anthropic), and those that
answer where the first does not, by themselves (OpenRouter) or as objects."""

SAYING_MODELS: Final = frozenset({"model", "requests", "params", *_BESIDE})
"""Every member, or member of such members, that is looked at here."""


def named(document: Document) -> list[Any]:
    """The model that the request is for, null where it is chosen elsewhere, by a stored prompt for example; and those
    that it names beside it."""
    return [document.get("model"), *_beside(document)]


def named_if_any(document: Document) -> list[Any]:
    """The same, of a request that need not be for any model."""
    return named(document) if "model" in document else _beside(document)


def named_in_batch(document: Document) -> list[Any]:
    """Those of each request in a batch of messages; null for a document without any."""
    requests = [member(each, "params") for each in dicts(document.get("requests"))]
    return [model for request in requests for model in named(request)] or [None]


def named_elsewhere(document: Document) -> list[Any]:
    """Unknown: the requests are in a file that the provider has."""
    return [None]


def _beside(document: Document) -> list[Any]:
    listed = [each for name in _BESIDE if isinstance(document.get(name), list) for each in document[name]]
    objects = [each["model"] for each in dicts(listed) if "model" in each]
    return objects + [each for each in listed if isinstance(each, str)]


@dataclass(frozen=True, slots=True)
class Route:
    """One path of a provider, or all that have one form: ``{…}`` stands for one segment, ``/*`` at the end for
    everything below.

    :param methods: what may be done there; ``POST`` makes something or has something done.
    :param wire_format: by what the answer is followed; null where it is relayed unread.
    :param websocket: whether the provider takes WebSockets here.
    :param lists: whether reading it enumerates what everybody has stored with the host's key.
    :param models: which models a ``POST`` asks for; null where none is concerned.
    """

    path: str
    methods: tuple[str, ...]
    wire_format: type[WireFormat] | None = None
    websocket: bool = False
    lists: bool = False
    models: ModelsOf | None = None


class RouteTable:
    """Finds the route of a path. A path without placeholders goes before any other, else the first that fits."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes = tuple(routes)
        self._exact = {route.path: route for route in routes if not _PLACEHOLDER.search(route.path)}
        self._forms = [(_compiled(route.path), route) for route in routes if route.path not in self._exact]

    def __iter__(self) -> Iterator[Route]:
        return iter(self._routes)

    def find(self, path: str) -> Route | None:
        """Return the route of ``path`` (decoded, plain: ``request.is_plain``), or null."""
        found = self._exact.get(path)
        if found is not None:
            return found
        return next((route for form, route in self._forms if form.fullmatch(path)), None)


_PLACEHOLDER: Final = re.compile(r"\{[a-z_]+\}|/\*$")


def _compiled(path: str) -> re.Pattern[str]:
    pieces, at = [], 0
    for placeholder in _PLACEHOLDER.finditer(path):
        pieces += [re.escape(path[at : placeholder.start()]), "/.+" if placeholder[0] == "/*" else "[^/]+"]
        at = placeholder.end()
    return re.compile("".join([*pieces, re.escape(path[at:])]), re.DOTALL)
