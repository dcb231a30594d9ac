"""What belongs to one app: its settings, its gate, what it has mounted, and its services, opened at their first use."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeVar, cast
from weakref import WeakSet, ref

from flask_aibridge.api.access import Access, Loader
from flask_aibridge.api.readiness import ReadinessCheck
from flask_aibridge.config import BUILT_IN, Settings
from flask_aibridge.draining import drain, replaced_by
from flask_aibridge.license.gate import Gate
from flask_aibridge.license.holder import LicenseHolder
from flask_aibridge.transport import TransportFactory

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication
    from flask import Flask

    from flask_aibridge.extension import AIBridge
    from flask_aibridge.license.store import LicenseStore
    from flask_aibridge.services.authorizer import KeyLoader
    from flask_aibridge.services.configuration.mcp import HostMCPConfigurator
    from flask_aibridge.services.configuration.providers import ConfiguredProviders, StoredProviders
    from flask_aibridge.services.configuration.sealing import Sealer
    from flask_aibridge.services.configuration.token_fetching import TokenLoader
    from flask_aibridge.services.hosting import HostServices
    from flask_aibridge.services.interfaces import Authorizer, CallObserver
    from flask_aibridge.services.recording.recorder import Recording
    from flask_aibridge.services.storage import Store

__all__ = ["AppState", "Callbacks", "Mounted", "app_states"]

EMBEDDED_FOLDER: Final = "aibridge"
"""Below the app's instance folder: what the embedded server keeps."""

SPOOL_FOLDER: Final = "aibridge/spool"
"""Below the app's instance folder: where records wait while the store is away."""

CLOSE_SECONDS: Final = 5.0
"""How long ``close()`` waits for records that are not stored yet."""

_Part = TypeVar("_Part")


class Mounted(NamedTuple):
    """What an app has mounted; replaced as a whole, so nobody sees half of it."""

    wsgi_app: WSGIApplication | None = None
    transport_factory: TransportFactory | None = None


class Callbacks:
    """What the host may tell the extension to ask: each null until it is set, and looked up at each use."""

    def __init__(self) -> None:
        self.key_loader: KeyLoader | None = None
        self.mcp_token_loader: TokenLoader | None = None
        self.admin_loader: Loader | None = None
        self.user_loader: Loader | None = None
        self.authorizer: Authorizer | None = None
        self.observer: CallObserver | None = None
        self.features: set[str] = set()


class AppState:
    """What belongs to one app: ``app.extensions["aibridge"]``.

    ``settings`` is what the config said, ``licenses`` what is licensed, ``gate`` guards the public door, ``mounted``
    is the bridge and its transport. :meth:`store`, :meth:`services` and :meth:`recording` are opened at the first
    call, by whichever thread makes it; nothing is connected or started before.
    """

    def __init__(
        self, extension: AIBridge, settings: Settings, token: str | None, callbacks: Callbacks, app: Flask
    ) -> None:
        self.extension = extension
        self.settings = settings
        self.mounted = Mounted()
        self._replaced: tuple[WSGIApplication, ...] = ()
        self.callbacks = callbacks
        self.access = Access(
            authorizer=lambda: self.services().authorizer,
            admin_token=settings.admin_token,
            admin_loader=callbacks.admin_loader,
            user_loader=callbacks.user_loader,
        )
        self.instance_path = app.instance_path
        find_app = ref(app)  # the app holds this object

        def app_context() -> AbstractContextManager[object]:
            found = find_app()
            return nullcontext() if found is None else found.app_context()

        self._app_context = app_context
        self._reset_locks()
        self._store: Store | None = None
        self._services: HostServices | None = None
        self._provider_configurator: ConfiguredProviders | StoredProviders | None = None
        self._mcp_configurator: HostMCPConfigurator | None = None
        self._recording: Recording | None = None
        self._license_store: LicenseStore | None = None
        self.licenses = LicenseHolder(
            settings.license_public_keys,
            () if token is None else (token,),
            store=self.license_store,
            has_store=self._may_have_licenses,
            deny_lists=settings.license_deny_lists,
            count_users=None if settings.recording == "off" else self._count_users,
        )
        self.licenses.declare(*callbacks.features)
        self.gate = Gate(holder=self.licenses)
        self.draining = False
        self.readiness = ReadinessCheck(self)
        _states.add(self)

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} at {self.settings.url_prefix}: {self.mounted.wsgi_app!r}, {self.gate!r}>"
        )

    def _reset_locks(self) -> None:
        """Make new locks: also in the child of a fork, where nobody is left to release those of other threads."""
        self._changing = threading.Lock()  # between writers alone; a reader takes ``mounted`` as it is
        self._opening = threading.RLock()

    def mount(self, wsgi_app: WSGIApplication, transport_factory: TransportFactory) -> None:
        """Replace the bridge and its transport in one step."""
        with self._changing:
            self._replaced = replaced_by(wsgi_app, (*self._replaced, self.mounted.wsgi_app))
            self.mounted = Mounted(wsgi_app, transport_factory)

    def replace_transport_factory(self, transport_factory: TransportFactory | None) -> None:
        """Replace the transport alone."""
        with self._changing:
            self.mounted = self.mounted._replace(transport_factory=transport_factory)

    def store(self) -> Store:
        """Where records, keys and configuration are kept.

        :raises ConfigError: where there is none to open; the message names the remedies.
        :raises ServicesUnavailable: where the embedded server does not start.
        """
        return self._open("_store", self._open_store)

    def services(self) -> HostServices:
        """The four services of this app, put together. It does not open the store by itself."""
        return self._open("_services", self._make_services)

    def provider_configurator(self) -> ConfiguredProviders | StoredProviders:
        """The providers of this app: stored ones, with a secret key, else the config's."""
        return self._open("_provider_configurator", self._make_provider_configurator)

    def mcp_configurator(self) -> HostMCPConfigurator:
        """The MCP servers of this app, and its users' tokens for them."""
        return self._open("_mcp_configurator", self._make_mcp_configurator)

    def recording(self) -> Recording:
        """The recorder that the built-in bridge holds.

        :raises ConfigError: as :meth:`store`.
        :raises ServicesUnavailable: as :meth:`store`.
        """
        # Asked for several times in each request; nothing that is open is false.
        return self._recording or self._open("_recording", self._make_recording)

    def license_store(self) -> LicenseStore:
        """Where installed licences are kept: beside the records.

        :raises ConfigError: as :meth:`store`.
        :raises ServicesUnavailable: as :meth:`store`.
        """
        return self._open("_license_store", self._open_license_store)

    @property
    def opened_recording(self) -> Recording | None:
        """The recorder, where it is open."""
        return self._recording

    @property
    def serves_own_bridge(self) -> bool:
        """Whether what is mounted is not the built-in bridge, which alone needs providers and records."""
        return bool(self.settings.bridge != BUILT_IN)

    @property
    def uses_embedded_server(self) -> bool:
        """Whether the embedded server is, or will be, the store of this app."""
        if self.settings.redis_url is not None:
            return False
        will = not self.serves_own_bridge and self.settings.recording != "off"
        return will or self._store is not None or self._may_have_licenses()

    def drain(self, timeout: float) -> bool:
        """Refuse new requests, for good, and wait for those that run, in bridges too that were replaced: whether all
        ended by themselves within ``timeout`` seconds. Those that did not are ended, by the bridge, with an error that
        their caller can read."""
        self.draining = True
        with self._changing:
            bridges = (self.mounted.wsgi_app, *self._replaced)
        return drain(bridges, timeout)

    def close(self, timeout: float = CLOSE_SECONDS) -> None:
        """Flush, within ``timeout`` seconds, and close what is open. All of it can be used again."""
        self.licenses.close()  # first, and not within the lock: it waits for a thread that may be opening the store
        with self._opening:
            recording, store = self._recording, self._store
            self._recording = self._services = self._store = self._license_store = None
            self._provider_configurator = self._mcp_configurator = None
        if recording is not None:
            recording.close(timeout)
        if store is not None:
            store.close()

    def _open(self, name: str, make: Callable[[], _Part]) -> _Part:
        part = getattr(self, name)
        if part is None:
            with self._opening:
                part = getattr(self, name)
                if part is None:
                    part = make()
                    setattr(self, name, part)
        return cast("_Part", part)

    # What the services need (redis-py, marshmallow's schemas, cryptography) is loaded with their first use: a host with
    # a bridge of its own, or one that records nothing, never does.

    def _open_store(self) -> Store:
        from flask_aibridge.services.opening import open_store

        return open_store(self.settings, self.instance_path)

    def _open_license_store(self) -> LicenseStore:
        from flask_aibridge.license.store import MemoryLicenseStore
        from flask_aibridge.services.memory import MemoryStore

        store = self.store()
        if isinstance(store, MemoryStore):
            return MemoryLicenseStore()
        from flask_aibridge.license.redis_license_store import RedisLicenseStore
        from flask_aibridge.services.redis.store import RedisStore

        assert isinstance(store, RedisStore)
        return RedisLicenseStore(store.connection, self.settings.redis_prefix)

    def _may_have_licenses(self) -> bool:
        # No embedded server is started only to find that nothing is installed in it.
        return self.settings.redis_url is not None or Path(self.instance_path, EMBEDDED_FOLDER).exists()

    def _count_users(self) -> int:
        from flask_aibridge.license.usage import active_users

        return active_users(self.store(), time.time())

    def _make_services(self) -> HostServices:
        from flask_aibridge.services.authorizer import HostAuthorizer
        from flask_aibridge.services.hosting import HostServices

        callbacks = self.callbacks
        authorizer = callbacks.authorizer or HostAuthorizer(
            self.settings.api_keys, self.store, lambda: callbacks.key_loader
        )
        return HostServices(
            self.store,
            authorizer,
            self.mcp_configurator(),
            self.provider_configurator(),
            rate_limit=self.settings.rate_limit,
            observer=callbacks.observer,
        )

    def _make_provider_configurator(self) -> ConfiguredProviders | StoredProviders:
        from flask_aibridge.services.configuration.providers import ConfiguredProviders, StoredProviders

        sealer = self._sealer()
        if sealer is None:
            return ConfiguredProviders(self.settings.providers)
        return StoredProviders(self.store, sealer, self.settings.providers)

    def _make_mcp_configurator(self) -> HostMCPConfigurator:
        from flask_aibridge.services.configuration.mcp import HostMCPConfigurator
        from flask_aibridge.services.configuration.mcp_servers import mcp_servers_from

        servers = mcp_servers_from(self.settings.mcp_servers)
        return HostMCPConfigurator(servers, self.store, self._sealer(), self._mcp_token_loader)

    def _mcp_token_loader(self) -> TokenLoader | None:
        loader = self.callbacks.mcp_token_loader
        if loader is None:
            return None

        def in_app_context(user: str, server_id: str) -> str | None:
            # The configurator calls it in threads of its own.
            with self._app_context():
                return loader(user, server_id)

        return in_app_context

    def _sealer(self) -> Sealer | None:
        from flask_aibridge.services.configuration.sealing import Sealer

        return Sealer(self.settings.secret_keys) if self.settings.secret_keys else None

    def _make_recording(self) -> Recording:
        # First: a missing store is said here and not with each record, and exit handlers run last in, first out: the
        # flush of the records, registered by the import below, has to come before the embedded server is let go.
        self.store()
        from flask_aibridge.services.recording.recorder import Recording
        from flask_aibridge.services.spool.spool import Spool

        settings = self.settings
        mode: Literal["required", "best-effort"] = (
            "required" if settings.recording == "required" else "best-effort"
        )
        in_memory = settings.redis_url is not None and settings.redis_url.startswith("memory:")
        folder = Path(self.instance_path, SPOOL_FOLDER)
        spool = None if in_memory else Spool(folder, max_bytes=settings.spool_bytes)
        return Recording(
            self.services(),
            spool=spool,
            mode=mode,
            record_content=settings.record_content,
            rate_limit=settings.rate_limit,
        )


_states: WeakSet[AppState] = WeakSet()


def app_states() -> list[AppState]:
    """That of each app of this process."""
    return list(_states)


def _after_fork_in_child() -> None:
    for state in list(_states):
        state._reset_locks()
        state.draining = False


os.register_at_fork(after_in_child=_after_fork_in_child)
