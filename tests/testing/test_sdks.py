"""The providers' own SDKs take the stand-in for a provider."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flask_aibridge.testing import AnswerWith, Served, StandInProvider, serve_stand_in

openai = pytest.importorskip("openai", minversion="3")
anthropic = pytest.importorskip("anthropic", minversion="2")

USER = [{"role": "user", "content": "Hi there"}]


@pytest.fixture
def served() -> Iterator[Served[StandInProvider]]:
    with serve_stand_in(StandInProvider(answer=["Hel", "lo"], keys=["sk-1"])) as served:
        yield served


def test_anthropic(served: Served[StandInProvider]) -> None:
    """Blocking, streamed, with the stream helper, counting tokens and listing models."""
    with anthropic.Anthropic(base_url=served.base_url, api_key="sk-1") as client:
        ask = {"model": "m", "max_tokens": 9, "messages": USER}
        assert client.messages.create(**ask).content[0].text == "Hello"
        kinds = [event.type for event in client.messages.create(**ask, stream=True)]
        assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")
        with client.messages.stream(**ask) as stream:
            assert list(stream.text_stream) == ["Hel", "lo"]
            message = stream.get_final_message()
        assert (message.usage.input_tokens, message.usage.output_tokens) == (2, 2)
        assert client.messages.count_tokens(model="m", messages=USER).input_tokens > 0
        assert [model.id for model in client.models.list()] == ["stand-in-large", "stand-in-small"]
        assert client.models.retrieve("x").id == "x"


def test_openai_chat_completions(served: Served[StandInProvider]) -> None:
    """Blocking, streamed with usage, and with the stream helper."""
    with openai.OpenAI(base_url=f"{served.base_url}/v1", api_key="sk-1") as client:
        ask = {"model": "m", "messages": USER}
        assert client.chat.completions.create(**ask).choices[0].message.content == "Hello"
        chunks = list(
            client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True})
        )
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == "Hello"
        assert chunks[-1].usage.total_tokens == 4
        with client.chat.completions.stream(**ask) as stream:
            assert list(stream)[-1].type == "content.done"
            assert stream.get_final_completion().choices[0].message.content == "Hello"
        assert [model.id for model in client.models.list()] == ["stand-in-large", "stand-in-small"]


def test_openai_responses(served: Served[StandInProvider]) -> None:
    """Blocking, streamed, and with the stream helper."""
    with openai.OpenAI(base_url=f"{served.base_url}/v1", api_key="sk-1") as client:
        assert client.responses.create(model="m", input="Hi there").output_text == "Hello"
        events = list(client.responses.create(model="m", input=USER, stream=True))
        assert [event.delta for event in events if event.type == "response.output_text.delta"] == [
            "Hel",
            "lo",
        ]
        with client.responses.stream(model="m", input="Hi there") as stream:
            assert [event.sequence_number for event in stream if hasattr(event, "sequence_number")]
            final = stream.get_final_response()
        assert (final.output_text, final.usage.input_tokens, final.usage.output_tokens) == ("Hello", 2, 2)


def test_errors_are_the_sdks_own(served: Served[StandInProvider]) -> None:
    """With message and request id where the SDKs look for them."""
    with anthropic.Anthropic(base_url=served.base_url, api_key="sk-2") as client:
        with pytest.raises(anthropic.AuthenticationError, match="invalid x-api-key") as error:
            client.models.list()
        assert error.value.request_id.startswith("req_")
    with openai.OpenAI(base_url=f"{served.base_url}/v1", api_key="sk-2") as client:
        with pytest.raises(openai.AuthenticationError, match="invalid x-api-key") as error:
            client.models.list()
        assert error.value.request_id.startswith("req_")


def test_a_scripted_overload_is_retried() -> None:
    """By the SDK, as the header allows."""
    failure = AnswerWith(529, headers={"retry-after-ms": "1"})
    with serve_stand_in(StandInProvider(answer="Hello", failures=[failure])) as served:
        with anthropic.Anthropic(base_url=served.base_url, api_key="x", max_retries=1) as client:
            assert client.messages.create(model="m", max_tokens=9, messages=USER).content[0].text == "Hello"
        assert len(served.stand_in.requests) == 2
