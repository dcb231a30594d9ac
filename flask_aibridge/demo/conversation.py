"""A question by either door, and the answer's text as it arrives."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import urllib3

from flask_aibridge.bridge.sse import SSEParser
from flask_aibridge.transport import Source

if TYPE_CHECKING:
    from types import TracebackType

    from flask_aibridge import AIBridge
    from flask_aibridge.demo.providers import Dialect, Partner

__all__ = ["Answer", "AnswerFailed", "ask_by_http", "ask_in_process"]

#: Seconds to wait for the next bytes of an answer: a real model may think for a while.
TIMEOUT: Final = urllib3.Timeout(connect=10, read=120)

#: The most of an error document that is read.
MAX_ERROR_BYTES: Final = 64 * 1024


class AnswerFailed(Exception):
    """The answer is an error; the message is the provider's."""


class Answer:
    """A response whose head is there and whose body may still be on its way.

    A context manager: leaving it closes the response.
    """

    def __init__(self, response: urllib3.BaseHTTPResponse, dialect: Dialect, asked_at: float) -> None:
        self._response = response
        self._dialect = dialect
        self._asked_at = asked_at
        self.status = response.status
        self.time_to_first_token: float | None = None
        """Seconds from the question to the first piece of text; ``None`` before there is one."""

    def __enter__(self) -> Answer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the response; what it is still waiting for is cancelled."""
        self._response.close()

    def text(self) -> Iterator[str]:
        """The pieces of the answer's text, each as it arrives.

        :raises AnswerFailed: for an answer that is, or ends in, an error.
        :raises urllib3.exceptions.HTTPError: for one that breaks off.
        """
        if self.status != 200:
            raise AnswerFailed(f"{self.status}: {_message(self.document())}")
        parser = SSEParser()
        while data := self._response.read1():
            yield from self._texts(parser.feed(data))

    def _texts(self, events: Iterable[Any]) -> Iterator[str]:
        for event in events:
            document = _document(event.data)  # OpenAI's closing [DONE] is an empty one
            if "error" in document:
                raise AnswerFailed(_message(document))
            if text := self._dialect.text_of(document):
                if self.time_to_first_token is None:
                    self.time_to_first_token = time.monotonic() - self._asked_at
                yield text

    def document(self) -> Mapping[str, Any]:
        """The document of an answer that is not streamed: an error's, a refusal's."""
        return _document(self._response.read(MAX_ERROR_BYTES))


def _message(document: Mapping[str, Any]) -> str:
    """The sentence of an error document, whichever door or provider it is from."""
    error = document.get("error")
    found = error.get("message") if isinstance(error, Mapping) else document.get("message")
    return str(found or "no message")


def _document(data: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def ask_in_process(aibridge: AIBridge, partner: Partner, prompt: str) -> Answer:
    """Ask as the application's own agent does: no socket, no key, and the provider's own URL."""
    http = aibridge.transport_for(partner.name, Source.AGENTS)
    return _ask(http, partner.dialect.url, partner, prompt, {})


def ask_by_http(http: urllib3.PoolManager, url: str, api_key: str, partner: Partner, prompt: str) -> Answer:
    """Ask as any client outside does."""
    return _ask(http, url, partner, prompt, {"X-Api-Key": api_key})


def _ask(
    http: urllib3.PoolManager, url: str, partner: Partner, prompt: str, credentials: Mapping[str, str]
) -> Answer:
    headers = {"Content-Type": "application/json", **partner.dialect.headers, **credentials}
    asked_at = time.monotonic()
    response = http.request(
        "POST",
        url,
        body=partner.body(prompt),
        headers=headers,
        preload_content=False,
        retries=False,
        timeout=TIMEOUT,
    )
    return Answer(response, partner.dialect, asked_at)
