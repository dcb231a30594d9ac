"""In which shard an interception is recorded: what one key, one session or one process asks for lies together.

Together with its key, an interception is admitted in one round trip; and within a shard, the turns of an agent's loop
are found to be one thread.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from typing import Any

from flask_aibridge.bridge.caller import key_id_of
from flask_aibridge.bridge.client import session_of
from flask_aibridge.services.interfaces import Credential
from flask_aibridge.services.records import SHARDS, shard_of_key

__all__ = ["shard_for"]


def shard_for(environ: Mapping[str, Any], credential: Credential | None) -> int:
    """The shard of the key. Where that has no id, or there is none: of the session that a header names, or else the one
    of this process, since an agent that names no session mostly makes all of its calls in one. The processes of an
    application spread over the shards."""
    key_id = key_id_of(credential) or session_of(environ, {})
    return _of_this_process if key_id is None else shard_of_key(key_id)


_of_this_process = secrets.randbelow(SHARDS)


def _after_fork_in_child() -> None:
    global _of_this_process
    _of_this_process = secrets.randbelow(SHARDS)


os.register_at_fork(after_in_child=_after_fork_in_child)
