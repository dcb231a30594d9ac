"""Pure: one answer out of several.

A request with injected tools may take several *rounds*: the model calls a tool of the bridge's, the bridge runs it and
asks again with the result. The caller sees one answer to one request. A weaver, one for each wire format, holds the
state of one such request: it makes each round's request, and takes each round's answer apart into what the caller gets
and what the bridge has to run.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from flask_aibridge.bridge.injection.tools import InjectedCall, InjectedTool, ToolResult
from flask_aibridge.bridge.intercept.documents import Document


class Weaver(ABC):
    """One request with injected tools.

    :param request: the caller's request, parsed.
    :param tools: those to inject, at least one.
    """

    def __init__(self, request: Document, tools: Sequence[InjectedTool]) -> None:
        self._request = request
        self._tools = {tool.id: tool for tool in tools}
        self.pending: tuple[InjectedCall, ...] = ()
        """What is to be run before the next round; known once a round is over. None where the answer is over."""
        self.dropped: tuple[InjectedCall, ...] = ()
        """What the model called and nobody runs, because in the same breath it called a tool of the caller's, whose
        result only the caller has."""

    @classmethod
    def can_weave(cls, request: Document) -> bool:
        """Whether anything is to be gained by injecting tools into ``request``; false, too, where its answer could not
        be made one out of several."""
        return True

    @abstractmethod
    def first_request(self, body: bytes) -> bytes:
        """The body of the first round: the caller's, with the tools, and with no more than one call at a time. What
        need not change stays byte for byte. ``body`` is valid JSON of ``request``."""

    @abstractmethod
    def next_request(self, results: Sequence[ToolResult], *, last: bool) -> bytes:
        """The body of the next round, with a result for each of ``pending``, in order; which is empty again then.

        :param last: whether it is the last one: the model may call no tool in it, and ``pending`` stays empty.
        """

    @abstractmethod
    def take_document(self, body: bytes) -> bytes | None:
        """Take a round's whole answer, where it is a JSON document; return what the caller gets, or null where there
        is something ``pending``. An answer of a single round, and what cannot be read, is returned as it came."""

    @abstractmethod
    def feed(self, data: bytes) -> bytes:
        """Take the next bytes of a round's stream; return those that the caller gets now."""

    @abstractmethod
    def finish(self) -> bytes:
        """Take the end of a round's stream; return what the caller gets now: all that is left, unless something is
        ``pending``."""

    def used_apart(self) -> bytes:
        """An event that tells what the rounds before this one have used, where what the caller has got so far cannot
        be followed by such a one; empty where ``finish`` tells it."""
        return b""

    def give_up(self, event: bytes) -> bytes:
        """What the caller's stream ends in when a further round has been asked for and does not come: what has been
        used so far, as far as the format can say it, and then the ``event`` by which it says that it goes no further.
        """
        return self.finish() + event
