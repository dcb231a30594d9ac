"""What the bridge has seen: event records, the hook protocol, and one module per sink."""

from __future__ import annotations

from flask_aibridge.observability.hooks import Hook, InterceptionEnded, Outcome, TokenUsage
from flask_aibridge.observability.logging import LoggingHook

__all__ = ["Hook", "InterceptionEnded", "LoggingHook", "Outcome", "TokenUsage"]
