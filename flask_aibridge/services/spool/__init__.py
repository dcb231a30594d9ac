"""Where records wait on disk while the services are away."""

from __future__ import annotations

from flask_aibridge.services.spool.spool import Spool

__all__ = ["Spool"]
