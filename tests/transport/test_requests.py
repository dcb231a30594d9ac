"""``WSGIAdapter`` and what a ``requests.Session`` does with it."""

from __future__ import annotations

import base64
import copy
import gzip
import io
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.validate import validator

import pytest

requests = pytest.importorskip("requests")

from flask_aibridge.transport import WSGIPoolManager  # noqa: E402
from flask_aibridge.transport.requests import WSGIAdapter  # noqa: E402
from tests.transport.apps_faces import Answers, Faucet, echo, raising, silent  # noqa: E402

TEXT = [("Content-Type", "text/plain")]
URL = "https://app.test/x"


def session_for(app: Any, **options: Any) -> Any:
    session = requests.Session()
    adapter = WSGIAdapter(WSGIPoolManager(app, **options))
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


@pytest.fixture
def app() -> Answers:
    return Answers()


@pytest.fixture
def session(app: Answers) -> Iterator[Any]:
    with session_for(app) as session:
        yield session


@pytest.fixture
def faucet() -> Iterator[Faucet]:
    faucet = Faucet()
    yield faucet
    faucet.end()


@pytest.fixture
def streaming(faucet: Faucet) -> Iterator[Any]:
    with session_for(faucet) as session:
        yield session


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


# The session's own features


def test_cookies(app: Answers, session: Any) -> None:
    """Several in one answer; kept, sent back, and only where they belong."""
    app.answers["/x"] = (
        "200 OK",
        [*TEXT, ("Set-Cookie", "a=1; Path=/"), ("Set-Cookie", "b=2; Secure")],
        [b"."],
    )
    response = session.get(URL)
    assert response.cookies.get_dict() == {"a": "1", "b": "2"}
    session.get("https://app.test/y")
    assert app.last.headers["COOKIE"] == "a=1; b=2"
    session.get("http://app.test/y")
    assert app.last.headers["COOKIE"] == "a=1"
    session.get("https://other.test/y")
    assert "COOKIE" not in app.last.headers


def test_redirects_and_history(app: Answers, session: Any) -> None:
    """Followed in process, also to another host, where the credentials are left behind."""
    app.answers["/x"] = ("302 Found", [*TEXT, ("Location", "https://other.test/y?z")], [b"moved"])
    response = session.post(URL, data={"a": "b"}, auth=("user", "secret"))
    assert (response.url, response.text) == ("https://other.test/y?z", "ok")
    assert [(one.status_code, one.content) for one in response.history] == [(302, b"moved")]
    assert (app.last.method, app.last.query, app.last.headers["HOST"]) == ("GET", "z", "other.test")
    assert "AUTHORIZATION" not in app.last.headers


def test_a_307_sends_the_body_again(app: Answers, session: Any) -> None:
    """A file from its start."""
    app.answers["/x"] = ("307 Temporary", [*TEXT, ("Location", "/y")], [b""])
    session.post(URL, data=io.BytesIO(b"kept"))
    assert [(one.method, one.body) for one in app.seen] == [("POST", b"kept")] * 2


def test_too_many_redirects(app: Answers, session: Any) -> None:
    """requests' own error."""
    app.answers["/x"] = ("302 Found", [*TEXT, ("Location", "/x")], [b""])
    session.max_redirects = 3
    with pytest.raises(requests.TooManyRedirects):
        session.get(URL)


def test_authentication(app: Answers, session: Any) -> None:
    """Basic, and digest with its second request."""
    session.get(URL, auth=("user", "secret"))
    assert app.last.headers["AUTHORIZATION"].startswith("Basic ")
    challenge = ("WWW-Authenticate", 'Digest realm="r", nonce="n", qop="auth"')
    answers = iter([("401 Unauthorized", [*TEXT, challenge], [b"no"]), ("200 OK", TEXT, [b"yes"])])
    app.answers["/x"] = lambda seen: next(answers)
    assert session.get(URL, auth=requests.auth.HTTPDigestAuth("user", "secret")).text == "yes"
    assert app.last.headers["AUTHORIZATION"].startswith("Digest ")


def test_hooks(session: Any) -> None:
    """See the response."""
    seen: list[int] = []
    session.get(URL, hooks={"response": lambda response, **_: seen.append(response.status_code)})
    assert seen == [200]


@pytest.mark.parametrize(
    ("options", "body", "content_type"),
    [
        ({"data": b"bytes"}, b"bytes", None),
        ({"data": "gr\xfc\xdfe"}, "gr\xfc\xdfe".encode(), None),
        ({"data": {"a": "b c"}}, b"a=b+c", "application/x-www-form-urlencoded"),
        ({"json": {"a": 1}}, b'{"a": 1}', "application/json"),
        ({"data": io.BytesIO(b"file")}, b"file", None),
    ],
)
def test_bodies(
    app: Answers, session: Any, options: dict[str, Any], body: bytes, content_type: str | None
) -> None:
    """With their length."""
    session.post(URL, **options)
    assert (app.last.body, app.last.headers.get("CONTENT_TYPE")) == (body, content_type)
    assert app.last.headers["CONTENT_LENGTH"] == str(len(body))


def test_a_generated_body(app: Answers, session: Any) -> None:
    """Chunked."""
    session.post(URL, data=iter([b"one", b"two"]))
    assert app.last.body == b"onetwo"
    assert app.last.headers["TRANSFER_ENCODING"] == "chunked"


def test_files(app: Answers, session: Any) -> None:
    """As multipart."""
    session.post(URL, files={"f": ("n.txt", io.BytesIO(b"data"))}, data={"x": "y"})
    assert b'filename="n.txt"' in app.last.body
    assert app.last.headers["CONTENT_TYPE"].startswith("multipart/form-data")


def test_the_url_and_the_callers_request_stay_as_they_are(app: Answers) -> None:
    """Where the app is mounted is the app's affair."""
    with session_for(app, script_name="/mount", path_prefix="/provider") as session:
        prepared = session.prepare_request(requests.Request("GET", "https://api.example.com/v1/x?q=%20"))
        response = session.send(prepared)
    assert response.url == prepared.url == "https://api.example.com/v1/x?q=%20"
    environ = app.last.environ
    assert (environ["SCRIPT_NAME"], app.last.path, app.last.query) == ("/mount", "/provider/v1/x", "q=%20")


@pytest.mark.parametrize("url", ["https://app.test/x", "http://app.test/x", "https://[::1]:8/x"])
@pytest.mark.parametrize(
    "options", [{}, {"verify": False}, {"verify": "/nowhere.pem"}, {"cert": "/nowhere.pem"}]
)
def test_tls_settings_do_not_apply(session: Any, url: str, options: dict[str, Any]) -> None:
    """Nor do they warn."""
    assert session.get(url, **options).text == "ok"


def test_a_validated_app() -> None:
    """``wsgiref.validate`` has nothing to say."""
    with session_for(validator(echo)) as session:
        assert session.post(URL, data=b"x").json()["body"] == "x"


# The environment


@pytest.fixture
def with_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://user:pass@127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)


@pytest.mark.usefixtures("with_proxies")
@pytest.mark.parametrize("url", ["https://app.test/x?q", "http://app.test/x?q"])
def test_proxies_do_not_apply(app: Answers, session: Any, url: str) -> None:
    """Neither the environment's nor a request's own; their credentials are not sent, and the target is a path."""
    assert session.get(url).text == "ok"
    assert (
        session.get(url, proxies={"all": "socks5://127.0.0.1:9", "https": "http://u:p@127.0.0.1:9"}).text
        == "ok"
    )
    for seen in app.seen:
        assert (seen.path, seen.query, seen.environ["REQUEST_URI"]) == ("/x", "q", "/x?q")
        assert "PROXY_AUTHORIZATION" not in seen.headers


@pytest.fixture
def with_netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "netrc"
    path.write_text(
        "machine app.test login me password netrc-secret\ndefault login any password netrc-secret\n"
    )
    monkeypatch.setenv("NETRC", str(path))


@pytest.mark.usefixtures("with_netrc")
@pytest.mark.parametrize("options", [{}, {"headers": {"Authorization": "Bearer mine"}}])
@pytest.mark.parametrize("redirected", [False, True])
def test_netrc_does_not_apply(app: Answers, session: Any, options: dict[str, Any], redirected: bool) -> None:
    """A login that the environment has for a host of that name is not sent to an app in this process."""
    app.answers["/from"] = ("302 Found", [*TEXT, ("Location", "https://other.test/x")], [b""])
    session.get("https://app.test/from" if redirected else URL, **options)
    logins = [_basic(name, "netrc-secret") for name in ("me", "any")]
    assert not [seen.path for seen in app.seen if seen.headers.get("AUTHORIZATION") in logins]


@pytest.mark.usefixtures("with_netrc")
def test_a_session_without_netrc_keeps_the_callers_key(app: Answers, session: Any) -> None:
    """``trust_env = False``: requests would put a login of netrc in place of the header, before any adapter sees it."""
    session.trust_env = False
    session.get(URL, headers={"Authorization": "Bearer mine"})
    assert app.last.headers["AUTHORIZATION"] == "Bearer mine"


@pytest.mark.usefixtures("with_netrc")
def test_the_callers_own_login_is_sent(app: Answers, session: Any) -> None:
    """Whatever netrc has."""
    session.get(URL, auth=("user", "secret"))
    assert app.last.headers["AUTHORIZATION"] == _basic("user", "secret")


# Streaming


@pytest.mark.parametrize("how", ["content", "lines", "bytewise", "raw"])
def test_each_chunk_arrives_before_the_next_is_sent(how: str) -> None:
    """By every way of reading."""
    faucet = Faucet(b"1\n")
    with session_for(faucet) as session:
        response = session.get(URL, stream=True)
        ways: dict[str, Callable[[], Iterator[bytes]]] = {
            "content": lambda: response.iter_content(None),
            "lines": lambda: response.iter_lines(chunk_size=None),
            "bytewise": lambda: _lines(response.iter_content(1)),
            "raw": lambda: response.raw.stream(),
        }
        pieces = ways[how]()
        for number in range(1, 5):
            assert next(pieces).rstrip(b"\n") == str(number).encode()
            # iter_lines keeps the last line of a chunk until it sees what follows it
            faucet.send(str(number + 1).encode() + b"\n")
        faucet.end()
        assert [piece.rstrip(b"\n") for piece in pieces] == [b"5"]
    assert faucet.closed.wait(20)
    assert not faucet.cancelled.is_set()


def _lines(characters: Iterator[bytes]) -> Iterator[bytes]:
    line = b""
    for character in characters:
        line += character
        if character == b"\n":
            yield line
            line = b""


def test_iter_content_with_a_size_hands_out_what_has_arrived(streaming: Any, faucet: Faucet) -> None:
    """It does not wait to fill it."""
    response = streaming.get(URL, stream=True)
    pieces = response.iter_content(4096)
    assert next(pieces) == b"first"
    faucet.send(b"second")
    assert next(pieces) == b"second"
    response.close()


def test_closing_early_cancels(streaming: Any, faucet: Faucet) -> None:
    """By ``close()`` and by the ``with`` block."""
    with streaming.get(URL, stream=True) as response:
        assert next(response.iter_content(None)) == b"first"
    assert faucet.cancelled.wait(20)
    assert faucet.closed.wait(20)
    assert faucet.closes == 1


def test_a_stream_outlives_its_session(faucet: Faucet) -> None:
    """As with any adapter: closing the session forgets idle connections alone."""
    with session_for(faucet) as session:
        response = session.get(URL, stream=True)
    faucet.send(b" and last")
    faucet.end()
    assert response.content == b"first and last"


def test_a_compressed_stream(app: Answers, session: Any) -> None:
    """Is decoded; one that is not what it says is a ``ContentDecodingError``."""
    data = gzip.compress(b"text" * 1000)
    app.answers["/x"] = ("200 OK", [*TEXT, ("Content-Encoding", "gzip")], lambda: iter([data[:9], data[9:]]))
    assert b"".join(session.get(URL, stream=True).iter_content(None)) == b"text" * 1000
    app.answers["/x"] = ("200 OK", [*TEXT, ("Content-Encoding", "gzip")], lambda: iter([b"no gzip"]))
    with pytest.raises(requests.exceptions.ContentDecodingError):
        session.get(URL)


# Failures


@pytest.mark.parametrize("timeout", [0.05, (20, 0.05)])
def test_no_head_in_time(timeout: Any) -> None:
    """Is a ``ReadTimeout``, and the app learns of it."""
    gave_up = threading.Event()
    with session_for(silent(gave_up)) as session, pytest.raises(requests.ReadTimeout):
        session.get(URL, timeout=timeout)
    assert gave_up.wait(20)


def test_silence_in_the_body(streaming: Any, faucet: Faucet) -> None:
    """Is requests' ``ConnectionError``, as it maps it."""
    response = streaming.get(URL, stream=True, timeout=(20, 0.05))
    pieces = response.iter_content(None)
    assert next(pieces) == b"first"
    with pytest.raises(requests.ConnectionError, match="Read timed out"):
        next(pieces)
    assert faucet.cancelled.wait(20)


def test_no_free_call_in_time(faucet: Faucet) -> None:
    """Is a ``ConnectTimeout``; the app is not called."""
    with session_for(faucet, max_concurrency=1) as session:
        with session.get(URL, stream=True), pytest.raises(requests.ConnectTimeout):
            session.post(URL, timeout=(0.05, 20))
        assert faucet.closed.wait(20)
    assert faucet.calls == 1


@pytest.mark.parametrize(
    "answer",
    [
        ("200 OK", TEXT, raising(ValueError("x"), b"some")),
        ("200 OK", [*TEXT, ("Content-Length", "9")], [b"some"]),
    ],
)
def test_a_body_that_breaks_off(app: Answers, session: Any, answer: Any) -> None:
    """Is a ``ChunkedEncodingError``, after every byte before it."""
    app.answers["/x"] = answer
    received: list[bytes] = []
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        received.extend(session.get(URL, stream=True).iter_content(None))
    assert received == [b"some"]


def test_an_error_before_the_head_is_a_500(app: Answers, session: Any) -> None:
    """And ``raise_for_status`` says so."""
    app.answers["/x"] = ("200 OK", TEXT, raising(ValueError("x")))
    with pytest.raises(requests.HTTPError, match="500"):
        session.get(URL).raise_for_status()


def test_no_thread_left_is_a_connection_error(session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was called."""

    def exhausted(_: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("flask_aibridge.transport.workers.run", exhausted)
    with pytest.raises(requests.ConnectionError, match="can't start new thread"):
        session.get(URL)


def test_retries_of_the_adapter(app: Answers) -> None:
    """As for requests' own adapter."""
    from urllib3 import Retry

    answers = iter([("503 Busy", TEXT, [b"."]), ("200 OK", TEXT, [b"!"])])
    app.answers["/x"] = lambda seen: next(answers)
    session = requests.Session()
    session.mount("https://", WSGIAdapter(WSGIPoolManager(app), max_retries=Retry(1, status_forcelist=[503])))
    assert session.get(URL).text == "!"
    app.answers["/x"] = ("503 Busy", TEXT, [b"."])
    with pytest.raises(requests.exceptions.RetryError):
        session.get(URL)


def test_header_injection_is_refused(app: Answers, session: Any) -> None:
    """By requests itself, and below it by the transport."""
    with pytest.raises(requests.exceptions.InvalidHeader):
        session.get(URL, headers={"X-A": "1\r\nX-B: 2"})
    prepared = session.prepare_request(requests.Request("GET", URL))
    prepared.headers["X-A"] = "1\r\nX-B: 2"
    with pytest.raises(ValueError, match="X-A"):
        session.send(prepared)
    assert app.seen == []


# Pickling, copying, construction


def test_an_adapter_cannot_be_pickled(session: Any) -> None:
    """Nor a session with one; the error says what to do."""
    for thing in (session.get_adapter(URL), session):
        with pytest.raises(TypeError, match="Mount a new one"):
            pickle.dumps(thing)


@pytest.mark.parametrize("wrong", [None, echo, Answers(), "manager"])
def test_an_adapter_takes_a_manager(wrong: Any) -> None:
    """Nothing else; the error says what."""
    with pytest.raises(TypeError, match="WSGIPoolManager"):
        WSGIAdapter(wrong)


def test_an_adapter_cannot_be_copied_by_accident(session: Any) -> None:
    """``copy`` goes by way of pickling."""
    with pytest.raises(TypeError, match="Mount a new one"):
        copy.copy(session.get_adapter(URL))
