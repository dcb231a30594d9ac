"""Whom the demo talks to: the real providers whose keys are in the environment, or a stand-in for both."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from flask_aibridge.config import ProviderSettings, read_settings
from flask_aibridge.testing import StandInProvider, serve_stand_in

__all__ = ["DIALECTS", "Dialect", "Partner", "partners"]

#: Seconds between two tokens of the stand-in: slow enough to be watched.
TOKEN_INTERVAL: Final = 0.04
STAND_IN_MODEL: Final = "stand-in-large"
STAND_IN_KEY: Final = "not-a-real-key"

#: The longest answer that the demo asks for, in tokens; a model's reasoning counts as well.
MAX_TOKENS: Final = 1000


@dataclass(frozen=True)
class Dialect:
    """How one wire format asks for a streamed answer, and where its text is.

    :param path: the path below a provider. :param url: the URL that the provider's own SDK would use.
    :param model: what is asked where nobody chose.
    :param text_of: one event's document → the text in it, if it has any.
    """

    path: str
    url: str
    model: str
    text_of: Callable[[Mapping[str, Any]], str]
    headers: Mapping[str, str] = field(default_factory=dict)
    limit: str = "max_tokens"
    extra: Mapping[str, Any] = field(default_factory=dict)

    def request(self, model: str, prompt: str) -> dict[str, Any]:
        """The request body."""
        messages = [{"role": "user", "content": prompt}]
        return {"model": model, self.limit: MAX_TOKENS, "stream": True, "messages": messages, **self.extra}


def _text_of_message(document: Mapping[str, Any]) -> str:
    delta = document.get("delta")
    if document.get("type") != "content_block_delta" or not isinstance(delta, Mapping):
        return ""
    return str(delta.get("text", ""))


def _text_of_completion(document: Mapping[str, Any]) -> str:
    choices = document.get("choices") or [{}]
    return str((choices[0].get("delta") or {}).get("content") or "")


#: Provider type → the wire format that the demo speaks with it.
DIALECTS: Final = MappingProxyType(
    {
        "anthropic": Dialect(
            "/v1/messages",
            "https://api.anthropic.com/v1/messages",
            "claude-haiku-5-5",
            _text_of_message,
            {"anthropic-version": "2023-06-01"},
        ),
        "openai": Dialect(
            "/v1/chat/completions",
            "https://api.openai.com/v1/chat/completions",
            "gpt-5.4-mini",
            _text_of_completion,
            limit="max_completion_tokens",
            extra=MappingProxyType({"stream_options": {"include_usage": True}}),
        ),
    }
)


@dataclass(frozen=True)
class Partner:
    """A provider that the demo talks to, and the model it asks there."""

    settings: ProviderSettings
    model: str
    is_stand_in: bool = False

    @property
    def name(self) -> str:
        """Its name in the bridge."""
        return self.settings.name

    @property
    def dialect(self) -> Dialect:
        """Its wire format."""
        return DIALECTS[self.settings.type]

    @property
    def label(self) -> str:
        """Its name for people: a stand-in is always called one."""
        return f"{self.name} (stand-in)" if self.is_stand_in else self.name

    def body(self, prompt: str) -> bytes:
        """A request for a streamed answer."""
        return json.dumps(self.dialect.request(self.model, prompt)).encode()


@contextmanager
def partners(env: Mapping[str, str], model: str | None = None) -> Iterator[list[Partner]]:
    """The providers with a key in ``env``; where there is none, a stand-in served on loopback for the ``with`` block.

    :param model: asked instead of the default of each.
    :raises ConfigError: for a base URL in ``env`` that cannot be one.
    """
    real = [settings for settings in read_settings({}, env).providers if settings.keys]
    if real:
        yield [Partner(settings, model or DIALECTS[settings.type].model) for settings in real]
        return
    with serve_stand_in(StandInProvider(delay=TOKEN_INTERVAL, keys=[STAND_IN_KEY])) as served:
        yield [Partner(each, model or STAND_IN_MODEL, True) for each in _stand_ins(served.base_url)]


def _stand_ins(base_url: str) -> Iterable[ProviderSettings]:
    yield ProviderSettings("anthropic", "anthropic", base_url, (STAND_IN_KEY,))
    yield ProviderSettings("openai", "openai", f"{base_url}/v1", (STAND_IN_KEY,))
