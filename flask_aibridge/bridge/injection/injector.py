"""Which requests get the bridge's tools, and which tools those are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from flask_aibridge.bridge.injection.chat_completions import ChatCompletionsWeaver
from flask_aibridge.bridge.injection.messages import MessagesWeaver
from flask_aibridge.bridge.injection.responses import ResponsesWeaver
from flask_aibridge.bridge.injection.rounds import Ask, Rounds
from flask_aibridge.bridge.injection.weaver import Weaver
from flask_aibridge.bridge.intercept.chat_completions import ChatCompletions
from flask_aibridge.bridge.intercept.documents import Document
from flask_aibridge.bridge.intercept.messages import Messages
from flask_aibridge.bridge.intercept.responses import Responses
from flask_aibridge.bridge.intercept.wire_format import WireFormat
from flask_aibridge.bridge.interception import Interception
from flask_aibridge.bridge.mcp.toolbox import Toolbox
from flask_aibridge.services.records import APPLICATION

WEAVERS: Final[Mapping[type[WireFormat], type[Weaver]]] = MappingProxyType(
    {Messages: MessagesWeaver, ChatCompletions: ChatCompletionsWeaver, Responses: ResponsesWeaver}
)


class Injector:
    """Puts tools into requests.

    :param toolbox: the tools that there are for each user.
    """

    def __init__(self, toolbox: Toolbox) -> None:
        self._toolbox = toolbox

    def rounds(
        self, document: Document, interception: Interception, ask: Ask, fresh: Callable[[], WireFormat]
    ) -> Rounds | None:
        """The rounds of a request; null for one that gets no tools, because there are none for its user, or because it
        is of a kind that cannot be woven.

        :param ask: asks the provider with a body.
        :param fresh: makes a wire format as the request's own is, of no prompt and no content.
        """
        weaver = WEAVERS.get(type(fresh()))
        if weaver is None or not document or not weaver.can_weave(document):
            return None
        tools = self._toolbox.tools_for(interception.caller.user or APPLICATION)
        if not tools.tools:
            return None
        return Rounds(weaver(document, tools.tools), tools, ask, interception, fresh)

    def close(self) -> None:
        """Close the connections to the servers."""
        self._toolbox.close()
