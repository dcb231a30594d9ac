"""What an app is put together from, by its settings: its licence, its bridge, the transport to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flask import Flask
from werkzeug.utils import import_string

from flask_aibridge.app_context import InAppContext
from flask_aibridge.config import BRIDGE, BUILT_IN, INJECT_MCP_TOOLS, RECORDING, Settings
from flask_aibridge.errors import ConfigError
from flask_aibridge.license.gate import read_license_file
from flask_aibridge.transport import TransportFactory

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from flask_aibridge.bridge.options import BridgeOptions
    from flask_aibridge.services.recording.recorder import Recording

__all__ = ["bridge_of", "check_parts", "license_token", "transport_factory_of"]


def check_parts(settings: Settings) -> None:
    """Have the parts say what is wrong with values whose insides only they know: now, and not to each request.

    :raises ConfigError: for such a value.
    """
    if settings.redis_url is not None and not settings.redis_url.startswith("memory:"):
        from flask_aibridge.services.redis.address import parse_redis_url

        parse_redis_url(settings.redis_url)
    if settings.mcp_servers:
        from flask_aibridge.services.configuration.mcp_servers import mcp_servers_from

        mcp_servers_from(settings.mcp_servers)


def license_token(settings: Settings, app: Flask) -> str | None:
    """The licence of the config: given there, or in the file that it names, below the app's root."""
    if settings.license is not None or settings.license_file is None:
        return settings.license
    return read_license_file(Path(app.root_path, settings.license_file))


def bridge_of(settings: Settings, recording: Callable[[], Recording]) -> WSGIApplication | None:
    """What is to be mounted; ``recording`` gives the recorder of the built-in bridge, at its first request.

    :raises ConfigError: for a name that cannot be imported, or is no WSGI app's.
    """
    chosen: Any = settings.bridge
    if chosen == BUILT_IN:
        # Here, because a host with a bridge of its own has no use for the built-in one.
        from flask_aibridge.bridge import Bridge

        if settings.recording == "off":
            if settings.inject_mcp_tools:
                raise ConfigError(
                    f"{INJECT_MCP_TOOLS} needs the store, which keeps what was called on whose behalf, and {RECORDING} "
                    "is 'off': set one of the two otherwise."
                )
            return Bridge(settings.providers, api_keys=settings.api_keys, options=_options(settings))
        return Bridge(recording=recording, options=_options(settings))
    return _import(chosen) if isinstance(chosen, str) else chosen


def transport_factory_of(app: Flask, settings: Settings, bridge: WSGIApplication) -> TransportFactory:
    """The in-process door to a bridge, which runs in the app's context."""
    return TransportFactory(InAppContext(app, bridge), script_name=settings.url_prefix)


def _options(settings: Settings) -> BridgeOptions:
    from flask_aibridge.bridge.options import BridgeOptions

    return BridgeOptions(
        on_disconnect=settings.on_disconnect,
        allow_byok=settings.allow_byok,
        actor_headers=settings.actor_headers,
        circuit_breaker=settings.circuit_breaker,
        max_public=settings.max_concurrency,
        max_in_process=settings.max_in_process,
        rate_limit=settings.rate_limit,
        max_uploads=settings.max_uploads,
        inject_mcp_tools=settings.inject_mcp_tools,
    )


def _import(name: str) -> WSGIApplication:
    try:
        found: Any = import_string(name)
    except ImportError as error:
        # Werkzeug's own message is a page of guesses; what it wraps says what went wrong.
        reason = getattr(error, "exception", error)
        raise ConfigError(f"{BRIDGE} is {name!r}, which cannot be imported: {reason}.") from error
    if isinstance(found, type) or not callable(found):
        raise ConfigError(
            f"{BRIDGE} is {name!r}, which is not a WSGI app but {found!r}; name a callable instance."
        )
    return found  # type: ignore[no-any-return]
