"""What a provider is to the bridge: its routes, its URLs, its way to carry a key and to report an error."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from flask_aibridge.bridge.providers.key_pool import KeyPool
from flask_aibridge.bridge.providers.routes import Route, RouteTable
from flask_aibridge.config import DEFAULT_BASE_URLS, ProviderSettings


class Provider(ABC):
    """One configured instance of a provider.

    :param settings: as ``config.check_provider`` returns them.
    """

    type: ClassVar[str]
    routes: ClassVar[RouteTable]
    credential_headers: ClassVar[tuple[str, ...]]
    """Where its SDK puts a key, the one that counts first: ``Authorization`` (as a bearer token), ``X-Api-Key``."""
    failures: ClassVar[frozenset[int]] = frozenset({429, 503, 504})
    """The statuses that speak for leaving it alone."""

    def __init__(self, settings: ProviderSettings) -> None:
        self.name = settings.name
        self._base_url = settings.base_url
        self.keys = KeyPool(settings.keys)

    def route(self, path: str) -> Route | None:
        """Return the route of ``path``, or null."""
        return self.routes.find(path)

    def url(self, path: str, query: str) -> str:
        """Return where a request for ``path`` (percent-encoded, as below the provider's name) goes.

        It is below the base URL whatever a caller wrote. A path that does not begin with a slash would go on with the
        host's name: ``http://host`` and ``%2F@elsewhere`` is a URL of ``elsewhere``.
        """
        below = self._below_base(path)
        if not below.startswith("/"):
            raise ValueError(f"{below[:80]!r} is no path below the base URL of {self.name!r}")
        return self._base_url + below + (f"?{query}" if query else "")

    @property
    def lacks_key(self) -> bool:
        """Whether a key is needed and none is configured.

        A provider at a base URL of the host's own, such as a model server on the same network, may ask for no key;
        the vendor's own service always does.
        """
        return not self.keys and self._base_url == DEFAULT_BASE_URLS.get(self.type)

    @abstractmethod
    def error(self, status: int, message: str, interception_id: str) -> dict[str, object]:
        """Return an error document in the provider's own form, so that its SDK shows the message."""

    @abstractmethod
    def carry(self, key: str) -> dict[str, str]:
        """Return the headers that carry a key."""

    @abstractmethod
    def _below_base(self, path: str) -> str: ...
