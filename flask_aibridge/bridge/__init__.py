"""The built-in bridge: an LLM gateway as a WSGI app, with no Flask in it."""

from __future__ import annotations

from flask_aibridge.bridge.app import Bridge

__all__ = ["Bridge"]
