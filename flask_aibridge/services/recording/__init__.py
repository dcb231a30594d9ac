"""The recorder that a bridge holds: it admits, batches, spools while the services are away, and replays."""

from __future__ import annotations

from flask_aibridge.services.recording.recorder import Recording, RecordingState

__all__ = ["Recording", "RecordingState"]
