"""What a bridge needs of its host: Recorder, Authorizer, MCPConfigurator, ProviderConfigurator.

``interfaces`` has the protocols and ``records`` what is recorded; ``hosting`` puts this host's own implementations
together, ``rpc`` reaches another's, ``recording`` is what a bridge holds of either. ``storage`` says what a store has
to do, ``memory`` and ``redis`` do it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flask_aibridge.services.rpc.client import create_in_memory_services as create_in_memory_services

__all__ = ["create_in_memory_services"]


def __getattr__(name: str) -> Any:
    # On demand: it brings the transport and the schemas, which the protocols do without.
    if name == "create_in_memory_services":
        from flask_aibridge.services.rpc.client import create_in_memory_services

        return create_in_memory_services
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
