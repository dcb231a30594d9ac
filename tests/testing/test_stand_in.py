"""The stand-in provider: the providers' wire formats, byte by byte, and its scripted failures."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flask_aibridge.testing import AnswerWith, DropAfter, ErrorAfter, StandInProvider
from flask_aibridge.testing.stand_in import MAX_REQUESTS, MODELS, ConnectionDropped, introduce
from tests.bridge.wsgi import Reply, call

MESSAGES = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi there"}]}
CHAT = {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi there"}]}]}
RESPONSES = {"model": "m", "input": "Hi there"}
ALL = [("/v1/messages", MESSAGES), ("/v1/chat/completions", CHAT), ("/v1/responses", RESPONSES)]


def post(app: StandInProvider, path: str, body: Any, **options: Any) -> Reply:
    return call(app, "POST", path, body, **options)


def events(body: bytes) -> list[tuple[str, Any]]:
    """Split a stream whose every event is written the way the providers write it."""
    found = []
    for block in body.decode().removesuffix("\n\n").split("\n\n"):
        *names, data = block.split("\n")
        name = names[0].removeprefix("event: ") if names else ""
        text = data.removeprefix("data: ")
        found.append((name, text if text == "[DONE]" else json.loads(text)))
    return found


def test_messages_in_blocking_form() -> None:
    """A message with one block of text and its usage."""
    document = post(StandInProvider(answer=["Hel", "lo"]), "/v1/messages", MESSAGES).json
    assert document["content"] == [{"type": "text", "text": "Hello"}]
    assert (document["type"], document["role"], document["model"]) == ("message", "assistant", "m")
    assert document["stop_reason"] == "end_turn"
    assert (document["usage"]["input_tokens"], document["usage"]["output_tokens"]) == (2, 2)


def test_messages_in_streamed_form() -> None:
    """The documented order, each event named after its type."""
    reply = post(StandInProvider(answer=["Hel", "lo"]), "/v1/messages", MESSAGES | {"stream": True})
    stream = events(reply.body)
    assert [name for name, _ in stream] == [
        "message_start",
        "content_block_start",
        "ping",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert all(data["type"] == name for name, data in stream)
    assert stream[0][1]["message"]["usage"]["input_tokens"] == 2
    assert stream[6][1]["usage"] == {"output_tokens": 2}


@pytest.mark.parametrize(
    ("options", "usages"),
    [
        ({}, []),
        ({"stream_options": None}, []),
        ({"stream_options": {"include_usage": False}}, []),
        ({"stream_options": {"include_usage": True}}, [None, None, None, None, 4]),
    ],
)
def test_chat_completions_report_usage_only_if_asked(
    options: dict[str, Any], usages: list[int | None]
) -> None:
    """Then every chunk has a null, and one more, without choices, has the counts."""
    reply = post(
        StandInProvider(answer=["Hel", "lo"]), "/v1/chat/completions", CHAT | options | {"stream": True}
    )
    *chunks, (name, done) = events(reply.body)
    assert (name, done) == ("", "[DONE]")
    found = [data["usage"] and data["usage"]["total_tokens"] for _, data in chunks if "usage" in data]
    assert found == usages
    contents = [data["choices"][0]["delta"].get("content") for _, data in chunks[:4]]
    assert contents == ["", "Hel", "lo", None]
    assert chunks[3][1]["choices"][0]["finish_reason"] == "stop"
    assert [data["choices"] for _, data in chunks[4:]] == [[]] * bool(usages)


def test_responses_number_their_events() -> None:
    """The last one holds the whole response, with its usage."""
    stream = events(
        post(StandInProvider(answer=["Hel", "lo"]), "/v1/responses", RESPONSES | {"stream": True}).body
    )
    assert [data["sequence_number"] for _, data in stream] == list(range(len(stream)))
    assert stream[0][0] == "response.created"
    name, last = stream[-1]
    assert (name, last["response"]["status"]) == ("response.completed", "completed")
    assert last["response"]["output"][0]["content"][0]["text"] == "Hello"
    assert last["response"]["usage"]["total_tokens"] == 4


@pytest.mark.parametrize(
    ("path", "limited", "said"),
    [
        ("/v1/messages", MESSAGES | {"max_tokens": 1}, "max_tokens"),
        ("/v1/chat/completions", CHAT | {"max_completion_tokens": 1}, "length"),
        ("/v1/responses", RESPONSES | {"max_output_tokens": 1}, "max_output_tokens"),
    ],
)
def test_the_limit_on_tokens_is_kept(path: str, limited: dict[str, Any], said: str) -> None:
    """And the answer says that it was cut."""
    app = StandInProvider(answer=["first", "second"])
    for body in (post(app, path, limited).body, post(app, path, limited | {"stream": True}).body):
        assert b"first" in body
        assert b"second" not in body
        assert said.encode() in body


@pytest.mark.parametrize(("path", "question"), ALL)
def test_what_is_missing_is_a_400(path: str, question: dict[str, Any]) -> None:
    """In the API's own form, with the name of the field."""
    reply = post(StandInProvider(), path, question | {"model": None})
    assert (reply.status, reply.json["error"]["type"]) == (400, "invalid_request_error")
    assert "model: Field required" in reply.json["error"]["message"]
    assert post(StandInProvider(), path, question | {"model": 7}).status == 400
    assert post(StandInProvider(), path, b"{broken").status == 400
    assert post(StandInProvider(), path, []).status == 400


def test_keys_are_asked_for_if_there_are_any() -> None:
    """In either header; without ``keys`` anybody may ask."""
    app = StandInProvider(keys=["sk-1", "sk-2"])
    assert post(app, "/v1/messages", MESSAGES, headers={"X-Api-Key": "sk-2"}).status == 200
    assert post(app, "/v1/responses", RESPONSES, headers={"Authorization": "Bearer sk-1"}).status == 200
    assert post(app, "/v1/messages", MESSAGES).json["error"]["type"] == "authentication_error"
    assert post(app, "/v1/responses", RESPONSES, headers={"X-Api-Key": "sk-3"}).status == 401
    assert post(StandInProvider(keys=[]), "/v1/messages", MESSAGES, headers={"X-Api-Key": ""}).status == 401


def test_the_answer_may_be_made_of_the_prompt() -> None:
    """A callable gets the user's last words."""
    app = StandInProvider(answer=lambda prompt: [prompt.upper(), "!"])
    assert post(app, "/v1/messages", MESSAGES).json["content"][0]["text"] == "HI THERE!"


def test_the_default_answer_says_what_it_is() -> None:
    """Nobody should take it for a model's."""
    text = "".join(introduce("Hi\n there " * 50))
    assert "stand-in" in text
    assert "Hi there" in text
    assert len(text) < 300
    assert "You wrote" not in "".join(introduce(""))


def test_requests_are_remembered_without_showing_their_secrets() -> None:
    """What arrived, for assertions; the oldest go first."""
    app = StandInProvider()
    call(
        app,
        "POST",
        "/v1/messages?beta=true",
        MESSAGES,
        headers={"X-Api-Key": "sk-1", "Anthropic-Version": "1"},
    )
    (received,) = app.requests
    assert (received.method, received.path, received.query) == ("POST", "/v1/messages", "beta=true")
    assert received.headers["x-api-key"] == "sk-1"
    assert received.headers["content-type"] == "application/json"
    assert received.json == MESSAGES
    assert "sk-1" not in repr(app.requests)
    for _ in range(MAX_REQUESTS):
        call(app, "GET", "/v1/models")
    assert [one.path for one in app.requests] == ["/v1/models"] * MAX_REQUESTS


def test_a_scripted_status_stands_in_for_an_answer() -> None:
    """Failures are used up in order; ``None`` among them is none."""
    app = StandInProvider(
        failures=[AnswerWith(429, headers={"retry-after": "1"}), None, AnswerWith(500, b"oops")]
    )
    limited = post(app, "/v1/messages", MESSAGES)
    assert (limited.status, limited.json["error"]["type"]) == (429, "rate_limit_error")
    assert limited.headers["retry-after"] == "1"
    assert post(app, "/v1/messages", MESSAGES).status == 200
    assert post(app, "/v1/messages", MESSAGES).body == b"oops"
    assert post(app, "/v1/messages", MESSAGES).status == 200


@pytest.mark.parametrize(("path", "question"), ALL)
def test_a_scripted_drop(path: str, question: dict[str, Any]) -> None:
    """The server gets an exception after so many tokens, or after half of a blocking body."""
    app = StandInProvider(answer=["one", "two", "three"], failures=[DropAfter(2), None, DropAfter(0)])
    for stream in (True, False):
        reply = post(app, path, question | {"stream": stream})
        pieces: list[bytes] = []
        with pytest.raises(ConnectionDropped):
            pieces.extend(reply.iterator)
        reply.close()
        received, whole = b"".join(pieces), post(app, path, question | {"stream": stream}).body
        assert 0 < len(received) < len(whole)
        assert not stream or (b"two" in received and b"three" not in received)


@pytest.mark.parametrize(
    ("path", "question", "name"),
    [
        ("/v1/messages", MESSAGES, "error"),
        ("/v1/chat/completions", CHAT, ""),
        ("/v1/responses", RESPONSES, "error"),
    ],
)
def test_a_scripted_error_within_a_stream(path: str, question: dict[str, Any], name: str) -> None:
    """The API's error event is the last."""
    app = StandInProvider(answer=["one", "two"], failures=[ErrorAfter(1, "no more")])
    stream = events(post(app, path, question | {"stream": True}).body)
    assert stream[-1][0] == name
    assert "no more" in json.dumps(stream[-1][1])
    assert "two" not in json.dumps(stream)


def test_models_are_listed_in_the_form_of_the_api_that_asks() -> None:
    """The two share the path; Anthropic's clients send a version."""
    app = StandInProvider()
    openai = call(app, "GET", "/v1/models").json
    anthropic = call(app, "GET", "/v1/models", headers={"Anthropic-Version": "2023-06-01"}).json
    assert [model["id"] for model in openai["data"]] == [model["id"] for model in anthropic["data"]] == MODELS
    assert (openai["object"], anthropic["has_more"]) == ("list", False)
    assert call(app, "GET", "/v1/models/x").json["id"] == "x"


def test_other_paths_are_404() -> None:
    """As the providers answer them."""
    assert post(StandInProvider(), "/v1/else", {}).status == 404
    assert call(StandInProvider(), "GET", "/v1/messages").json["error"]["type"] == "not_found_error"
