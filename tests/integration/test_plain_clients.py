"""Clients that know nothing of LLMs, requests, urllib3 and curl: they get every byte, and see how an answer ends."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import urllib3

from tests.bridge.test_recordings import check
from tests.integration.replaying import ABOUT_A_KEY, API_KEY, DEADLINE, RECORDINGS, Endless, Host, pieces
from tests.recordings import Recording


class Got(NamedTuple):
    """What arrived: the status (0 where the client does not say), the bytes, and whether that was all."""

    status: int
    body: bytes
    is_whole: bool


Client = Callable[[Host, Recording], Got]

HEADERS = {"X-Api-Key": API_KEY, "Content-Type": "application/json", "User-Agent": "plain"}
ORIGIN = {"anthropic": "https://api.anthropic.com", "openai": "https://api.openai.com"}
ALL = [recording for recording in RECORDINGS.values() if recording.status not in ABOUT_A_KEY]
SOME = [
    RECORDINGS[name]
    for name in (
        "messages_simple_blocking",
        "messages_parallel_tools_interleaved",
        "messages_gzip_stream",
        "messages_stream_failure",
        "messages_cut_mid_stream",
        "messages_error_529",
        "chat_usage_not_asked_for",
        "responses_codex",
    )
]


def url_of(host: Host, recording: Recording, *, in_process: bool) -> str:
    _, provider, path = recording.path.split("/", 2)
    base = ORIGIN[provider] if in_process else f"{host.url}/api/v2/aibridge/{provider}"
    return f"{base}/{path}"


def by_urllib3(http: urllib3.PoolManager, url: str, recording: Recording) -> Got:
    answer = http.request(
        "POST",
        url,
        body=recording.request,
        headers=HEADERS,
        preload_content=False,
        decode_content=False,
        retries=False,
    )
    body = b""
    try:
        for chunk in answer.stream():
            body += chunk
    except urllib3.exceptions.ProtocolError:
        return Got(answer.status, body, False)
    finally:
        answer.close()
    return Got(answer.status, body, True)


def urllib3_public(host: Host, recording: Recording) -> Got:
    with urllib3.PoolManager() as http:
        return by_urllib3(http, url_of(host, recording, in_process=False), recording)


def urllib3_in_process(host: Host, recording: Recording) -> Got:
    provider = recording.path.split("/")[1]
    return by_urllib3(host.manager(provider), url_of(host, recording, in_process=True), recording)


def by_requests(session: Any, url: str, recording: Recording) -> Got:
    import requests

    body = b""
    with session.post(url, data=recording.request, headers=HEADERS, stream=True) as answer:
        try:
            for chunk in answer.raw.stream(decode_content=False):
                body += chunk
        except (urllib3.exceptions.ProtocolError, requests.exceptions.ChunkedEncodingError):
            return Got(answer.status_code, body, False)
        return Got(answer.status_code, body, True)


def requests_public(host: Host, recording: Recording) -> Got:
    requests = pytest.importorskip("requests")
    with requests.Session() as session:
        return by_requests(session, url_of(host, recording, in_process=False), recording)


def requests_in_process(host: Host, recording: Recording) -> Got:
    requests = pytest.importorskip("requests")
    from flask_aibridge.transport.requests import WSGIAdapter

    with requests.Session() as session:
        session.mount("https://", WSGIAdapter(host.manager(recording.path.split("/")[1])))
        return by_requests(session, url_of(host, recording, in_process=True), recording)


def curl(host: Host, recording: Recording) -> Got:
    """Its exit status 18 is a body that is not whole."""
    program = shutil.which("curl")
    if program is None:
        pytest.skip("there is no curl")
    command = [program, "-qsSN", url_of(host, recording, in_process=False), "--data-binary", "@-"]
    for name, value in HEADERS.items():
        command += ["-H", f"{name}: {value}"]
    done = subprocess.run(
        command, input=recording.request, capture_output=True, timeout=DEADLINE, check=False
    )
    assert done.returncode in (0, 18), done.stderr
    return Got(0, done.stdout, done.returncode == 0)


PAIRS = [
    *((client, recording) for client in (urllib3_public, urllib3_in_process) for recording in ALL),
    *((client, recording) for client in (requests_public, requests_in_process, curl) for recording in SOME),
]
"""Every recording by both doors, and some by every client."""


@pytest.fixture(scope="module")
def shared() -> Iterator[Host]:
    with Host() as host:
        yield host


@pytest.fixture
def host(shared: Host) -> Host:
    shared.forget()
    return shared


@pytest.mark.slow
@pytest.mark.parametrize(
    ("client", "recording"),
    [pytest.param(*pair, id=f"{pair[0].__name__}-{pair[1]}") for pair in PAIRS],
)
def test_a_plain_client(host: Host, client: Client, recording: Recording) -> None:
    """The status, every byte, how it ended; and the record says the same. An answer that is held back until it is
    whole, and never is, is an error of the bridge's own."""
    host.provider.play(recording)
    got = client(host, recording)
    if recording.is_cut and recording.media_type == "application/json":
        assert (got.status or 502, got.is_whole) == (502, True)
    else:
        assert got == (recording.status if got.status else 0, recording.relayed, not recording.is_cut)
    (told,) = host.witness.ended(1)
    check(recording, told.records)
    in_process = client.__name__.endswith("in_process")
    assert told.start.initiator == ("application" if in_process else "alice")
    assert (told.start.client, told.start.user_agent) == ("Unknown", "plain")
    (request,) = host.provider.requests
    assert request.body == recording.expected.get("sent", recording.request.decode()).encode()
    assert request.headers.get("x-api-key") != API_KEY


def test_urllib3_tries_again_itself(host: Host) -> None:
    """With a ``Retry`` of its own, in process as anywhere: each try is recorded."""
    host.provider.play("messages_error_503_empty")
    again = urllib3.Retry(1, status_forcelist=[503], allowed_methods=None, backoff_factor=0)
    question = json.loads(RECORDINGS["messages_simple_blocking"].request)
    url = f"{ORIGIN['anthropic']}/v1/messages"
    assert host.manager("anthropic").request("POST", url, json=question, retries=again).status == 200
    assert [told.end.status for told in host.witness.ended(2)] == ["upstream_error", "completed"]


@pytest.mark.parametrize("in_process", [False, True], ids=["public", "in_process"])
def test_urllib3_leaves_early(host: Host, in_process: bool) -> None:
    """Closing the answer ends the provider's, too; what was said by then is recorded."""
    recording = RECORDINGS["messages_simple_streaming"]
    answer = Endless(recording, 3)
    host.provider.play(answer)
    http = host.manager("anthropic") if in_process else urllib3.PoolManager()
    url = url_of(host, recording, in_process=in_process)
    got = http.request("POST", url, body=recording.request, headers=HEADERS, preload_content=False)
    assert next(got.stream()).startswith(pieces(recording.body)[0])
    got.close()
    (told,) = host.witness.ended(1)
    assert told.end.status == "client_closed"
    assert told.tokens is not None
    assert answer.left.wait(DEADLINE)
    http.clear()
