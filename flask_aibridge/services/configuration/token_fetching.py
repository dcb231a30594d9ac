"""Access tokens from the host's own OAuth: a callback, asked for several servers at once, within a deadline."""

from __future__ import annotations

import contextvars
import logging
import re
import threading
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Final, TypeAlias

logger = logging.getLogger("flask_aibridge.services")

TokenLoader: TypeAlias = Callable[[str, str], str | None]
"""A callback of the host: the user's access token for an MCP server, by user and server id; null where there is
none."""

TOKEN_SECONDS: Final = 5.0
"""How long a batch may take: a callback may have to refresh tokens at as many authorisation servers, all at once."""

MAX_THREADS: Final = 16
"""How many tokens are fetched at once, by all batches of a process together: users have a few servers each, and a
callback that hangs must not cost a thread for each request there is."""

MAX_TOKEN: Final = 16 * 1024
"""Characters of a token: what servers take in a header field, and several times what tokens have."""

NO_ACCESS: Final = "no access token for this user"

_VISIBLE_ASCII: Final = re.compile(r"[\x21-\x7e]+")


def fits_a_header(token: object) -> bool:
    """Whether it can be sent as a bearer token."""
    return isinstance(token, str) and len(token) <= MAX_TOKEN and _VISIBLE_ASCII.fullmatch(token) is not None


def not_fetched(reason: object) -> str:
    """The answer for a token that may well be there."""
    return f"the token could not be fetched: {reason}"


class Batch:
    """One user's tokens for some servers, while they are being fetched. Each thread takes the next one there is."""

    def __init__(self, load: TokenLoader, user: str, server_ids: Sequence[str]) -> None:
        self.tokens: dict[str, str] = {}
        self.errors: dict[str, str] = {}
        self._load = load
        self._user = user
        self._waiting = deque(server_ids)
        self._missing = len(server_ids)
        self._changed = threading.Condition()
        self._closed = False

    def work(self) -> None:
        """Fetch until none is waiting, or the batch is closed."""
        while (server_id := self._next()) is not None:
            token, error = _fetched(self._load, self._user, server_id)
            self._answer(server_id, token, error)

    def wait(self, until: float) -> None:
        """Wait for every answer, and close the batch; late answers are dropped."""
        with self._changed:
            self._changed.wait_for(lambda: not self._missing, max(0.0, until - monotonic()))
            self._closed = True

    def _next(self) -> str | None:
        with self._changed:
            return None if self._closed or not self._waiting else self._waiting.popleft()

    def _answer(self, server_id: str, token: str | None, error: str) -> None:
        with self._changed:
            if self._closed:
                return
            if token is None:
                self.errors[server_id] = error
            else:
                self.tokens[server_id] = token
            self._missing -= 1
            self._changed.notify_all()


class TokenFetcher:
    """Asks the host's callback for tokens, each in a thread of its own, in the caller's context variables.

    :param seconds: how long a batch may take.
    """

    def __init__(self, seconds: float = TOKEN_SECONDS) -> None:
        self._seconds = seconds
        self._slots = threading.BoundedSemaphore(MAX_THREADS)

    def fetch(
        self, load: TokenLoader, user: str, server_ids: Sequence[str]
    ) -> tuple[dict[str, str], dict[str, str]]:
        """Tokens and errors by server id; each id is in one of them."""
        until = monotonic() + self._seconds
        batch = Batch(load, user, server_ids)
        for number in range(len(server_ids)):
            # The first thread is worth waiting for; the others make it quicker, where there is room.
            if not self._start(batch, until if number == 0 else None):
                break
        batch.wait(until)
        late = not_fetched(f"there was no answer within {self._seconds:g} seconds")
        unanswered = {one: late for one in server_ids if one not in batch.tokens and one not in batch.errors}
        return batch.tokens, {**batch.errors, **unanswered}

    def _start(self, batch: Batch, until: float | None) -> bool:
        wait = 0.0 if until is None else max(0.0, until - monotonic())
        if not self._slots.acquire(timeout=wait):
            return False
        context = contextvars.copy_context()
        thread = threading.Thread(
            target=context.run, args=(self._run, batch), name="aibridge-mcp-token", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:
            self._slots.release()
            return False
        return True

    def _run(self, batch: Batch) -> None:
        try:
            batch.work()
        finally:
            self._slots.release()


def _fetched(load: TokenLoader, user: str, server_id: str) -> tuple[str | None, str]:
    """The token, or why there is none."""
    try:
        token = load(user, server_id)
    except BaseException as error:
        # Whatever the host's code raises: the tokens of the other servers are still wanted.
        name = type(error).__name__
        _log_failure(server_id, error)
        return None, not_fetched(f"the application's callback failed with {name}")
    if token is None:
        return None, NO_ACCESS
    if not fits_a_header(token):
        return None, not_fetched("what the application's callback returned is no bearer token")
    return token, ""


def _log_failure(server_id: str, error: BaseException) -> None:
    # Where it failed, and not its message: that may hold the token, or what it would have been had with.
    frames = "".join(traceback.format_tb(error.__traceback__)).rstrip()
    logger.error(
        "the mcp_token_loader callback failed for MCP server %r with %s\n%s",
        server_id,
        type(error).__name__,
        frames,
    )
