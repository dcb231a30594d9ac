"""The services by RPC: a client that satisfies the protocols, a server that is a WSGI app, over HTTP or in process."""

from __future__ import annotations

from flask_aibridge.services.rpc.client import Client, create_in_memory_services
from flask_aibridge.services.rpc.server import Server

__all__ = ["Client", "Server", "create_in_memory_services"]
