"""The store in this process's memory, for tests."""

from __future__ import annotations

from flask_aibridge.services.memory.store import MemoryStore

__all__ = ["MemoryStore"]
