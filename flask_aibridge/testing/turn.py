"""Pure: one answer of the stand-in, before it takes any wire format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

Document: TypeAlias = dict[str, Any]


class Malformed(Exception):
    """The request is not what the API takes; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Question:
    """What was asked: the model, the last words of the user, how many tokens at most."""

    model: str
    prompt: str
    limit: int | None = None

    @property
    def input_tokens(self) -> int:
        """The tokens of the prompt; a word is a token here."""
        return max(len(self.prompt.split()), 1)


@dataclass(slots=True)
class Saying:
    """The answer while it is being given: iterate it for the tokens, then ask it what came of it."""

    question: Question
    id: str
    created: int
    tokens: Iterable[str]
    said: list[str] = field(default_factory=list)
    cut: bool = False

    def __iter__(self) -> Iterator[str]:
        for token in self.tokens:
            if self.question.limit is not None and len(self.said) >= self.question.limit:
                self.cut = True
                return
            self.said.append(token)
            yield token

    @property
    def text(self) -> str:
        """All that has been said so far."""
        return "".join(self.said)

    @property
    def output_tokens(self) -> int:
        """The tokens that have been said so far."""
        return len(self.said)


class WireFormat(Protocol):
    """How one API asks and answers. ``sse`` yields one piece for each event."""

    def question(self, document: Document) -> Question:
        """Read a request; raises ``Malformed``."""

    def document(self, saying: Saying) -> Document:
        """Return the blocking answer, once all has been said."""

    def sse(self, saying: Saying, request: Document) -> Iterator[bytes]:
        """Yield the streamed answer while it is being said."""

    def error(self, status: int, message: str, request_id: str) -> Document:
        """Return an error document."""

    def error_event(self, message: str, request_id: str) -> bytes:
        """Return the event of an error that comes after the head."""


def last_words(messages: object) -> str:
    """Return the text of the last message of a user: a string, or the text parts of a list."""
    if isinstance(messages, str):
        return messages
    for message in reversed(messages) if isinstance(messages, list) else ():
        if isinstance(message, dict) and message.get("role") == "user":
            return text_of(message.get("content"))
    return ""


def text_of(content: object) -> str:
    """Return the text of a message's content."""
    if isinstance(content, str):
        return content
    parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    return "\n".join(str(part["text"]) for part in parts if "text" in part)


def required(document: Document, name: str, kind: type | tuple[type, ...]) -> Any:
    """Return a member of a request that must be there; raises ``Malformed``."""
    value = document.get(name)
    if value is None:
        raise Malformed(f"{name}: Field required")
    if not isinstance(value, kind) or isinstance(value, bool):
        raise Malformed(f"{name}: Input has the wrong type")
    return value


def limit_of(document: Document, *names: str) -> int | None:
    """Return the first of the members ``names`` that limits the tokens."""
    found = (document.get(name) for name in names)
    return next((value for value in found if isinstance(value, int)), None)
