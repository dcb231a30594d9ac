"""The closed gate, as the providers' own SDKs see it: the sentence is in the exception, and nothing is tried again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from flask import Flask

from flask_aibridge.license.gate import Gate
from flask_aibridge.public_door import make_public_door
from flask_aibridge.testing import serve_stand_in

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

openai = pytest.importorskip("openai", minversion="3")
anthropic = pytest.importorskip("anthropic", minversion="2")

PREFIX = "/api/v2/aibridge"
SENTENCE = "AI Bridge is a licensed feature. "
USER = [{"role": "user", "content": "Hi there"}]


class Counted:
    """An app without a licence, and how often it was called."""

    def __init__(self, status: int) -> None:
        self.paths: list[str] = []
        self._app = Flask("host")
        self._app.register_blueprint(make_public_door(PREFIX, Gate(), lambda: None, refusal_status=status))

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        self.paths.append(environ["PATH_INFO"])
        return self._app(environ, start_response)


@pytest.fixture(params=[402, 403])
def status(request: pytest.FixtureRequest) -> int:
    value: int = request.param
    return value


@pytest.fixture
def closed(status: int) -> Iterator[tuple[Counted, str]]:
    """The app, and its address."""
    counted = Counted(status)
    with serve_stand_in(counted) as served:
        yield counted, f"{served.base_url}{PREFIX}"


@pytest.mark.parametrize("stream", [False, True])
def test_anthropics(closed: tuple[Counted, str], status: int, stream: bool) -> None:
    """One request, one exception; its body is the whole document."""
    counted, url = closed
    with (
        anthropic.Anthropic(api_key="k", base_url=f"{url}/anthropic", max_retries=5) as client,
        pytest.raises(anthropic.APIStatusError) as caught,
    ):
        client.messages.create(model="m", max_tokens=9, messages=USER, stream=stream)
    error: Any = caught.value
    assert len(counted.paths) == 1
    assert (error.status_code, isinstance(error, anthropic.PermissionDeniedError)) == (status, status == 403)
    assert SENTENCE in str(error)
    assert error.body["error"]["message"].startswith(SENTENCE)
    assert error.body["error"]["type"] == ("permission_error" if status == 403 else "billing_error")
    assert error.body["code"] == "license_required"


CALLS: dict[str, Callable[[Any], Any]] = {
    "chat": lambda client: client.chat.completions.create(model="m", messages=USER),
    "streamed chat": lambda client: client.chat.completions.create(model="m", messages=USER, stream=True),
    "responses": lambda client: client.responses.create(model="m", input="Hi"),
}


@pytest.mark.parametrize("call", CALLS)
def test_openais(closed: tuple[Counted, str], status: int, call: str) -> None:
    """One request, one exception, which knows the code."""
    counted, url = closed
    with (
        openai.OpenAI(api_key="k", base_url=f"{url}/openai/v1", max_retries=5) as client,
        pytest.raises(openai.APIStatusError) as caught,
    ):
        CALLS[call](client)
    error: Any = caught.value
    assert len(counted.paths) == 1
    assert (error.status_code, error.code) == (status, "license_required")
    assert SENTENCE in str(error)
    assert error.body["message"].startswith(SENTENCE)
