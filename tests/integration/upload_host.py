"""A bridge for gunicorn, with places for four uploads; two callers have keys."""

from __future__ import annotations

import os

from flask_aibridge.bridge import Bridge
from flask_aibridge.bridge.options import BridgeOptions
from flask_aibridge.config import ProviderSettings

app = Bridge(
    [ProviderSettings("anthropic", "anthropic", os.environ["UPLOAD_PROVIDER"], ("sk-host",))],
    api_keys={"alice": "aib_alice_secret", "bob": "aib_bob_secret"},
    options=BridgeOptions(max_uploads=4),
)
