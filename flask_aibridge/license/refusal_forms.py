"""Pure: how the closed gate answers: the document of a refusal, in the shape that the caller's SDK reads.

A provider's SDK shows what stands where the provider itself writes its errors; anything else reads the two members
that every refusal has at its top, ``message`` and ``code``.

Sources: https://platform.claude.com/docs/en/api/errors and https://platform.openai.com/docs/guides/error-codes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from flask_aibridge.config import DEFAULT_BASE_URLS, ProviderSettings

__all__ = ["NO_RETRY", "FindType", "provider_types", "refusal_document"]

#: A header by which the SDKs of both providers are told not to try again: nothing would be different.
NO_RETRY: Final = ("X-Should-Retry", "false")

#: A provider's name (the first segment of a path below the public door) → its type, or ``None`` for one not known.
FindType = Callable[[str], str | None]


def provider_types(providers: Iterable[ProviderSettings] = ()) -> Mapping[str, str]:
    """Provider name → type: of the providers given, and of those that are named as their type is, which is what
    stored ones are named most often. Nothing is looked up anywhere.
    """
    by_name = {type_: type_ for type_ in DEFAULT_BASE_URLS}
    return MappingProxyType({**by_name, **{each.name: each.type for each in providers}})


def refusal_document(
    provider_type: str | None, status: int, message: str, code: str | None
) -> dict[str, Any]:
    """The refusal as JSON: ``{"message", "code"}``, and before them, where the caller talks to a provider of a known
    type, that provider's own ``error``.

    :param status: the status that it is sent with; Anthropic's ``error.type`` depends on it.
    """
    form = _FORMS.get(provider_type or "")
    own = {} if form is None else form(status, message, code)
    return {**own, "message": message, "code": code}


def _anthropic(status: int, message: str, _code: str | None) -> dict[str, Any]:
    type_ = "api_error" if status >= 500 else "billing_error" if status == 402 else "permission_error"
    return {"type": "error", "error": {"type": type_, "message": message}}


def _openai(status: int, message: str, code: str | None) -> dict[str, Any]:
    type_ = "server_error" if status >= 500 else "invalid_request_error"
    error = {"message": message, "type": type_, "param": None, "code": code}
    return {"error": error}


_FORMS: Final[Mapping[str, Callable[[int, str, str | None], dict[str, Any]]]] = MappingProxyType(
    {"anthropic": _anthropic, "openai": _openai}
)
