"""``AIBridge``: the Flask face. It reads the config, wires the parts and holds nothing of any app itself.

What belongs to an app is an :class:`AppState` in ``app.extensions["aibridge"]``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar
from weakref import WeakSet

from flask import Flask, current_app, has_app_context

from flask_aibridge.api.management import Management
from flask_aibridge.app_state import AppState, Callbacks, Mounted
from flask_aibridge.config import BRIDGE, BUILT_IN, read_settings
from flask_aibridge.license import faces
from flask_aibridge.license.refusal_forms import provider_types
from flask_aibridge.public_door import make_public_door
from flask_aibridge.wiring import bridge_of, check_parts, license_token, transport_factory_of

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from flask_aibridge.api.access import Loader
    from flask_aibridge.license.holder import LicenseHolder
    from flask_aibridge.services.authorizer import KeyLoader
    from flask_aibridge.services.configuration.token_fetching import TokenLoader
    from flask_aibridge.services.interfaces import Authorizer, CallObserver
    from flask_aibridge.transport import Source, TransportFactory, WSGIPoolManager

__all__ = ["AIBridge", "AppState", "Mounted"]

EXTENSION: Final = "aibridge"

P = ParamSpec("P")

_KeyLoader = TypeVar("_KeyLoader", bound="KeyLoader")
_TokenLoader = TypeVar("_TokenLoader", bound="TokenLoader")
_Loader = TypeVar("_Loader", bound="Loader")


class AIBridge:
    """One bridge to LLM providers behind two doors: an HTTP route, and a transport inside the process.

    :param app: initialise this app at once; otherwise call :meth:`init_app`.
    :param wsgi_app: the bridge to mount, any WSGI app; ``None`` for the built-in one. The config's
        ``AIBRIDGE_BRIDGE`` wins over it.

    One instance may serve several apps. The members act on the current app or, outside any application
    context, on the one app that the instance was initialised with; where that is not clear they raise
    ``RuntimeError``.
    """

    def __init__(self, app: Flask | None = None, wsgi_app: WSGIApplication | None = None) -> None:
        _require_wsgi_app(wsgi_app, none_allowed=True)
        self._default_wsgi_app = wsgi_app
        self._apps: WeakSet[Flask] = WeakSet()
        self._callbacks = Callbacks()
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask, wsgi_app: WSGIApplication | None = None) -> None:
        """Read the config of an app, open its public door and mount its bridge. Nothing connects or starts.

        The config is read here and only here; later changes to it have no effect.

        :param wsgi_app: as for the constructor, and in place of what was given there.
        :raises ConfigError: for a config key whose value cannot work.
        :raises RuntimeError: for an app that was initialised before.
        :raises TypeError: for an app that is no Flask app, or a bridge that cannot be called.
        """
        _require_wsgi_app(wsgi_app, none_allowed=True)
        if not isinstance(app, Flask):
            raise TypeError(
                f"AIBridge needs the Flask app first, and a bridge after it; got {app!r} as the app."
            )
        if EXTENSION in app.extensions:
            raise RuntimeError(
                "An 'AIBridge' instance has already been registered on this Flask app. "
                "Import and use that instance instead of creating a second one, and call 'init_app' once."
            )
        default = self._default_wsgi_app if wsgi_app is None else wsgi_app
        settings = read_settings(app.config, os.environ, wsgi_app=default)
        check_parts(settings)
        state = AppState(self, settings, license_token(settings, app), self._callbacks, app)
        bridge = bridge_of(settings, state.recording)
        if bridge is not None:
            state.mount(bridge, transport_factory_of(app, settings, bridge))
        app.register_blueprint(
            make_public_door(
                settings.url_prefix,
                state.gate,
                lambda: state.mounted.wsgi_app,
                provider_type=provider_types(settings.providers).get,
                refusal_status=settings.license_status,
                draining=lambda: state.draining,
            )
        )
        management = Management(
            access=state.access,
            store=state.store,
            services=state.services,
            provider_configurator=state.provider_configurator,
            mcp_configurator=state.mcp_configurator,
            license_holder=state.licenses,
            readiness=state.readiness,
        )
        # Here, because its schemas bring marshmallow, which reading a licence or carrying a request does without.
        from flask_aibridge.api.frame import make_management_blueprint
        from flask_aibridge.api.licenses import make_license_blueprint

        app.register_blueprint(make_management_blueprint(management, settings.url_prefix))
        app.register_blueprint(make_license_blueprint(management))
        app.extensions[EXTENSION] = state
        self._apps.add(app)

    def register(self, wsgi_app: WSGIApplication) -> None:
        """Mount a bridge in place of what is mounted; :attr:`wsgi_app` and :attr:`transport_factory` change
        together.

        :raises TypeError: for ``None``, or anything else that cannot be called.
        """
        _require_wsgi_app(wsgi_app)
        app, state = self._find()
        state.mount(wsgi_app, transport_factory_of(app, state.settings, wsgi_app))

    @property
    def wsgi_app(self) -> WSGIApplication | None:
        """The mounted bridge, or ``None``; the public route dispatches to it."""
        return self._find()[1].mounted.wsgi_app

    @property
    def transport_factory(self) -> TransportFactory | None:
        """The ``TransportFactory`` of the mounted bridge, or ``None``. Assign one of your own, or ``None``.

        :raises TypeError: when assigned something without a method ``transport_for``.
        """
        return self._find()[1].mounted.transport_factory

    @transport_factory.setter
    def transport_factory(self, factory: TransportFactory | None) -> None:
        if factory is not None and not callable(getattr(factory, "transport_for", None)):
            raise TypeError(
                f"transport_factory must have a method transport_for(provider, source), or be None; "
                f"{type(factory).__name__} has none."
            )
        self._find()[1].replace_transport_factory(factory)

    def transport_for(
        self, provider: str, source: Source | str, *, key_id: str | None = None
    ) -> WSGIPoolManager:
        """A ``urllib3.PoolManager`` whose every request goes to the mounted bridge, in process and without a
        socket.

        :param provider: the name of a provider of the bridge, such as ``"anthropic"``.
        :param source: the call site, for logs and records.
        :param key_id: the API key on whose behalf the call is made.
        :raises RuntimeError: where no bridge is mounted.
        :raises ValueError: for a provider that is not a single path segment.
        """
        factory = self.transport_factory
        if factory is None:
            raise RuntimeError(
                "No bridge is mounted, so there is nothing to send a request to. Mount one with "
                f"'AIBridge.register(wsgi_app)', or set {BRIDGE} to {BUILT_IN!r} before 'init_app'."
            )
        return factory.transport_for(provider, source, key_id=key_id)

    def key_loader(self, callback: _KeyLoader) -> _KeyLoader:
        """A decorator: ``callback(key)`` says whose key it is, where the host keeps keys of its own.

        It returns the user's name, an ``Authorization``, or ``None`` for a key that it does not know, which is then
        looked for in the store. It is asked for each request from outside, so it should be quick.
        """
        self._callbacks.key_loader = callback
        return callback

    def mcp_token_loader(self, callback: _TokenLoader) -> _TokenLoader:
        """A decorator: ``callback(user, server_id)`` returns the user's access token for an MCP server, or ``None``."""
        self._callbacks.mcp_token_loader = callback
        return callback

    def admin_loader(self, callback: _Loader) -> _Loader:
        """A decorator: ``callback()`` returns the name of the administrator who makes ``flask.request``, or
        ``None``."""
        self._callbacks.admin_loader = callback
        for app in self._apps:
            app.extensions[EXTENSION].access.admin_loader = callback
        return callback

    def user_loader(self, callback: _Loader) -> _Loader:
        """A decorator: ``callback()`` returns the name of the user who makes ``flask.request``, or ``None``.

        Who it names sees their own records on the management routes.
        """
        self._callbacks.user_loader = callback
        for app in self._apps:
            app.extensions[EXTENSION].access.user_loader = callback
        return callback

    @property
    def licenses(self) -> LicenseHolder:
        """What is licensed, and what may be installed or removed."""
        return self._find()[1].licenses

    def requires(self, feature: str) -> Callable[[Callable[P, Any]], Callable[P, Any]]:
        """A decorator for views of the host's own: they are called only while the feature is licensed.

        :param feature: its name in the licences, one of the host's own as well.
        :raises ValueError: for a feature without a name.
        """
        decorate = faces.requires(
            feature,
            lambda: self._find()[1].licenses,
            status=lambda: self._find()[1].settings.license_status,
        )
        self._callbacks.features.add(feature)
        for app in self._apps:
            app.extensions[EXTENSION].licenses.declare(feature)
        return decorate

    def drain(self, timeout: float) -> bool:
        """Refuse new requests from now on, for a process that is about to end: see :meth:`AppState.drain`."""
        return self._find()[1].drain(timeout)

    @property
    def authorizer(self) -> Authorizer | None:
        """An Authorizer of the host's, in place of all others; ``None`` unless one was assigned. Assign it before the
        first request."""
        return self._callbacks.authorizer

    @authorizer.setter
    def authorizer(self, authorizer: Authorizer | None) -> None:
        if authorizer is not None and not callable(getattr(authorizer, "authorize", None)):
            raise TypeError(f"An authorizer has a method authorize(credential); {authorizer!r} has none.")
        self._callbacks.authorizer = authorizer

    @property
    def observer(self) -> CallObserver | None:
        """Sees every call of the services, for tracing; ``None`` unless one was assigned. Assign it before the first
        request."""
        return self._callbacks.observer

    @observer.setter
    def observer(self, observer: CallObserver | None) -> None:
        self._callbacks.observer = observer

    def _find(self) -> tuple[Flask, AppState]:
        """The app that a member acts on, and its state."""
        app = current_app._get_current_object() if has_app_context() else self._only_app()  # type: ignore[attr-defined]
        state = app.extensions.get(EXTENSION)
        if not isinstance(state, AppState) or state.extension is not self:
            raise RuntimeError(
                "The current Flask app is not registered with this 'AIBridge' instance. Did you forget to "
                "call 'init_app', or did you create multiple 'AIBridge' instances?"
            )
        return app, state

    def _only_app(self) -> Flask:
        apps = list(self._apps)
        if len(apps) == 1:
            return apps[0]
        if apps:
            raise RuntimeError(
                f"This 'AIBridge' instance serves {len(apps)} Flask apps and no application context is "
                "active, so it is not clear which one is meant. Wrap the call in 'with app.app_context():'."
            )
        raise RuntimeError(
            "This 'AIBridge' instance is not registered with any Flask app. Did you forget to call "
            "'init_app', did you create multiple 'AIBridge' instances, or is the app that it was registered "
            "with already gone?"
        )


def _require_wsgi_app(wsgi_app: object, *, none_allowed: bool = False) -> None:
    if wsgi_app is None and none_allowed:
        return
    if not callable(wsgi_app):
        raise TypeError(f"A bridge is a WSGI app, a callable (environ, start_response); got {wsgi_app!r}.")
