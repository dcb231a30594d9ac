"""What you need to test an application that talks to LLM providers, without a provider.

>>> from flask_aibridge.testing import StandInProvider, serve_stand_in
>>> with serve_stand_in(StandInProvider(answer=["Hel", "lo"])) as served:
...     served.base_url, served.stand_in.requests                          # doctest: +SKIP
"""

from __future__ import annotations

from flask_aibridge.testing.server import Served, serve_stand_in
from flask_aibridge.testing.stand_in import (
    AnswerWith,
    DropAfter,
    ErrorAfter,
    Failure,
    Received,
    StandInProvider,
)

__all__ = [
    "AnswerWith",
    "DropAfter",
    "ErrorAfter",
    "Failure",
    "Received",
    "Served",
    "StandInProvider",
    "serve_stand_in",
]
