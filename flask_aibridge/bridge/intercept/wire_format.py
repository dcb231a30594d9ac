"""Pure: what every wire format has in common: one exchange, from the request's last words to the answer's.

A wire format holds the state of one exchange. It is made with the request, may edit the request's body, and is then
told what arrives of the answer. Prompt and usage are said once each, however the answer ends.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import ClassVar

from flask_aibridge.bridge.intercept.content import Budget, cut, name_of
from flask_aibridge.bridge.intercept.documents import Document
from flask_aibridge.bridge.intercept.usage import Counting, UsageMerge
from flask_aibridge.bridge.intercept.vocabulary import Ended, Item, Prompt, Usage
from flask_aibridge.bridge.intercept.withholding import Withholder
from flask_aibridge.bridge.sse import Event


class WireFormat(ABC):
    """One exchange of one API.

    :param request: the request's document; empty for one that could not be read.
    :param content: whether prompts, tool calls and thoughts are to be said. Without them next to nothing of a stream
        is parsed.
    """

    counting: ClassVar[Counting]

    ping: ClassVar[bytes] = b": ping\n\n"
    """What may stand between two events to show that the connection lives: a comment, which every reader drops."""

    has_begun = True
    """Whether the first event has been read, where anything depends on that."""

    def __init__(self, request: Document | None = None, *, content: bool = True) -> None:
        self._content = content
        self._budget = Budget()
        self._usage = UsageMerge(self.counting)
        self._message_id = ""
        self._finish_reason: str | None = None
        self._over = False
        prompt = self._prompt_of(request or {}) if content else None
        self._prompt = cut(prompt) if prompt and prompt.strip() else None

    def edit_request(self, body: bytes) -> bytes:
        """Return the request's body as the provider is to have it: the same bytes, but for a field that must differ."""
        return body

    def withholder(self) -> Withholder | None:
        """What keeps events from the caller that are there by ``edit_request``; null where there are none."""
        return None

    def read_document(self, document: Document) -> Iterator[Item]:
        """Say what a whole JSON answer means."""
        yield from self._read_document(document)
        yield from self._end()

    @abstractmethod
    def read_event(self, event: Event) -> Iterable[Item]:
        """Say what one server-sent event means."""

    def silent(self, data: bytes) -> int:
        """With how many bytes the next events begin that say nothing; ``data`` is whole events of one line each."""
        return 0

    def read_end(self) -> Iterator[Item]:
        """Say what the end of the stream means, where the events have not said it."""
        return self.cut()

    def cut(self) -> Iterator[Item]:
        """Say what is known and was not said yet, of an answer of which there will be no more."""
        if not self._over:
            self._over = True
            yield from self._open_content(whole=False)
            yield from self._account()

    @abstractmethod
    def error_event(self, message: str, interception_id: str, last: bytes) -> bytes:
        """Return the event by which this API ends a stream that cannot go on. ``last`` is what was sent before it."""

    @abstractmethod
    def _prompt_of(self, request: Document) -> str | None:
        """The last words of the user; null where the last turn was not theirs."""

    @abstractmethod
    def _read_document(self, document: Document) -> Iterable[Item]:
        """Say what a JSON answer means, but for its end."""

    def _open_content(self, *, whole: bool) -> Iterable[Item]:
        """Say what was being gathered. A tool call in an answer that broke off is none: nobody will run it."""
        return ()

    def _end(self) -> Iterator[Item]:
        """Say that the answer is whole. Nothing is read after this."""
        if not self._over:
            self._over = True
            yield from self._open_content(whole=True)
            yield from self._account()
            yield Ended()

    def _introduce(self, message_id: object) -> Iterator[Item]:
        """Take the provider's id of the answer; that is its first word, so the prompt has arrived."""
        self._message_id = self._message_id or name_of(message_id) or ""
        yield from self._said_prompt()

    def _said_prompt(self) -> Iterator[Item]:
        if self._prompt is not None:
            prompt, self._prompt = self._prompt, None
            yield Prompt(prompt, self._message_id)

    def _account(self) -> Iterator[Item]:
        yield from self._said_prompt()
        tokens = self._usage.taken()
        if tokens is not None:
            yield Usage(tokens, self._message_id, self._finish_reason)
