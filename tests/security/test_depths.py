"""Documents that are deep, long, doubled or wrong: the bridge relays or refuses them, and management answers 400. None
of them is a failure inside, or a wait."""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flask_aibridge.testing import AnswerWith, StandInProvider, serve_stand_in
from tests.security.gateways import AS_ADMIN, KEY, PREFIX, gateway

pytestmark = pytest.mark.security

DEEP = 100_000
LONG_NUMBER = "9" * 50_000
ROUTES = {
    "messages": "/anthropic/v1/messages",
    "count_tokens": "/anthropic/v1/messages/count_tokens",
    "chat": "/openai/v1/chat/completions",
    "responses": "/openai/v1/responses",
    "embeddings": "/openai/v1/embeddings",
}


def nested(opened: str, closed: str, inside: str = "1", depth: int = DEEP) -> str:
    return opened * depth + inside + closed * depth


def with_message(content: str) -> str:
    message = f'{{"role": "user", "content": {content}}}'
    return f'{{"model": "m", "stream": true, "messages": [{message}], "input": {content}}}'


def tool_use(value: str) -> str:
    return f'[{{"type": "tool_use", "id": "t", "name": "n", "input": {value}}}]'


BODIES: dict[str, str] = {
    "deep list": nested("[", "]"),
    "deep object": nested('{"a":', "}"),
    "deep list that does not end": "[" * DEEP,
    "deep content": with_message(nested("[", "]")),
    "content as deep as can be read": with_message(nested("[", "]", depth=900)),
    "content objects as deep as can be read": with_message(nested('{"content":', "}", depth=450)),
    "deep tool input": with_message(tool_use(nested("[", "]", depth=900))),
    "a long number": f'{{"model": "m", "seed": {LONG_NUMBER}}}',
    "a long exponent": f'{{"model": "m", "max_tokens": 1e{LONG_NUMBER}, "seed": -1e400}}',
    "a long name": '{"model": "' + "m" * 1_000_000 + '"}',
    "a name that is none": '{"model": {"a": ["m"]}, "stream": "yes", "metadata": 5, "messages": {"role": 1}}',
    "many members": "{{{}}}".format(",".join(f'"k{number}":{number}' for number in range(100_000))),
    "one member many times": "{{{}}}".format(",".join(['"model":"m"'] * 100_000)),
    "many messages": '{{"model": "m", "messages": [{}]}}'.format(
        ",".join(['{"role":"user","content":"x"}'] * 50_000)
    ),
    "not a number": '{"model": "m", "temperature": NaN, "top_p": Infinity, "x": -Infinity}',
    "a lone surrogate": with_message('"\\ud800 \\udfff"'),
    "a NUL": with_message('"\\u0000"'),
    "an empty object": "{}",
    "a string": '"m"',
    "null": "null",
    "no JSON": "{",
    "nothing but space": " " * 1_000_000,
    "UTF-16": with_message('"x"').encode("utf-16").decode("latin-1"),
    "bytes that are no text": "\xff\xfe\xfa",
    "backslashes": '{"model": "' + "\\" * 999_999 + '"',
    "quotes": '"' * 999_999,
}


class Open(NamedTuple):
    """A gateway before a provider that takes whatever comes."""

    client: FlaskClient
    provider: StandInProvider


@pytest.fixture(scope="module")
def opened() -> Iterator[Open]:
    with serve_stand_in() as served, gateway(served.base_url, AIBRIDGE_SECRET_KEY="s" * 43) as app:
        yield Open(app.test_client(), served.stand_in)


@pytest.fixture
def failures(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What was logged as a failure of the bridge's own."""

    def found() -> list[str]:
        return [
            each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR or each.exc_info
        ]

    return found


@pytest.mark.parametrize("path", ROUTES.values(), ids=ROUTES)
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_request_is_relayed_or_refused(
    opened: Open, failures: Callable[[], list[str]], path: str, body: str
) -> None:
    """What the bridge cannot read is the provider's to judge, byte for byte."""
    data = body.encode("latin-1")
    before = len(opened.provider.requests)
    answer = opened.client.post(
        PREFIX + path, data=data, content_type="application/json", headers={"X-Api-Key": KEY}
    )
    answer.get_data()
    received = [each.body for each in opened.provider.requests[before:]]
    assert answer.status_code in (200, 400, 404, 413)
    assert failures() == []
    assert received in ([data], []) or "include_usage" in received[0].decode("latin-1")


def answered(
    body: bytes, path: str, *, stream: bool, headers: dict[str, str] | None = None
) -> tuple[int, bytes]:
    """What comes through of a provider's answer, whatever it is."""
    kind = "text/event-stream" if stream else "application/json"
    failure = AnswerWith(200, body, {"Content-Type": kind, **(headers or {})})
    with serve_stand_in(StandInProvider(failures=[failure])) as served, gateway(served.base_url) as app:
        asked = {
            "model": "m",
            "stream": stream,
            "max_tokens": 9,
            "messages": [{"role": "user", "content": "x"}],
            "input": "x",
        }
        answer = app.test_client().post(PREFIX + path, json=asked, headers={"X-Api-Key": KEY})
        return answer.status_code, answer.get_data()


ANSWERS = {
    "deep": '{{"usage": {}}}'.format(nested("[", "]")),
    "as deep as can be read": '{{"usage": {}, "content": {}}}'.format(
        nested("[", "]", depth=900), nested("[", "]", depth=900)
    ),
    "long numbers": f'{{"usage": {{"input_tokens": {LONG_NUMBER}, "prompt_tokens": 1e999, "output_tokens": -1}}}}',
    "wrong types": '{"usage": 5, "content": {"a": 1}, "choices": [5, {"message": []}], "output": [[], 1], "id": []}',
    "nothing": "",
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [ROUTES["messages"], ROUTES["chat"], ROUTES["responses"]])
@pytest.mark.parametrize("body", ANSWERS.values(), ids=ANSWERS)
def test_an_answer_is_relayed(failures: Callable[[], list[str]], stream: bool, path: str, body: str) -> None:
    """Byte for byte, though nothing can be read in it."""
    data = f"event: message_start\ndata: {body}\n\ndata: {body}\n\n".encode() if stream else body.encode()
    assert answered(data, path, stream=stream) == (200, data)
    assert failures() == []


BOMB = 90_000_000
"""Bytes that the bombs decode to: far more than the bridge may hold."""


@pytest.mark.parametrize("stream", [False, True])
def test_a_bomb_of_a_provider_is_not_unpacked(
    failures: Callable[[], list[str]], stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The compressed bytes pass as they came, and no more than a bound of them is decoded."""
    from flask_aibridge.bridge.intercept import decoding

    decoded: list[int] = []
    real = decoding._bounded

    def counting(pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in real(pieces):
            decoded.append(len(piece))
            yield piece

    monkeypatch.setattr(decoding, "_bounded", counting)
    inner = b"".join(gzip.compress(b" " * 30_000_000) for _ in range(BOMB // 30_000_000))
    status, body = answered(inner, ROUTES["messages"], stream=stream, headers={"Content-Encoding": "gzip"})
    assert (status, body) == (200, inner)
    assert sum(decoded) <= 2 * decoding.MAX_DECODED
    assert failures() == []


@pytest.mark.parametrize(
    "encoding", ["gzip", "gzip, gzip", "gzip, gzip, gzip", "gzip, identity, gzip", "nothing"]
)
@pytest.mark.parametrize("path", [ROUTES["messages"], ROUTES["count_tokens"]])
def test_a_bomb_of_a_client_is_not_unpacked(
    opened: Open, failures: Callable[[], list[str]], path: str, encoding: str
) -> None:
    """Its beginning is, up to the limit of a body; it does not reach the provider."""
    before = len(opened.provider.requests)
    data = gzip.compress(b" " * BOMB, 1)
    for _ in range(encoding.count("gzip") - 1):
        data = gzip.compress(data)
    headers = {"X-Api-Key": KEY, "Content-Encoding": encoding}
    answer = opened.client.post(PREFIX + path, data=data, content_type="application/json", headers=headers)
    assert answer.status_code in (413, 415)
    assert len(opened.provider.requests) == before
    assert failures() == []


MANAGEMENT = {
    "POST": ["/keys", f"/keys/{'a' * 12}/rotate"],
    "PUT": ["/providers/x", "/mcp/servers/x", "/mcp/servers/x/tokens/y"],
    "PATCH": ["/providers/anthropic"],
}


@pytest.mark.parametrize(
    ("method", "path"), [(method, path) for method, paths in MANAGEMENT.items() for path in paths]
)
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_management_body_is_a_problem(
    opened: Open, failures: Callable[[], list[str]], method: str, path: str, body: str
) -> None:
    """400, 404 or 413, with a code."""
    answer = opened.client.open(
        PREFIX + path,
        method=method,
        data=body.encode("latin-1"),
        content_type="application/json",
        headers=AS_ADMIN,
    )
    document: Any = answer.get_json(force=True)
    assert answer.status_code in (400, 404, 413), answer.text
    assert answer.mimetype == "application/problem+json"
    assert document["code"]
    assert failures() == []


LISTS = [
    "/interceptions",
    "/sessions",
    "/usage",
    "/models",
    "/clients",
    "/keys",
    "/providers",
    "/openapi.json",
]
QUERIES = [
    *(
        f"limit={LONG_NUMBER}",
        "limit=-1",
        "limit=1e9",
        "limit=0x10",
        "limit=%EF%BC%91",
        "limit=1_0",
        "limit=",
        "limit=1&limit=2",
    ),
    *(
        f"cursor={'x' * 4000}",
        "cursor=%00",
        "cursor=" + "%5B" * 2000,
        "cursor=..%2F..%2F",
        "cursor=null",
        "cursor=%ff",
    ),
    *(
        "started_after=99999-01-01T00:00:00Z",
        "started_after=-1",
        "since=1e400",
        "until=0001-01-01T00:00:00+23:59",
        "since=x",
    ),
    *(
        "initiator=" + "x" * 7000,
        "initiator=%00",
        "format=../../x",
        "group_by=" + "day," * 1000,
        "owner=%F0%28%8C%28",
        "a[b]=c",
    ),
    *("&" * 7000, "=" * 100, "%", "limit", "owner[]=x", "format=csv&limit=99999999999999999999"),
]


@pytest.mark.parametrize("path", LISTS)
def test_a_query_is_answered(opened: Open, failures: Callable[[], list[str]], path: str) -> None:
    """Or refused as 400, whatever it says."""
    for query in QUERIES:
        answer = opened.client.get(f"{PREFIX}{path}?{query}", headers=AS_ADMIN)
        assert answer.status_code in (200, 400, 403, 501, 503), (query, answer.text)
        assert failures() == []


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["user", "text", "tool_use", "m"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *(
                        "model",
                        "messages",
                        "role",
                        "content",
                        "type",
                        "text",
                        "stream",
                        "input",
                        "metadata",
                        "user_id",
                        "tools",
                        "name",
                    ),
                    *(
                        "stream_options",
                        "include_usage",
                        "tool_calls",
                        "function",
                        "arguments",
                        "system",
                        "id",
                        "usage",
                        "instructions",
                    ),
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(path=st.sampled_from([*ROUTES.values()]), document=JSON_VALUES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_document_is_relayed_or_refused(
    opened: Open, failures: Callable[[], list[str]], path: str, document: Any
) -> None:
    """However wrong the types in it are."""
    data = json.dumps(document).encode()
    headers = {"X-Api-Key": KEY, "User-Agent": "claude-cli/1", "X-Claude-Code-Session-Id": ""}
    answer = opened.client.post(PREFIX + path, data=data, content_type="application/json", headers=headers)
    answer.get_data()
    assert answer.status_code in (200, 400, 404)
    assert failures() == []


def test_thousands_of_headers_are_relayed_or_refused(opened: Open, failures: Callable[[], list[str]]) -> None:
    """A server in front bounds them; where none does, the provider's may."""
    headers = {f"X-Header-{number}": "x" * 100 for number in range(3_000)} | {"X-Api-Key": KEY}
    answer = opened.client.get(f"{PREFIX}/openai/v1/models", headers=headers)
    assert answer.status_code in (200, 400, 431, 502)
    assert failures() == []
