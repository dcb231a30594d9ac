"""Which headers pass the bridge."""

from __future__ import annotations

import pytest

from flask_aibridge.bridge.headers import (
    ACTOR_ID,
    ACTOR_USERNAME,
    CREDENTIALS,
    HOP_BY_HOP,
    MAX_ACTOR,
    actor_headers,
    media_type,
    request_headers,
    response_headers,
)


def sent(**environ: str) -> dict[str, str]:
    return request_headers(environ)


def returned(*headers: tuple[str, str], status: int = 200) -> list[tuple[str, str]]:
    return response_headers([("Content-Type", "text/plain"), *headers], status)[1:]


def test_end_to_end_headers_go_on() -> None:
    """What the SDKs send about themselves and about the API reaches the provider."""
    headers = sent(
        HTTP_ANTHROPIC_VERSION="2023-06-01",
        HTTP_ANTHROPIC_BETA="a,b",
        HTTP_OPENAI_ORGANIZATION="org",
        HTTP_USER_AGENT="agent/1",
        HTTP_X_STAINLESS_LANG="python",
        HTTP_IDEMPOTENCY_KEY="i",
        CONTENT_TYPE="application/json",
    )
    assert headers == {
        "Anthropic-Version": "2023-06-01",
        "Anthropic-Beta": "a,b",
        "Openai-Organization": "org",
        "User-Agent": "agent/1",
        "X-Stainless-Lang": "python",
        "Idempotency-Key": "i",
        "Content-Type": "application/json",
        "Accept-Encoding": "identity",
    }


DROPPED = {
    *CREDENTIALS,
    *HOP_BY_HOP,
    "host",
    "content-length",
    "expect",
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-anything",
    "x-real-ip",
    "x-aibridge-interception-id",
    "x-aibridge-token",
    "x-aibridge-actor-id",
    "x-aibridge-actor-metadata-username",
    "cf-access-jwt-assertion",
    "x-amzn-oidc-data",
    "x-auth-request-access-token",
    "x-ms-token-aad-id-token",
    "x-ms-client-principal",
    "x-http-method-override",
    "x-method-override",
    "x-http-method",
    "x-original-url",
    "x-rewrite-url",
    "proxy",
}


@pytest.mark.parametrize("name", sorted(DROPPED))
def test_what_is_not_for_the_provider_stays(name: str) -> None:
    """Credentials, hop-by-hop headers, what tells of the caller's connection, what would change method or path."""
    environ = {"HTTP_" + name.upper().replace("-", "_"): "x"}
    assert set(request_headers(environ)) == {"User-Agent", "Accept-Encoding"}


@pytest.mark.parametrize(
    ("user", "name"),
    [
        ("alice", "alice"),
        ("alice+x@example.com", "alice+x@example.com"),
        ("Ana María", "Ana%20Mar%C3%ADa"),
        ("100%", "100%25"),
        ("a\r\nX: y", "a%0D%0AX:%20y"),
        ("\ud800", "?"),
    ],
)
def test_a_provider_may_be_told_on_whose_behalf_it_is_asked(user: str, name: str) -> None:
    """By names that can be had back, and that cannot become a header of their own."""
    assert actor_headers(user) == {ACTOR_ID: name, ACTOR_USERNAME: name}


def test_an_actor_is_short_or_nobody() -> None:
    """Nobody's calls tell of nobody; a name too long for a header is cut."""
    assert actor_headers(None) == actor_headers("") == {}
    assert actor_headers("x" * 10_000)[ACTOR_ID] == "x" * MAX_ACTOR


@pytest.mark.parametrize(
    "value", [f"aib_abcdefghijkl_{'S' * 43}", f"Basic aib_k1_{'x' * 20}=", f"a, aib_1_{'9' * 16}"]
)
def test_a_header_with_a_key_of_the_gateway_stays(value: str) -> None:
    """Whatever it is called: somebody has put the key into the wrong one."""
    assert sent(HTTP_X_CUSTOM=value, HTTP_X_OTHER="aib_is_what_keys_begin_with") == sent(
        HTTP_X_OTHER="aib_is_what_keys_begin_with"
    )


def test_headers_that_connection_names_are_hop_by_hop() -> None:
    """RFC 9110 section 7.6.1, in both directions."""
    assert "X-Private" not in sent(HTTP_CONNECTION="close, X-Private", HTTP_X_PRIVATE="1")
    assert returned(("Connection", "close, X-Private"), ("X-Private", "1")) == []


def test_no_compressed_answer_is_asked_for() -> None:
    """The bridge reads along, in errors even where nothing is followed."""
    assert sent(HTTP_ACCEPT_ENCODING="br")["Accept-Encoding"] == "identity"
    assert sent()["Accept-Encoding"] == "identity"


def test_what_the_provider_says_of_its_answer_comes_back() -> None:
    """Ids, rate limits, retry advice, doubled headers, the length."""
    kept = [
        ("request-id", "r"),
        ("Retry-After", "5"),
        ("x-ratelimit-remaining-tokens", "1"),
        ("X-Should-Retry", "false"),
        ("Link", "a"),
        ("Link", "b"),
        ("Content-Length", "7"),
        ("Content-Encoding", "gzip"),
    ]
    assert returned(*kept) == kept


@pytest.mark.parametrize(
    "name",
    [
        *sorted(HOP_BY_HOP),
        "Set-Cookie",
        "Strict-Transport-Security",
        "Alt-Svc",
        "Date",
        "Server",
        "Status",
        "Authorization",
        "X-Api-Key",
        "Location",
        "Content-Location",
        "Refresh",
        "Clear-Site-Data",
        "Access-Control-Allow-Origin",
        "Access-Control-Allow-Credentials",
        "X-Accel-Redirect",
        "X-Accel-Buffering",
        "X-Sendfile",
        "X-LIGHTTPD-send-file",
        "X-Reproxy-URL",
        "bad name",
        "1x",
        "x-",
    ],
)
def test_what_is_not_for_the_caller_stays(name: str) -> None:
    """Hop-by-hop headers, cookies, credentials, what speaks for the provider's host, what proxies in front of the
    application obey, what WSGI has no room for."""
    assert returned((name, "x")) == []


@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: b", "a\nb", "a\0b", "a\x7f"])
def test_a_header_with_control_characters_is_dropped(value: str) -> None:
    """A folded header would otherwise become two."""
    assert returned(("X-Folded", value)) == []


@pytest.mark.parametrize(
    "headers",
    [
        [("Content-Length", "2"), ("Transfer-Encoding", "chunked")],
        [("Content-Length", "-2")],
        [("Content-Length", "2, 3")],
        [("Content-Length", "")],
        [("Content-Length", "2"), ("Content-Length", "3")],
        [("Content-Length", "2"), ("content-length", "2")],
    ],
)
def test_a_length_that_does_not_hold_is_dropped(headers: list[tuple[str, str]]) -> None:
    """RFC 9112 section 6.3: a transfer coding overrides it, and it has to go before the answer goes on."""
    assert returned(*headers) == []


def test_an_answer_without_a_body_has_no_media_type_and_any_other_has_one() -> None:
    """``wsgiref.validate`` asks for both."""
    assert response_headers([("Content-Type", "text/plain"), ("Content-Length", "0")], 204) == []
    assert response_headers([], 200) == [("Content-Type", "application/octet-stream")]


def test_media_types_are_compared_without_parameters() -> None:
    """Neither case nor the charset matters."""
    assert media_type([("content-type", "Text/Event-Stream; charset=utf-8")]) == "text/event-stream"
    assert media_type([]) == ""
