"""Asking a provider with the host's keys: the next one where one is refused, before the first byte goes to the caller.

Nothing else is tried twice: the SDKs in front of the bridge do that.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Final, TypeAlias

from flask_aibridge.bridge.intercept.decoding import Decoder, decoder_for
from flask_aibridge.bridge.interception import Interception
from flask_aibridge.bridge.providers.base import Provider
from flask_aibridge.bridge.providers.cool_downs import DEFAULT_COOL_DOWN, Lane, seconds_to_wait
from flask_aibridge.bridge.providers.key_pool import ProviderKey
from flask_aibridge.bridge.redaction import MIN_REDACTED, Redactor
from flask_aibridge.bridge.request import Refused
from flask_aibridge.bridge.upstream import Answer, UpstreamBroken

logger = logging.getLogger("flask_aibridge.bridge")

Send: TypeAlias = Callable[[Mapping[str, str]], Answer]
"""Sends the request with these headers."""

ACCOUNT_HEADERS: Final = frozenset({"Openai-Organization", "Openai-Project", "Anthropic-Workspace-Id"})
"""By these callers choose an account. A key that is not accepted together with one of them may be good without."""


_REQUEST_IDS: Final = ("request-id", "x-request-id")


class KeysExhausted(Refused):
    """The provider took none of the host's keys. ``error_type`` is the class of the error."""

    def __init__(self, error_type: str, status: int, message: str, *headers: tuple[str, str], error: str):
        super().__init__(status, message, *headers, error=error)
        self.error_type = error_type


def ask(
    send: Send, provider: Provider, headers: Mapping[str, str], lane: Lane, interception: Interception
) -> Answer:
    """Return the provider's answer to a request with the best of the host's keys that it takes.

    A caller never gets the provider's 401: it would be taken for the gateway's own. With a single key the provider's
    429 is passed on as it came, since the SDKs read its body and headers.

    :raises KeysExhausted: with 429 if a key is rate limited, else with 502.
    """
    if not provider.keys:
        return _unless_rejected(send(headers), provider)
    tried: list[ProviderKey] = []
    limited = False
    while (key := provider.keys.best(lane, tried)) is not None:
        tried.append(key)
        interception.key_hint = key.hint
        answer = send({**headers, **provider.carry(key.secret)})
        if answer.status != 401 and (answer.status != 429 or len(provider.keys) == 1):
            if answer.status < 400:
                provider.keys.accepted(key, lane)
            return without_secret(answer, key.secret)
        # Not read to its end: that could take as long as the provider likes, and this is rare.
        answer.close()
        interception.request_id = request_id_of(answer)
        if answer.status == 401:
            _reject(provider, key, lane, headers)
        else:
            limited = True
            _limit(provider, key, lane, seconds_to_wait(answer.headers, datetime.now(UTC)))
    raise _exhausted(provider, lane, tried, limited=limited)


def request_id_of(answer: Answer) -> str | None:
    """The provider's own id of a request, if it tells one."""
    return next((value for name, value in answer.headers if name.lower() in _REQUEST_IDS), None)


def _unless_rejected(answer: Answer, provider: Provider) -> Answer:
    if answer.status != 401:
        return answer
    answer.close()
    raise _rejected(provider, [])


def _reject(provider: Provider, key: ProviderKey, lane: Lane, headers: Mapping[str, str]) -> None:
    chosen = not ACCOUNT_HEADERS.isdisjoint(headers)
    if not chosen:
        provider.keys.rest(key, lane, "rejected", DEFAULT_COOL_DOWN)
    logger.warning(
        "provider %r did not accept the key %s%s",
        provider.name,
        key.hint,
        " with the account that the caller chose" if chosen else "",
    )


def _limit(provider: Provider, key: ProviderKey, lane: Lane, seconds: float) -> None:
    provider.keys.rest(key, lane, "rate_limited", seconds)
    logger.warning(
        "provider %r limits the key %s for model %r for %.0f s", provider.name, key.hint, lane.model, seconds
    )


def _exhausted(provider: Provider, lane: Lane, tried: list[ProviderKey], *, limited: bool) -> KeysExhausted:
    """Say what is wrong with all of them.

    :param limited: whether one was rate limited just now; its rest may be over already, as after ``Retry-After: 0``.
    """
    seconds = provider.keys.limited_for(lane)
    if seconds is None and not limited:
        return _rejected(provider, tried)
    return KeysExhausted(
        "rate_limited",
        429,
        f"Every key of the AI bridge for provider {provider.name!r} is rate limited now; try again later.",
        ("Retry-After", str(max(1, math.ceil(seconds or 0)))),
        error=f"every key of provider {provider.name!r} is rate limited or was not accepted",
    )


def _rejected(provider: Provider, tried: list[ProviderKey]) -> KeysExhausted:
    hints = ", ".join(key.hint for key in tried)
    what = f"did not accept the key {hints}" if hints else "accepts none of its keys, or wants one"
    return KeysExhausted(
        "unauthorized",
        502,
        f"Provider {provider.name!r} did not accept the AI bridge's own key; its administrator has to look into it.",
        # The SDKs would ask again and again what only an administrator can change.
        ("X-Should-Retry", "false"),
        error=f"provider {provider.name!r} {what}",
    )


def without_secret(answer: Answer, secret: str) -> Answer:
    """Return the answer without the secret, in case it repeats what it was asked with, as error pages may.

    An error that is compressed, though the bridge asks for none that is, goes on as what it holds.
    """
    if len(secret) < MIN_REDACTED:
        return answer
    answer.headers = [pair for pair in answer.headers if secret not in pair[1]]
    return answer if answer.status < 400 else _Redacted(answer, Redactor(secret))


class _Redacted(Answer):
    """An answer that is searched for a secret while it is read."""

    def __init__(self, answer: Answer, redactor: Redactor) -> None:
        self.status, self.reason, self.headers = answer.status, answer.reason, answer.headers
        self.patient = answer.patient
        self._answer = answer
        self._redactor = redactor
        self._decoder = decoder_for(_coding(answer))
        self._pieces: Iterator[bytes] = iter(())
        if self._decoder is not None:
            self.headers = [pair for pair in answer.headers if pair[0].lower() not in _OF_THE_CODING]

    def read(self, patience: float | None = None) -> bytes:
        while True:
            for piece in self._pieces:
                if passing := self._redactor.feed(piece):
                    return passing
            data = self._answer.read(patience)
            if not data:
                return self._redactor.finish()
            self._pieces = iter((data,)) if self._decoder is None else _decoded(self._decoder, data)

    def close(self) -> None:
        self._answer.close()


_OF_THE_CODING: Final = ("content-encoding", "content-length")


def _coding(answer: Answer) -> str:
    return ",".join(value for name, value in answer.headers if name.lower() == "content-encoding")


def _decoded(decoder: Decoder, data: bytes) -> Iterator[bytes]:
    try:
        yield from decoder.feed(data)
    except Exception as error:  # each library has its own
        raise UpstreamBroken("an error's body is not what its Content-Encoding says") from error
