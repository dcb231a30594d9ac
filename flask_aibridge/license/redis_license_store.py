"""Installed licences on Redis or Valkey, the same for every process of every host.

All names begin with the prefix (``AIBRIDGE_REDIS_PREFIX``) and carry one hash tag, so that they sit in one slot of a
cluster and change together:

========================= ====== ===============================================================================
name                      type   what
========================= ====== ===============================================================================
``{license}:installed``   hash   id → ``{"token", "uploaded_at"}`` as JSON (seconds since the epoch)
``{license}:version``     string counted up with each change; see ``_COUNT``
``{license}:deployment``  string the UUID of this installation, made once
``{license}:time``        string the latest time that any process has told, in seconds since the epoch
``{license}:turn``        string there while nobody may refresh again, with a time to live
========================= ====== ===============================================================================

Each change is also published, as its version, on the channel ``{license}:changes``: a hint to look at once, since
messages can be lost. What counts is the version, which every process asks for.
"""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any, Final

from flask_aibridge.license.licenses import MAX_TIME
from flask_aibridge.license.store import MAX_INSTALLED, TIME_TOLERANCE, StoredLicense, in_order

if TYPE_CHECKING:
    from flask_aibridge.services.redis.connection import RedisConnection

__all__ = ["RedisLicenseStore"]

# A version is never given twice, also where the server has lost its data (a restart without a disk, FLUSHALL): it is at
# least the server's time, in microseconds. Whether the message may be sent (from Redis 7 on, an account has no channels
# unless it is given some) is not asked.
_COUNT: Final = """
local function count(name, channel)
  local now = redis.call('TIME')
  local at_least = now[1] * 1000000 + now[2]
  local version = math.max((tonumber(redis.call('GET', name)) or 0) + 1, at_least)
  version = string.format('%.0f', version)
  redis.call('SET', name, version)
  redis.pcall('PUBLISH', channel, version)
  return version
end
"""

_INSTALL: Final = (
    _COUNT
    + """
if redis.call('HEXISTS', KEYS[2], ARGV[2]) == 0 and redis.call('HLEN', KEYS[2]) >= tonumber(ARGV[4]) then
  return false
end
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
return count(KEYS[1], ARGV[1])
"""
)

_REMOVE: Final = (
    _COUNT
    + """
if redis.call('HDEL', KEYS[2], ARGV[2]) == 0 then
  return false
end
return count(KEYS[1], ARGV[1])
"""
)

_BUMP: Final = f"{_COUNT}\nreturn count(KEYS[1], ARGV[1])"

_DEPLOYMENT: Final = """
redis.call('SET', KEYS[1], ARGV[1], 'NX')
return redis.call('GET', KEYS[1])
"""

# Rounded up, so that the time itself is not above what is kept of it.
_HIGHEST: Final = """
local told = math.min(tonumber(ARGV[1]), redis.call('TIME')[1] + tonumber(ARGV[2]))
local highest = tonumber(redis.call('GET', KEYS[1]))
if highest == nil or told > highest then
  highest = math.ceil(told)
  redis.call('SET', KEYS[1], string.format('%.0f', highest))
end
return string.format('%.0f', highest)
"""

_TURN: Final = """
if redis.call('SET', KEYS[1], '1', 'NX', 'PX', ARGV[1]) then
  return 0
end
return math.max(redis.call('PTTL', KEYS[1]), 1)
"""


class RedisLicenseStore:
    """Satisfies ``LicenseStore``.

    :param connection: the way there, which others may use as well; it is not closed here.
    :param prefix: what every name begins with.
    """

    def __init__(self, connection: RedisConnection, prefix: str) -> None:
        self._connection = connection
        name = f"{prefix}:{{license}}:"
        self._installed = f"{name}installed"
        self._version = f"{name}version"
        self._deployment = f"{name}deployment"
        self._time = f"{name}time"
        self._turn = f"{name}turn"
        self._changes = f"{name}changes"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._connection.address}>"

    def version(self) -> int:
        """As ``LicenseStore.version``."""
        return int(self._connection.execute("GET", self._version) or 0)

    def installed(self) -> tuple[StoredLicense, ...]:
        """As ``LicenseStore.installed``."""
        rows = self._connection.execute("HGETALL", self._installed)
        return in_order(_stored(license_id, text) for license_id, text in rows.items())

    def install(self, license_id: str, token: str, uploaded_at: float) -> int | None:
        """As ``LicenseStore.install``."""
        row = json.dumps({"token": token, "uploaded_at": uploaded_at})
        return self._change(_INSTALL, license_id, row, MAX_INSTALLED)

    def remove(self, license_id: str) -> int | None:
        """As ``LicenseStore.remove``."""
        return self._change(_REMOVE, license_id)

    def bump(self) -> int:
        """As ``LicenseStore.bump``."""
        return int(self._connection.execute("EVAL", _BUMP, 1, self._version, self._changes))

    def take_turn(self, seconds: float) -> float:
        """As ``LicenseStore.take_turn``."""
        return int(self._connection.execute("EVAL", _TURN, 1, self._turn, round(seconds * 1000))) / 1000

    def deployment_id(self) -> str:
        """As ``LicenseStore.deployment_id``."""
        return str(self._connection.execute("EVAL", _DEPLOYMENT, 1, self._deployment, str(uuid.uuid4())))

    def highest_time(self, now: float) -> float:
        """As ``LicenseStore.highest_time``; to the second."""
        return float(self._connection.execute("EVAL", _HIGHEST, 1, self._time, now, TIME_TOLERANCE))

    def wait_for_change(self, seconds: float) -> bool:
        """As ``Announcing.wait_for_change``."""
        return self._connection.wait_for_message(self._changes, seconds)

    def _change(self, script: str, *args: str | int) -> int | None:
        # By their text, not their digests: licences change a few times a year.
        reply = self._connection.execute(
            "EVAL", script, 2, self._version, self._installed, self._changes, *args
        )
        return None if reply is None else int(reply)


def _stored(license_id: str, text: str) -> StoredLicense:
    """A row. One that is not as it was written here is a licence without a text: it is listed, refused and can be
    removed, and takes nothing from the others."""
    try:
        row: dict[str, Any] = json.loads(text)
        token, uploaded_at = row["token"], float(row["uploaded_at"])
    except (KeyError, OverflowError, RecursionError, TypeError, ValueError):
        return StoredLicense(license_id, "", 0.0)
    if not isinstance(token, str) or not 0 <= uploaded_at <= MAX_TIME:
        return StoredLicense(license_id, "", 0.0)
    return StoredLicense(license_id, token, uploaded_at)
