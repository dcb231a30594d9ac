"""Providers: their routes, their URLs, their keys, their errors."""

from __future__ import annotations

import pytest
from urllib3.util import parse_url

from flask_aibridge.bridge.providers.base import Provider
from flask_aibridge.bridge.providers.registry import TYPES, providers_from
from flask_aibridge.config import DEFAULT_BASE_URLS, ProviderSettings
from flask_aibridge.errors import ConfigError


def provider(kind: str, base_url: str = "", keys: tuple[str, ...] = ("sk-1", "sk-2")) -> Provider:
    settings = ProviderSettings("p", kind, base_url or DEFAULT_BASE_URLS[kind], keys)
    return providers_from([settings])["p"]


@pytest.mark.parametrize(
    ("kind", "base_url", "path", "url"),
    [
        ("anthropic", "", "/v1/messages", "https://api.anthropic.com/v1/messages"),
        ("anthropic", "http://h:1/", "/v1/messages", "http://h:1/v1/messages"),
        ("anthropic", "http://h/a/b/", "/v1/models/x", "http://h/a/b/v1/models/x"),
        ("openai", "", "/v1/chat/completions", "https://api.openai.com/v1/chat/completions"),
        ("openai", "http://h/v1/", "/v1/responses", "http://h/v1/responses"),
        (
            "openai",
            "https://h/v1beta/openai",
            "/v1/chat/completions",
            "https://h/v1beta/openai/chat/completions",
        ),
        ("openai", "https://h", "/v1/chat/completions", "https://h/chat/completions"),
        ("openai", "https://h/v1", "/v1/models/v1/x", "https://h/v1/models/v1/x"),
    ],
)
def test_urls_are_joined_as_the_providers_sdk_joins_them(
    kind: str, base_url: str, path: str, url: str
) -> None:
    """OpenAI's base URL stands for ``/v1`` and all before it, Anthropic's for what comes before ``/v1``."""
    assert provider(kind, base_url).url(path, "") == url
    assert provider(kind, base_url).url(path, "a=b%20c") == f"{url}?a=b%20c"


@pytest.mark.parametrize("kind", ["anthropic", "openai"])
@pytest.mark.parametrize("base_url", ["http://host", "http://host:1", "https://host/v1", "https://host/a/b"])
@pytest.mark.parametrize(
    "path",
    [
        "/v1%2Fmodels%2F@elsewhere.example/x",
        "/v1%2fmodels%2f@elsewhere.example:80",
        "/v1@elsewhere.example",
        "/v1.elsewhere.example/models",
        "/v1:80@elsewhere.example",
        "/v1",
    ],
)
def test_a_url_is_always_below_the_base(kind: str, base_url: str, path: str) -> None:
    """However a caller encodes the slashes: what is behind ``/v1`` never goes on with the name of the host."""
    url = provider(kind, base_url).url(path, "")
    assert url.startswith(f"{base_url}/")
    assert parse_url(url).netloc == parse_url(base_url).netloc


@pytest.mark.parametrize("path", ["", "@elsewhere.example", "%2Fv1", "v1/models"])
def test_what_is_no_path_makes_no_url(path: str) -> None:
    """It would be part of the host's name."""
    with pytest.raises(ValueError, match="no path below the base URL of 'p'"):
        provider("openai", "http://host").url(path, "")


@pytest.mark.parametrize(
    ("kind", "path", "route", "followed"),
    [
        ("anthropic", "/v1/messages", "/v1/messages", True),
        ("anthropic", "/v1/messages/count_tokens", "/v1/messages/count_tokens", False),
        ("anthropic", "/v1/models", "/v1/models", False),
        ("anthropic", "/v1/models/a/b", "/v1/models/*", False),
        ("anthropic", "/v1/messages/batches", "/v1/messages/batches", False),
        ("anthropic", "/v1/messages/batches/b/results", "/v1/messages/batches/{batch}/results", False),
        ("anthropic", "/v1/messages/x", None, False),
        ("anthropic", "/v1/files/f", "/v1/files/{file}", False),
        ("anthropic", "/v1/files/f/more", None, False),
        ("anthropic", "/api/event_logging/batch", "/api/event_logging/*", False),
        ("anthropic", "/api/event_logging/v2/batch", "/api/event_logging/*", False),
        ("anthropic", "/api/event_logging", None, False),
        ("anthropic", "/api/hello", None, False),
        ("anthropic", "/v1/chat/completions", None, False),
        ("anthropic", "/v1/organizations/me", None, False),
        ("openai", "/v1/chat/completions", "/v1/chat/completions", True),
        ("openai", "/v1/responses", "/v1/responses", True),
        ("openai", "/v1/responses/resp_1", "/v1/responses/{response}", False),
        ("openai", "/v1/responses/resp_1/cancel", "/v1/responses/{response}/cancel", False),
        ("openai", "/v1/responses/compact", "/v1/responses/compact", True),
        ("openai", "/v1/responses/input_tokens", "/v1/responses/input_tokens", False),
        ("openai", "/v1/responses/resp_1/novelty", "/v1/responses/*", False),
        ("openai", "/v1/conversations/c/items/i", "/v1/conversations/{conversation}/items/{item}", False),
        ("openai", "/v1/embeddings", "/v1/embeddings", False),
        ("openai", "/v1/models/x", "/v1/models/*", False),
        ("openai", "/v1/modelsx", None, False),
        ("openai", "/chat/completions", None, False),
        ("openai", "/v1/files", "/v1/files", False),
        ("openai", "/v1/batches/b/cancel", "/v1/batches/{batch}/cancel", False),
        ("openai", "/v1/uploads", None, False),
        ("openai", "/v1/fine_tuning/jobs", None, False),
        ("openai", "/v1/vector_stores", None, False),
        ("openai", "/v1/completions", None, False),
        ("openai", "/v1/organization/admin_api_keys", None, False),
        ("openai", "", None, False),
    ],
)
def test_only_listed_paths_are_routes(kind: str, path: str, route: str | None, followed: bool) -> None:
    """The host's key may do more than its callers should."""
    found = provider(kind).route(path)
    assert (found.path if found else None) == route
    assert bool(found and found.wire_format) is followed


def test_each_provider_carries_its_key_its_own_way() -> None:
    """As its own SDK does."""
    assert provider("anthropic").carry("sk-1") == {"X-Api-Key": "sk-1"}
    assert provider("openai").carry("sk-1") == {"Authorization": "Bearer sk-1"}


def test_the_vendors_own_service_needs_a_key() -> None:
    """A server of the host's own may do without."""
    assert provider("openai", keys=()).lacks_key
    assert not provider("openai").lacks_key
    assert not provider("openai", "http://127.0.0.1:1/v1", keys=()).lacks_key


def test_errors_have_the_providers_own_form() -> None:
    """What the SDKs look for is where they look for it."""
    assert provider("anthropic").error(413, "too large", "id1") == {
        "type": "error",
        "error": {"type": "request_too_large", "message": "too large"},
        "request_id": "id1",
    }
    assert provider("openai").error(502, "gone", "id1") == {
        "error": {"message": "gone", "type": "server_error", "param": None, "code": None}
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (ProviderSettings("Big", "openai", "http://h", ()), "name 'Big'"),
        (ProviderSettings("a/b", "openai", "http://h", ()), "name 'a/b'"),
        (ProviderSettings("p", "gopher", "http://h", ()), "types are anthropic, openai"),
        (ProviderSettings("p", "openai", "ftp://h", ()), "base_url"),
        (ProviderSettings("p", "openai", "http://u:pw@h", ()), "base_url"),
        (ProviderSettings("p", "openai", "http://h?a=b", ()), "base_url"),
        (ProviderSettings("p", "openai", "http://[", ()), "base_url"),
        (ProviderSettings("p", "openai", "http://h", ("sk-pw\n",)), "key of provider 'p'"),
        (ProviderSettings("p", "anthropic", "http://h", ("good", "sk pw")), "key of provider 'p'"),
        (ProviderSettings("p", "openai", "http://h", ("sk-pw\u2026",)), "key of provider 'p'"),
        (ProviderSettings("p", "openai", "http://h", ("",)), "key of provider 'p'"),
    ],
)
def test_providers_that_cannot_work_are_refused(settings: ProviderSettings, message: str) -> None:
    """With a sentence that names what is wrong and shows no secret."""
    with pytest.raises(ConfigError, match=message) as error:
        providers_from([settings])
    assert "pw" not in str(error.value)


def test_names_are_unique_and_types_may_repeat() -> None:
    """Several instances of one type are told apart by their names."""
    one, other = (ProviderSettings(name, "openai", "http://h", ()) for name in ("p", "q"))
    assert sorted(providers_from([one, other])) == ["p", "q"]
    with pytest.raises(ConfigError, match="two providers"):
        providers_from([one, one])


def test_every_type_of_the_configuration_is_there() -> None:
    """What the configuration allows, the bridge can do."""
    assert set(TYPES) == set(DEFAULT_BASE_URLS)
