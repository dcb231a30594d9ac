"""What urllib3's face does where stock urllib3 would wait for ever, and what it tells its log."""

from __future__ import annotations

import itertools
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from flask_aibridge.transport import WSGIPoolManager, connection
from tests.transport.apps_faces import Answers, Faucet

TEXT = [("Content-Type", "text/plain")]
URL = "http://app.test/x"


class Endless:
    """Redirects once, with a page that never ends: bytes without pause, or a first few and then silence."""

    def __init__(self, *, silent: bool) -> None:
        self.silent = silent
        self.closed = threading.Event()

    def __call__(self, environ: Any, start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/there":
            start_response("200 OK", TEXT)
            return [b"there"]
        start_response("302 Found", [*TEXT, ("Location", "/there")])
        return self._page(environ["flask_aibridge.cancellation"])

    def _page(self, cancellation: Any) -> Iterator[bytes]:
        try:
            for _ in itertools.count():
                yield b"moved " * 1000
                if self.silent:
                    assert cancellation.wait(20)
        finally:
            self.closed.set()


@pytest.mark.parametrize("silent", [False, True])
def test_a_redirects_page_is_not_read_for_ever(silent: bool, monkeypatch: Any) -> None:
    """It is cut off at a bound, its app is told, and the redirect is followed."""
    monkeypatch.setattr(connection, "DRAIN_SECONDS", 0.2)
    app = Endless(silent=silent)
    assert WSGIPoolManager(app).request("GET", URL, preload_content=False).data == b"there"
    assert app.closed.wait(20)


def test_draining_lets_a_short_body_end() -> None:
    """Within the bound nothing is cancelled."""
    faucet = Faucet(b"first")
    response = WSGIPoolManager(faucet).request("GET", URL, preload_content=False)
    faucet.send(b"second")
    faucet.end()
    response.drain_conn()
    assert faucet.closed.wait(20)
    assert not faucet.cancelled.is_set()


@pytest.mark.parametrize("way", ["fast", "slow"])
def test_urllib3s_debug_log_has_each_request(way: str, caplog: pytest.LogCaptureFixture) -> None:
    """Whichever way it went."""
    caplog.set_level(logging.DEBUG, "urllib3.connectionpool")
    options: dict[str, Any] = {} if way == "fast" else {"enforce_content_length": True}
    WSGIPoolManager(Answers()).request("GET", URL, **options)
    lines = [record.getMessage() for record in caplog.records if record.name == "urllib3.connectionpool"]
    assert [line for line in lines if line.startswith('http://app.test:80 "GET /x HTTP/1.1" 200')] == lines


def test_write_after_the_end_is_an_error_of_the_apps() -> None:
    """PEP 3333: ``write()`` belongs to the call; what comes later reaches nobody."""
    kept: list[Any] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        kept.append(start_response("200 OK", TEXT))
        return [b"all"]

    assert WSGIPoolManager(app).request("GET", URL).data == b"all"
    with pytest.raises(AssertionError, match="after the response had ended"):
        kept[0](b"more")


def test_text_and_bytes_are_never_compared() -> None:
    """``python -bb`` makes that an error; urllib3 gives headers as text, httpx as bytes."""
    pytest.importorskip("httpx2")
    script = (
        "import httpx2\n"
        "from flask_aibridge.transport import WSGIPoolManager\n"
        "from flask_aibridge.transport.httpx2 import WSGITransport\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [('Content-Type', 'text/plain')])\n"
        "    return [b'ok']\n"
        "manager = WSGIPoolManager(app)\n"
        "headers = {'Accept': '*/*', 'Content-Type': 'text/plain', 'X-Own': 'value'}\n"
        "for _ in range(2):\n"
        "    assert manager.request('POST', 'http://a/', headers=headers, body=b'x').data == b'ok'\n"
        "    with httpx2.Client(transport=WSGITransport(manager)) as client:\n"
        "        assert client.post('http://a/', headers=headers, content=b'x').content == b'ok'\n"
    )
    done = subprocess.run(
        [sys.executable, "-bb", "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
