"""Pure: several rounds of a Chat Completions stream as one.

Chunks pass as they came, each at once. Withheld is what shows that a tool of the bridge's was called, and how a round
ended, until it is known whether another one follows.
https://platform.openai.com/docs/api-reference/chat-streaming
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any, Final

from flask_aibridge.bridge.injection.blocks import Blocks, event_of
from flask_aibridge.bridge.injection.chat_answer import WovenAnswer, with_written
from flask_aibridge.bridge.injection.chat_calls import CALLED, Round
from flask_aibridge.bridge.intercept.content import name_of
from flask_aibridge.bridge.intercept.documents import Document, member, parse_document
from flask_aibridge.bridge.intercept.splice import is_utf8
from flask_aibridge.bridge.sse import ends_event

MAX_END: Final = 1024 * 1024
"""Bytes of a round's end that are withheld: three chunks below 2 KiB. Where there are more the answer ends here, and no
call is run."""

_BOM: Final = b"\xef\xbb\xbf"
_DATA: Final = re.compile(rb"^data:? ?", re.MULTILINE)
_NOTHING: Final[tuple[Any, ...]] = (None, "", [], {})


class WovenStream:
    """The stream that the caller gets.

    :param answer: what the rounds share.
    :param injected: the names of the tools of the bridge's.
    """

    def __init__(self, answer: WovenAnswer, injected: Collection[str]) -> None:
        self._answer = answer
        self._injected = injected
        self._has_role = False
        self._has_ended = False  # the caller knows why the message ended
        self._blocks = Blocks()
        self._begin()

    def next_round(self) -> None:
        """Go on to the stream of another round."""
        self._answer.next_round(self.round.usage)
        self._begin()

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes; return those that the caller gets now."""
        return b"".join([self._woven(block) for block in self._blocks.feed(data)])

    def finish(self, *, runs: bool) -> bytes:
        """Take the end of the round; return what the caller gets now.

        :param runs: whether calls may be run. ``goes_on`` says whether there are any.
        """
        rest = self._blocks.rest()
        woven = self._woven(rest) if rest else b""
        self.goes_on = runs and self.round.is_runnable and not self._has_ended
        if self.goes_on:
            return b"" if woven == rest else _closed(woven)
        return b"".join((self._released(), self._owed(), woven))

    def _begin(self) -> None:
        self.round = Round(self._injected)
        self.goes_on = False
        self._blocks = Blocks()
        self._is_at_start = True
        self._has_ended = False
        self._held: list[tuple[bytes, Document | None]] = []
        self._held_size = 0
        self._told: Document | None = None  # the last usage that the caller was given

    def _woven(self, block: bytes) -> bytes:
        mark = b""
        if self._is_at_start and block.startswith(_BOM):
            mark, block = _BOM, block[len(_BOM) :]
        self._is_at_start = False
        try:
            woven = self._read(block)
        except RecursionError:  # it can be read, but not be written again
            woven = block
        return mark + woven if mark and self._answer.is_first else woven

    def _read(self, block: bytes) -> bytes:
        event = event_of(block)
        if event is None:
            return block
        if event.data.startswith(b"[DONE]"):
            return self._end(block)
        document = parse_document(event.data) if is_utf8(event.data) else None
        if event.name == "error" or (document is not None and _is_error(document)):
            self.round.failed = True
            return b"".join((self._released(), self._owed(), block))
        return block if document is None else b"".join(self._read_chunk(_Chunk(block, event.data, document)))

    def _end(self, block: bytes) -> bytes:
        if self._holds:
            return self._hold(block, None)
        return self._owed() + block

    def _read_chunk(self, chunk: _Chunk) -> Iterator[bytes]:
        document, now = chunk.document, self.round
        self._answer.identify(document)
        usage = document.get("usage")
        if isinstance(usage, dict):
            now.usage = usage
        choice = chunk.choice
        if choice is None:
            is_end = isinstance(usage, dict) or now.reason is not None
            yield self._told_later(chunk) if is_end else self._told_now(chunk)
            return
        delta = member(choice, "delta")
        now.hear(delta)
        kept = self._sorted(delta)
        reason = name_of(choice.get("finish_reason"))
        now.reason = now.reason or reason
        says = self._says(kept)
        if reason and now.has_injected:
            if says:
                yield self._told_now(chunk.with_choice(delta=kept, finish_reason=None))
                chunk = chunk.with_choice(logprobs=None)
            if reason in CALLED and not now.has_callers:
                reason = "stop"
            yield self._told_later(chunk.with_choice(delta={}, finish_reason=reason))
        elif reason or says or kept == delta:
            yield self._told_now(chunk if kept == delta else chunk.with_choice(delta=kept))

    def _sorted(self, delta: Document) -> Document:
        """``delta`` without what is of calls of the bridge's, and, in a later round, without the role that was said."""
        if "role" in delta and self._has_role and not self._answer.is_first:
            delta = {name: value for name, value in delta.items() if name != "role"}
        fragments = delta.get("tool_calls")
        if not isinstance(fragments, list):
            return delta
        kept = self.round.sort(fragments)
        if kept or not fragments:
            return delta | {"tool_calls": kept}
        return {name: value for name, value in delta.items() if name != "tool_calls"}

    def _says(self, delta: Document) -> bool:
        said = {name for name, value in delta.items() if value not in _NOTHING}
        return bool(said - {"role"}) or ("role" in said and not self._has_role)

    @property
    def _holds(self) -> bool:
        return self.round.has_injected and not (self.round.failed or self._has_ended)

    def _told_later(self, chunk: _Chunk) -> bytes:
        if not self._holds:
            return self._told_now(chunk)
        return self._hold(chunk.written(self._answer), chunk.document)

    def _told_now(self, chunk: _Chunk) -> bytes:
        choice = chunk.choice
        if choice is not None:
            self._has_role = self._has_role or bool(member(choice, "delta").get("role"))
            self._has_ended = self._has_ended or bool(choice.get("finish_reason"))
        self._tell(chunk.document)
        return chunk.written(self._answer)

    def _hold(self, block: bytes, document: Document | None) -> bytes:
        self._held.append((_closed(block), document))
        self._held_size += len(block)
        return self._released() if self._held_size > MAX_END else b""

    def _released(self) -> bytes:
        """What was held, in order, with what was not yet told before the last word."""
        held, self._held = self._held, []
        self._has_ended = self._has_ended or bool(held)
        blocks = []
        for block, document in held:
            if document is None:
                blocks.append(self._owed())
            else:
                self._tell(document)
            blocks.append(block)
        return b"".join(blocks)

    def _tell(self, document: Document) -> None:
        usage = document.get("usage")
        if isinstance(usage, dict):
            self._told = self._answer.total(usage)

    def _owed(self) -> bytes:
        """The usage, where the caller has not been told all of it: some chunk that held it was withheld, or the round
        reported none."""
        total = self._answer.total(self.round.usage)
        if total is None or total == self._told or not (self.round.has_injected or not self._answer.is_first):
            return b""
        self._told = total
        return self._answer.usage_chunk(total)


class _Chunk:
    """One event with a chunk, and how it is to be changed."""

    def __init__(self, block: bytes, data: bytes, document: Document, text: bytes | None = None) -> None:
        self.document = document
        self._block = block
        self._data = data
        self._text = data if text is None else text

    @property
    def choice(self) -> Document | None:
        """Its only choice; null where it has none, or several."""
        choices = self.document.get("choices")
        if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
            return None
        return choices[0]

    def with_choice(self, **changed: Any) -> _Chunk:
        """This chunk with members of its choice changed."""
        choices = [{**(self.choice or {}), **changed}]
        text = with_written(self._text, "choices", choices)
        return _Chunk(self._block, self._data, self.document | {"choices": choices}, text)

    def written(self, answer: WovenAnswer) -> bytes:
        """Its event, as a part of ``answer``."""
        text = answer.edited(self._text, self.document)
        if text is self._data:
            return self._block
        if b"\n" in self._data:
            return _closed(b"\n".join(b"data: " + line for line in text.split(b"\n")))
        head, _, tail = self._block.partition(self._data)
        return head + text + tail


def _is_error(document: Document) -> bool:
    return document.get("error") is not None or document.get("object") == "error"  # the latter is vLLM's


def _closed(block: bytes) -> bytes:
    """``block`` with a blank line at its end."""
    return block if not block or ends_event(block) else block.rstrip(b"\r\n") + b"\n\n"
