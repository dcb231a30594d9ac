"""boto3's client for Bedrock, unmodified: by the public door, and in process by the recipe of the documentation."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3

from flask_aibridge.transport import Source
from tests.integration.bedrock import BedrockBridge, frame
from tests.integration.replaying import PREFIX, Host

boto3 = pytest.importorskip("boto3")

from botocore import exceptions  # noqa: E402
from botocore.config import Config  # noqa: E402

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "clients.rst"
MODEL = "anthropic.claude-sonnet-5-5-v1:0"
QUESTION = [{"role": "user", "content": [{"text": "How are you?"}]}]
FAST = Config(retries={"mode": "standard", "total_max_attempts": 2}, connect_timeout=5, read_timeout=20)


@pytest.fixture(scope="module")
def shared() -> Iterator[Host]:
    with Host() as host:
        yield host


@pytest.fixture
def bedrock(shared: Host) -> BedrockBridge:
    """What the application has mounted, in the place of the built-in bridge."""
    bridge = BedrockBridge()
    shared.extension.register(bridge)
    return bridge


@pytest.fixture(params=["public", "in process"])
def client(
    request: pytest.FixtureRequest, shared: Host, bedrock: BedrockBridge, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """A client at one door."""
    monkeypatch.delenv("AWS_BEARER_TOKEN_BEDROCK", raising=False)
    options: dict[str, Any] = {"aws_access_key_id": "unused", "aws_secret_access_key": "unused"}
    if request.param == "public":
        options["endpoint_url"] = f"{shared.url}{PREFIX}/bedrock"
    client = boto3.client("bedrock-runtime", region_name="eu-central-1", config=FAST, **options)
    if request.param == "in process":
        client.meta.events.register("before-send.bedrock-runtime", documented_handler(shared))
    yield client
    client.close()


def documented_handler(host: Host) -> Callable[..., Any]:
    """The handler that the page shows."""
    block = re.search(
        r"   import boto3\n   import urllib3\n(?:.*\n)*?(?=   client = )", PAGE.read_text(encoding="utf-8")
    )
    assert block is not None
    names: dict[str, Any] = {"aibridge": host.extension, "Source": Source}
    exec(re.sub(r"^   ", "", block[0], flags=re.MULTILINE), names)
    handler: Callable[..., Any] = names["through_the_bridge"]
    return handler


def events_of(client: Any) -> Iterator[dict[str, Any]]:
    stream = client.converse_stream(modelId=MODEL, messages=QUESTION)["stream"]
    try:
        yield from stream
    finally:
        stream.close()


def test_converse(client: Any, bedrock: BedrockBridge) -> None:
    """The model's name arrives whole, with its colon; the answer has its usage."""
    answer = client.converse(modelId=MODEL, messages=QUESTION)
    assert answer["output"]["message"]["content"] == [{"text": "Hello"}]
    assert answer["usage"]["outputTokens"] == 2
    ((model, operation, body, environ),) = bedrock.requests
    assert (model, operation, body) == (MODEL, "converse", {"messages": QUESTION})
    assert environ["HTTP_AUTHORIZATION"].startswith("AWS4-HMAC-SHA256 ")
    assert environ["SCRIPT_NAME"] == PREFIX


def test_invoke_model(client: Any) -> None:
    """A body that is read as a file."""
    answer = client.invoke_model(modelId=MODEL, body=json.dumps({"messages": QUESTION}))
    assert json.load(answer["body"]) == {"content": [{"text": "Hello"}]}


def test_converse_stream(client: Any) -> None:
    """The binary event stream arrives untouched: each message's checksums are right."""
    events = list(events_of(client))
    words = [event["contentBlockDelta"]["delta"]["text"] for event in events if "contentBlockDelta" in event]
    assert words == ["Hel", "lo"]
    assert events[-1]["metadata"]["usage"]["outputTokens"] == 2


def test_messages_in_pieces(client: Any, bedrock: BedrockBridge) -> None:
    """Where one read ends and the next begins says nothing."""
    whole = b"".join(bedrock.stream)
    bedrock.stream = [whole[place : place + 7] for place in range(0, len(whole), 7)]
    assert len(list(events_of(client))) == 6


def test_a_stream_that_breaks_off(client: Any, bedrock: BedrockBridge) -> None:
    """Is an error, after what was said before it."""
    bedrock.drop_after = 2
    events = events_of(client)
    assert "messageStart" in next(events)
    assert next(events)["contentBlockDelta"]["delta"]["text"] == "Hel"
    with pytest.raises((exceptions.HTTPClientError, urllib3.exceptions.ProtocolError)):
        next(events)


def test_an_error_in_the_stream(client: Any, bedrock: BedrockBridge) -> None:
    """Is botocore's, with the message."""
    bedrock.stream[2:] = [frame("throttlingException", {"message": "slow down"}, "exception")]
    with pytest.raises(exceptions.EventStreamError, match="slow down"):
        list(events_of(client))


def test_leaving_early(client: Any, bedrock: BedrockBridge) -> None:
    """Is no error to anybody, and the client can be used again."""
    events = events_of(client)
    assert "messageStart" in next(events)
    events.close()  # type: ignore[attr-defined]
    assert client.converse(modelId=MODEL, messages=QUESTION)["stopReason"] == "end_turn"


def test_boto3_tries_again_itself(
    client: Any, bedrock: BedrockBridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, as it was configured; a refusal that stays is its ``ThrottlingException``."""
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0)
    bedrock.refuse_with = [429]
    assert client.converse(modelId=MODEL, messages=QUESTION)["stopReason"] == "end_turn"
    assert len(bedrock.requests) == 2
    bedrock.refuse_with = [429, 429]
    with pytest.raises(client.exceptions.ThrottlingException, match="slow down"):
        client.converse(modelId=MODEL, messages=QUESTION)
    assert len(bedrock.requests) == 4
