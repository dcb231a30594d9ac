"""The connection to Redis: made at the first use, in each process anew; quick to answer, also that it cannot."""

from __future__ import annotations

import logging
import os
import random
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from time import monotonic, sleep
from typing import Any, Final

import redis

from flask_aibridge.errors import AIBridgeError, ServicesUnavailable
from flask_aibridge.services.redis.address import RedisAddress, parse_redis_url
from flask_aibridge.services.redis.breaker import PROBE_SECONDS, Breaker, Turn
from flask_aibridge.services.redis.faults import AWAY, DROPPED, TIMED_OUT, why_away, why_unable
from flask_aibridge.services.redis.scripts import Argument, Call, Command, Script
from flask_aibridge.services.redis.wires import (
    BACKOFF_BASE,
    BACKOFF_CAP,
    CONNECTIONS,
    CannotConnect,
    Wire,
    open_wire,
)

_jitter = random.Random()  # noqa: S311 - nothing secret  # nosec B311
"""Of its own: a host that seeds ``random`` is not to be disturbed."""

_log = logging.getLogger(__name__)

RESTART_SECONDS: Final = 5.0
"""How often a server that is gone is started again: one that does not stay up must not keep the host busy."""

POOL_WAIT_SECONDS: Final = 0.1
"""How long a call waits for one of the connections; where all are taken for longer, Redis is too slow to help."""

TOO_OLD_SECONDS: Final = 60.0
"""After how long a server that was too old may be another one."""

OLDEST: Final = {"Redis": (6, 2), "Valkey": (7, 2)}
"""The first versions with what the scripts use: ``ZADD … GT`` and ``XTRIM … MINID``."""


class RedisConnection:
    """Redis or Valkey, at one URL.

    Safe from any thread and after a fork. Calls raise ``ServicesUnavailable`` where Redis is away: at once where that
    is known, else within a second. What Redis refuses for another reason is a defect of the caller's and raised as
    redis-py's own exception.

    :param url: one of the forms of ``redis_address``.
    :param restart: starts a server that is gone. Called in a thread of its own when no connection can be made, at most
        every ``RESTART_SECONDS``; calls go on failing until the server is there.
    :raises ConfigError: for a URL of no known form.
    """

    def __init__(self, url: str, *, restart: Callable[[], object] | None = None) -> None:
        self.address = parse_redis_url(url)
        self._restart = restart
        self._processes: dict[int, _Process] = {}

    def __repr__(self) -> str:
        return f"<RedisConnection {self.address}>"

    @property
    def healthy_since(self) -> float | None:
        """Since when, by ``time.monotonic``, every call of this process has been answered; null where the last was not
        or there was none."""
        return self._here().breaker.healthy_since

    def execute(self, *command: Argument) -> Any:
        """The reply of one command, as redis-py gives it; text, not bytes. A command must be harmless to repeat."""
        return _checked(self._here().exchange([command]), self.address)[0]

    def pipeline(self, commands: Sequence[Command]) -> list[Any]:
        """The replies of commands that are sent together, in one round trip but in a cluster."""
        return _checked(self._here().exchange(commands), self.address) if commands else []

    def run(self, script: Script, keys: Sequence[str], args: Sequence[Argument] = ()) -> Any:
        """The reply of a script, which must be harmless to repeat."""
        process, call = self._here(), Call(script, keys, args)
        reply = process.exchange([call.by_digest()])[0]
        if _is_unknown(reply):
            reply = process.exchange([call.by_text()])[0]
        return _checked([reply], self.address)[0] if isinstance(reply, Exception) else reply

    def run_many(self, calls: Sequence[tuple[Script, Sequence[str], Sequence[Argument]] | Call]) -> list[Any]:
        """The replies of scripts that are sent together, in one round trip but in a cluster.

        Where one fails, the others may have run.
        """
        if not calls:
            return []
        process = self._here()
        all_calls = [Call(*call) for call in calls]
        replies = process.exchange([call.by_digest() for call in all_calls])
        unknown = [index for index, reply in enumerate(replies) if _is_unknown(reply)]
        if unknown:
            again = process.exchange([all_calls[index].by_text() for index in unknown])
            for index, reply in zip(unknown, again, strict=True):
                replies[index] = reply
        return _checked(replies, self.address)

    def wait_for_message(self, channel: str, seconds: float) -> bool:
        """Wait for what is published on a channel; true where something was, false after so many seconds at most.

        For one thread, and one channel, of a process. Messages may be lost: they are hints.

        :raises ServicesUnavailable: at once, where nothing can be listened to now.
        """
        return self._here().wait_for_message(channel, seconds)

    def close(self) -> None:
        """Close every connection of this process. The next call makes new ones."""
        process = self._processes.pop(os.getpid(), None)
        if process is not None:
            process.close()

    def _here(self) -> _Process:
        pid = os.getpid()
        process = self._processes.get(pid)
        if process is None:
            # A child drops what it has from its parent; that closes its copies of the sockets and nothing else.
            process = self._processes.setdefault(pid, _Process(self.address, self._restart))
            for other in set(self._processes) - {pid}:
                self._processes.pop(other, None)
        return process


class _Process:
    """What one process has of a connection: locks and sockets do not survive a fork."""

    def __init__(self, address: RedisAddress, restart: Callable[[], object] | None) -> None:
        self._address = address
        self._restart = restart
        self._restart_at = 0.0
        self._is_too_old = False
        self._lock = threading.Lock()
        self._free: SimpleQueue[None] = SimpleQueue()  # a semaphore at a tenth of the cost
        for _ in range(CONNECTIONS):
            self._free.put(None)
        self._wire: Wire | None = None
        self.breaker = Breaker()
        self._subscription: Any = None
        self._listening = threading.Lock()

    def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """The reply of each command."""
        turn = self.breaker.enter()
        if turn == "refused":
            raise self._away("it was away a moment ago", not_asked=True)
        try:
            self._free.get(timeout=POOL_WAIT_SECONDS)
        except Empty:
            raise self._away(f"all {CONNECTIONS} connections are waiting for it", not_asked=True) from None
        try:
            replies = self._try(commands, turn)
        except (*AWAY, CannotConnect) as error:
            raise self._failed(error) from None
        finally:
            self._free.put(None)
        if self.breaker.succeeded():
            _log.info("Redis at %s is back.", self._address)
        return replies

    def _try(self, commands: Sequence[Command], turn: Turn) -> list[Any]:
        wire = self._wire or self._open(turn)
        try:
            return wire.exchange(commands)
        except redis.exceptions.BusyLoadingError:
            raise
        except DROPPED as error:
            # A server that does not answer in time would take as long again to say no more.
            if turn == "probe" or wire.retries_itself or isinstance(error, TIMED_OUT):
                raise
            self._report(error)
        sleep(_jitter.uniform(BACKOFF_BASE, BACKOFF_CAP))
        try:
            return wire.exchange(commands)
        except CannotConnect as error:
            error.asked = True
            raise

    def _open(self, turn: Turn) -> Wire:
        with self._lock:
            if self._wire is None:
                # Whoever comes to the lock behind one who failed does not try as well; a probe is there to try.
                if turn != "probe" and self.breaker.is_open:
                    raise self._away("it was away a moment ago", not_asked=True)
                try:
                    self._wire = self._opened()
                except (*AWAY, CannotConnect) as error:
                    self._report(error)  # here, before whoever waits for the lock looks
                    raise CannotConnect from _cause(error)
            return self._wire

    def _opened(self) -> Wire:
        wire = open_wire(self._address)
        try:
            self._look_at(wire)
        except BaseException:
            wire.close()
            raise
        return wire

    def _look_at(self, wire: Wire) -> None:
        """Refuse a server that is too old, and warn of one that throws data away."""
        reply = wire.exchange([("INFO",)])[0]
        if not isinstance(reply, dict):
            # An account may lack the permission. What matters shows soon enough.
            return
        facts = next(iter(reply.values())) if isinstance(next(iter(reply.values()), None), dict) else reply
        self._check_version(facts)
        policy = facts.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            _log.warning(
                "Redis at %s has maxmemory-policy %s: when its memory is full it deletes records. Set it to "
                "noeviction; requests are then recorded in the spool until there is room.",
                self._address,
                policy,
            )

    def _check_version(self, facts: dict[str, Any]) -> None:
        name = "Valkey" if "valkey_version" in facts else "Redis"
        text = str(facts.get(f"{name.lower()}_version", ""))
        version = tuple(int(part) for part in text.split(".")[:2] if part.isdigit())
        if not version or version >= OLDEST[name]:
            return
        oldest = " or ".join(f"{each} {major}.{minor}" for each, (major, minor) in OLDEST.items())
        message = (
            f"The server at {self._address} is {name} {text}, which is too old: it must be at least {oldest}."
        )
        if not self._is_too_old:
            self._is_too_old = True
            _log.error("%s", message)
        raise ServicesUnavailable(message, TOO_OLD_SECONDS, not_asked=True)

    def _failed(self, error: Exception) -> ServicesUnavailable:
        self._report(error)
        not_asked = isinstance(error, CannotConnect) and not error.asked
        return self._away(why_away(_cause(error)), not_asked=not_asked)

    def _report(self, error: Exception) -> None:
        is_gone = isinstance(error, CannotConnect)
        if self.breaker.failed(at_once=isinstance(error, (CannotConnect, *TIMED_OUT))):
            _log.warning("Redis at %s is away: %s.", self._address, why_away(_cause(error)))
        if is_gone and self._restart is not None and monotonic() >= self._restart_at:
            self._restart_at = monotonic() + RESTART_SECONDS
            threading.Thread(target=self._start_again, args=(self._restart,), daemon=True).start()

    def _start_again(self, restart: Callable[[], object]) -> None:
        try:
            restart()
        except AIBridgeError as error:
            _log.warning("Redis at %s is not started again: %s", self._address, error)

    def _away(self, why: str, *, not_asked: bool) -> ServicesUnavailable:
        return ServicesUnavailable(f"Redis at {self._address} is away: {why}.", PROBE_SECONDS, not_asked)

    def wait_for_message(self, channel: str, seconds: float) -> bool:
        """As that of the connection."""
        if self._wire is None or self.breaker.is_open:
            raise self._away("it has not been reached yet, or was away a moment ago", not_asked=True)
        if not self._listening.acquire(blocking=False):
            raise self._away("another thread listens already", not_asked=True)
        try:
            if self._subscription is None:
                self._subscription = self._wire.listen(channel)
            return self._subscription.get_message(timeout=seconds) is not None
        except (redis.RedisError, OSError) as error:
            # A permission that is missing as well: whoever waits goes by the clock then.
            self._stop_listening()
            raise self._away(type(error).__name__, not_asked=True) from None
        finally:
            self._listening.release()

    def _stop_listening(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            with suppress(redis.RedisError, OSError):
                subscription.close()

    def close(self) -> None:
        self._stop_listening()
        with self._lock:
            if self._wire is not None:
                self._wire.close()
                self._wire = None


def _cause(error: Exception) -> Exception:
    return error.__cause__ if isinstance(error.__cause__, Exception) else error


def _is_unknown(reply: Any) -> bool:
    return isinstance(reply, redis.exceptions.NoScriptError)


def _checked(replies: list[Any], address: RedisAddress) -> list[Any]:
    """The replies, unless one is an error."""
    for reply in replies:
        if isinstance(reply, Exception):
            why = why_unable(reply)
            if why is None:
                raise reply
            raise ServicesUnavailable(f"Redis at {address} does not do what it is asked: {why}.")
    return replies
