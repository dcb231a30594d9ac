"""An AI gateway that lives inside a Flask application: one bridge to LLM providers, behind two doors.

>>> from flask_aibridge import AIBridge
>>> aibridge = AIBridge(app)                                             # doctest: +SKIP
>>> anthropic = aibridge.transport_for("anthropic", Source.AGENTS)       # doctest: +SKIP

Importing the package starts nothing, reads no environment variable and opens no file.
"""

from __future__ import annotations

from flask_aibridge.extension import AIBridge
from flask_aibridge.transport import Source

__all__ = ["AIBridge", "Source", "__version__"]

__version__: str


def __getattr__(name: str) -> str:
    # Looked up when it is asked for: reading the metadata of the installed distribution takes a file and 20
    # ms.
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version

    found = version("Flask-AIBridge")
    globals()[name] = found
    return found
