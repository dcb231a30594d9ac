"""Changes of the configuration, told to the log and to whoever listens."""

from __future__ import annotations

import logging
from typing import Any, Final, Literal, TypeAlias

from blinker import Namespace
from flask import current_app

__all__ = ["Action", "Kind", "announce", "configuration_changed"]

Action: TypeAlias = Literal["created", "updated", "deleted", "rotated", "revoked", "installed", "removed"]
Kind: TypeAlias = Literal["api_key", "provider", "mcp_server", "mcp_token", "license"]

COMMAND_LINE: Final = "the command line"
"""Who made a change that came by ``flask aibridge …``: whoever has a shell on the host."""

configuration_changed = Namespace().signal("aibridge-configuration-changed")
"""Sent after each change, in the thread that made it. The sender is the Flask app; ``action``, ``kind``, ``name`` (the
id of a key or a licence, the name of a provider, …) and ``by`` (who made the change) are keywords."""

_log = logging.getLogger("flask_aibridge.configuration")


def announce(action: Action, kind: Kind, name: str, *, by: str) -> None:
    """Log a change, and send the signal. It has been made: a receiver that fails is logged and no more.

    :param name: no secret.
    """
    fields = {"action": action, "kind": kind, "object_name": name, "by": by}
    # Quoted, because names come from outside: a line break in one must not begin a line of the log.
    _log.info("%s %r was %s by %r.", kind, name, action, by, extra=fields)
    application: Any = current_app
    try:
        configuration_changed.send(
            application._get_current_object(), action=action, kind=kind, name=name, by=by
        )
    except Exception:
        _log.exception("A receiver of configuration_changed failed; the change stays.")
