"""One contract for four faces: httpx and httpx2, sync and async."""

from __future__ import annotations

import asyncio
import gc
import gzip
import importlib
import io
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from wsgiref.validate import validator

import pytest

from flask_aibridge.transport import WSGIPoolManager
from tests.transport.apps_faces import Answers, Faucet, echo, raising, silent
from tests.transport.families import LIBRARIES, Client, Family, Opened

TEXT = [("Content-Type", "text/plain")]
URL = "https://app.test/x"


@pytest.fixture(params=[(name, kind) for name in LIBRARIES for kind in ("sync", "async")], ids="-".join)
def family(request: pytest.FixtureRequest) -> Family:
    name, kind = request.param
    return Family(name, kind == "async")


@pytest.fixture
def app() -> Answers:
    return Answers()


@pytest.fixture
def faucet() -> Iterator[Faucet]:
    faucet = Faucet()
    yield faucet
    faucet.end()


def _asked(family: Family, app: Any, method: str = "GET", url: str = URL, **options: Any) -> Any:
    """The response to one request, read."""

    async def main() -> Any:
        async with family.client(WSGIPoolManager(app)) as client:
            return await client.request(method, url, **options)

    return family.run(main)


def _failed(family: Family, error: str, app: Any, method: str = "GET", **options: Any) -> Any:
    """The library's own exception that one request gets."""
    with pytest.raises(getattr(family.library, error)) as caught:
        _asked(family, app, method, **options)
    assert caught.value.request.method == method
    return caught.value


# Requests


def test_the_request_as_the_app_sees_it(family: Family) -> None:
    """Method, path, query, host, scheme, headers and body."""
    seen = _asked(
        family,
        echo,
        "PATCH",
        "https://api.example.com:8443/a%2Fb/%C3%BC?q=%20&r",
        headers={"X-A": "1"},
        content=b"body",
    ).json()
    assert (seen["method"], seen["path"], seen["query"]) == ("PATCH", "/a/b/\xc3\xbc", "q=%20&r")
    assert (seen["scheme"], seen["server"]) == ("https", ["api.example.com", "8443"])
    headers = seen["headers"]
    assert (headers["HOST"], headers["X_A"], headers["CONTENT_LENGTH"]) == ("api.example.com:8443", "1", "4")
    assert seen["body"] == "body"


def test_repeated_request_headers_are_joined(family: Family) -> None:
    """As RFC 9110 has it."""
    seen = _asked(family, echo, headers=[("X-Many", "1"), ("X-Many", "2")]).json()
    assert seen["headers"]["X_MANY"] == "1,2"


@pytest.mark.parametrize("content", [b"", b"bytes", "gr\xfc\xdfe"])
def test_a_body_that_is_there(family: Family, content: Any) -> None:
    """Bytes or text."""
    seen = _asked(family, echo, "POST", content=content).json()
    data = content.encode() if isinstance(content, str) else content
    assert seen["body"].encode("latin-1") == data
    assert seen["headers"]["CONTENT_LENGTH"] == str(len(data))


def test_json_and_forms(family: Family) -> None:
    """As the library writes them."""
    seen = _asked(family, echo, "POST", json={"a": [1]}).json()
    assert (seen["headers"]["CONTENT_TYPE"], seen["body"]) == ("application/json", '{"a":[1]}')
    assert _asked(family, echo, "POST", data={"a": "b c"}).json()["body"] == "a=b+c"


def test_a_multipart_body(family: Family) -> None:
    """With a file in it."""
    seen = _asked(family, echo, "POST", files={"f": ("n.txt", io.BytesIO(b"data"))}, data={"x": "y"}).json()
    assert "multipart/form-data" in seen["headers"]["CONTENT_TYPE"]
    assert 'filename="n.txt"' in seen["body"]
    assert "data" in seen["body"]


def _generated(family: Family, *parts: bytes, raises: Exception | None = None) -> Any:
    def plain() -> Iterator[bytes]:
        yield from parts
        if raises is not None:
            raise raises

    async def awaited() -> AsyncIterator[bytes]:
        for part in plain():
            yield part

    return awaited() if family.is_async else plain()


def test_a_generated_body(family: Family) -> None:
    """Chunked, without the empty parts; larger than any buffer."""
    parts = [b"one", b"", *([b"x" * 50_000] * 5)]
    seen = _asked(family, echo, "POST", content=_generated(family, *parts)).json()
    assert seen["body"].encode() == b"".join(parts)
    assert "CONTENT_LENGTH" not in seen["headers"]
    assert seen["headers"]["TRANSFER_ENCODING"] == "chunked"


def test_a_generated_body_that_is_not_read(family: Family, app: Answers) -> None:
    """The app may answer without it."""

    def unread(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response("403 Forbidden", TEXT)
        return [b"no"]

    response = _asked(family, unread, "POST", content=_generated(family, *([b"x" * 70_000] * 5)))
    assert (response.status_code, response.content) == (403, b"no")


def test_a_generated_body_that_raises(family: Family) -> None:
    """Raises at the caller; the app, which was reading, is cancelled."""
    over = threading.Event()

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        environ["flask_aibridge.cancellation"].on_cancel(over.set)
        environ["wsgi.input"].read()
        raise AssertionError("read to the end")

    with pytest.raises(KeyError, match="mine"):
        _asked(family, app, "POST", content=_generated(family, b"a", raises=KeyError("mine")))
    assert over.wait(20)


def test_a_body_the_app_does_not_read_in_time(family: Family) -> None:
    """Is the library's ``WriteTimeout``."""
    timeout = family.library.Timeout(20, write=0.05)
    _failed(
        family, "WriteTimeout", silent(threading.Event()), "POST",
        content=_generated(family, *([b"x" * 70_000] * 3)), timeout=timeout,
    )  # fmt: skip


@pytest.mark.parametrize(
    "headers",
    [{"X-A": "1\r\nX-B: 2"}, {"X-A": "1\nX-B: 2"}, {"X-A": "1\0"}, {"X-A: 1\r\nX-B": "2"}, {"X A": "1"}],
)
def test_header_injection_is_refused(family: Family, app: Answers, headers: dict[str, str]) -> None:
    """By the library's ``LocalProtocolError``, as over a socket; the app is not called."""
    _failed(family, "LocalProtocolError", app, headers=headers)
    assert app.seen == []


def test_a_method_that_is_none(family: Family, app: Answers) -> None:
    """The same."""
    _failed(family, "LocalProtocolError", app, "G T")
    assert app.seen == []


# Responses


@pytest.mark.parametrize(
    "status", ["200 OK", "201 Created", "299 ", "404 Not Found", "418 I'm a \xe4 teapot", "503 Busy"]
)
def test_the_status(family: Family, app: Answers, status: str) -> None:
    """And the reason in the app's own words."""
    app.answers["/x"] = (status, TEXT, [b"body"])
    response = _asked(family, app)
    code, _, reason = status.partition(" ")
    assert (response.status_code, response.reason_phrase.encode("latin-1", "replace")) in [
        (int(code), reason.encode("latin-1")),
        (int(code), reason.encode("ascii", "ignore")),
    ]
    assert (response.content, response.http_version) == (b"body", "HTTP/1.1")


@pytest.mark.parametrize(
    ("method", "status"), [("HEAD", "200 OK"), ("GET", "204 No Content"), ("GET", "304 Not Modified")]
)
def test_an_answer_without_a_body(family: Family, app: Answers, method: str, status: str) -> None:
    """Has none, whatever the app sends."""
    app.answers["/x"] = (status, [], lambda: iter([b"ignored"]))
    response = _asked(family, app, method)
    assert (response.status_code, response.content) == (int(status[:3]), b"")


def test_repeated_response_headers(family: Family, app: Answers) -> None:
    """Stay apart, in order; cookies among them reach the jar."""
    app.answers["/x"] = (
        "200 OK",
        [*TEXT, ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("X", "\xe9")],
        [b"."],
    )
    response = _asked(family, app)
    assert response.headers.get_list("set-cookie") == ["a=1", "b=2"]
    assert dict(response.cookies) == {"a": "1", "b": "2"}
    assert (b"X", b"\xe9") in response.headers.raw


def test_a_compressed_body_is_decoded(family: Family, app: Answers) -> None:
    """By the library."""
    data = gzip.compress(b"text" * 1000)
    app.answers["/x"] = (
        "200 OK",
        [*TEXT, ("Content-Encoding", "gzip")],
        lambda: iter([data[:10], data[10:]]),
    )
    assert _asked(family, app).text == "text" * 1000


def test_a_validated_app(family: Family) -> None:
    """``wsgiref.validate`` has nothing to say."""
    assert _asked(family, validator(Answers()), "POST", content=b"x").text == "ok"


async def _collect(pieces: AsyncIterator[bytes], received: list[bytes]) -> None:
    async for piece in pieces:
        received.append(piece)  # noqa: PERF401 - those before an error count


async def _finish(opened: Opened, pieces: AsyncIterator[Any]) -> list[Any]:
    rest = [piece async for piece in pieces]
    await opened.close()
    return rest


@pytest.mark.parametrize("how", ["raw", "bytes", "text", "lines"])
def test_each_chunk_arrives_before_the_next_is_sent(family: Family, faucet: Faucet, how: str) -> None:
    """By every way of reading."""
    faucet = Faucet(b"first\n")

    async def main() -> None:
        async with family.client(WSGIPoolManager(faucet)) as client:
            opened = await client.stream("GET", URL)
            pieces = opened.iterate(how)
            for number in ("first", "2", "3", "4"):
                piece = await anext(pieces)
                text = piece if isinstance(piece, str) else piece.decode()
                assert text.rstrip("\n") == number
                faucet.send(f"{int(number) + 1 if number != 'first' else 2}\n".encode())
            faucet.end()
            assert [
                str(piece, "ascii") if isinstance(piece, bytes) else piece
                for piece in await _finish(opened, pieces)
            ]

    family.run(main)
    assert faucet.closed.wait(20)
    assert not faucet.cancelled.is_set()


def test_the_stream_is_of_the_librarys_own_type(family: Family, app: Answers) -> None:
    """Its clients insist on that."""
    kind = family.library.AsyncByteStream if family.is_async else family.library.SyncByteStream
    request = family.library.Request("GET", URL)

    async def main() -> Any:
        transport = family.transport(WSGIPoolManager(app))
        return (
            await transport.handle_async_request(request)
            if family.is_async
            else transport.handle_request(request)
        )

    assert isinstance(family.run(main).stream, kind)


def test_a_stream_goes_on_where_it_was_left(family: Family, faucet: Faucet) -> None:
    """A loop that stopped early may be followed by another: the SDKs drain what follows their last event."""

    async def main() -> list[bytes]:
        async with family.client(WSGIPoolManager(faucet)) as client:
            opened = await client.stream("GET", URL)
            pieces = opened.again()
            assert await anext(pieces) == b"first"
            await pieces.aclose() if hasattr(pieces, "aclose") else None
            faucet.send(b"second")
            faucet.end()
            return await _finish(opened, opened.again())

    assert b"".join(family.run(main)) == b"second"


def test_closing_early_cancels(family: Family, faucet: Faucet) -> None:
    """The app learns at once."""

    async def main() -> None:
        async with family.client(WSGIPoolManager(faucet)) as client:
            opened = await client.stream("GET", URL)
            assert await anext(opened.iterate("raw")) == b"first"
            await opened.close()
            assert await asyncio.to_thread(faucet.cancelled.wait, 20)
            assert await asyncio.to_thread(faucet.closed.wait, 20)  # by its own thread, and so a little later

    family.run(main)
    assert faucet.closes == 1


def test_giving_up_a_response_cancels(family: Family, faucet: Faucet) -> None:
    """The garbage collector closes it."""

    async def main() -> None:
        async with family.client(WSGIPoolManager(faucet)) as client:
            opened: Opened | None = await client.stream("GET", URL)
            assert opened is not None
            del opened
            gc.collect()
            assert await asyncio.to_thread(faucet.cancelled.wait, 20)

    family.run(main)


def test_a_slow_reader_holds_the_app(family: Family, faucet: Faucet) -> None:
    """After 64 KiB and one chunk; nothing is lost."""
    chunk = b"x" * 10_000
    faucet.send(*([chunk] * 30))
    faucet.end()

    async def main() -> bytes:
        async with family.client(WSGIPoolManager(faucet)) as client:
            opened = await client.stream("GET", URL)
            while faucet.taken < 7:
                await asyncio.sleep(0)
            for _ in range(200):
                await asyncio.sleep(0)
            assert faucet.taken <= 8
            return await opened.read()

    assert family.run(main) == b"first" + chunk * 30


# Timeouts and failures


def test_no_head_in_time(family: Family) -> None:
    """Is the library's ``ReadTimeout``; the app learns of it."""
    gave_up = threading.Event()
    _failed(family, "ReadTimeout", silent(gave_up), timeout=family.library.Timeout(20, read=0.05))
    assert gave_up.wait(20)


def test_silence_in_the_body(family: Family, faucet: Faucet) -> None:
    """Is one too, after what came before; it cancels the exchange."""

    async def main() -> None:
        async with family.client(WSGIPoolManager(faucet)) as client:
            opened = await client.stream("GET", URL, timeout=family.library.Timeout(20, read=0.05))
            pieces = opened.iterate("raw")
            assert await anext(pieces) == b"first"
            with pytest.raises(family.library.ReadTimeout):
                await anext(pieces)
            assert await asyncio.to_thread(faucet.cancelled.wait, 20)
            await opened.close()

    family.run(main)


@pytest.mark.parametrize("phase", ["connect", "pool"])
def test_no_free_call_in_time(family: Family, faucet: Faucet, phase: str) -> None:
    """Is a timeout of connecting, bounded by the connect as well as the pool timeout; the app is not called."""
    timeout = family.library.Timeout(6, **{phase: 0.05})
    manager = WSGIPoolManager(faucet, max_concurrency=1)

    async def main() -> None:
        async with family.client(manager) as client:
            opened = await client.stream("GET", URL)
            started = time.monotonic()
            with pytest.raises((family.library.ConnectTimeout, family.library.PoolTimeout)):
                await client.get(URL, timeout=timeout)
            assert time.monotonic() - started < 5
            assert faucet.calls == 1
            await opened.close()
            assert await asyncio.to_thread(faucet.closed.wait, 20)
            again = await client.stream("GET", URL)
            await again.close()

    family.run(main)
    assert faucet.calls == 2


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(1)])
def test_an_error_before_the_head_is_a_500(family: Family, app: Answers, error: BaseException) -> None:
    """Whatever the app raised."""
    app.answers["/x"] = ("200 OK", TEXT, raising(error))
    assert _asked(family, app).status_code == 500


@pytest.mark.parametrize(
    "answer",
    [
        ("200 OK", TEXT, raising(ValueError("x"), b"some")),
        ("200 OK", [*TEXT, ("Content-Length", "9")], [b"some"]),
    ],
)
def test_a_body_that_breaks_off(family: Family, app: Answers, answer: Any) -> None:
    """Is a ``RemoteProtocolError``, after every byte before it."""
    app.answers["/x"] = answer

    async def main() -> bytes:
        received: list[bytes] = []
        async with family.client(WSGIPoolManager(app)) as client:
            opened = await client.stream("GET", URL)
            with pytest.raises(family.library.RemoteProtocolError):
                await _collect(opened.iterate("raw"), received)
            await opened.close()
        return b"".join(received)

    assert family.run(main) == b"some"


def test_no_thread_left(family: Family, app: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is a ``ConnectError``: nothing was called."""

    def exhausted(_: Callable[[], object]) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("flask_aibridge.transport.workers.run", exhausted)
    _failed(family, "ConnectError", app)
    assert app.seen == []


# The client's own features


def test_redirects_cookies_auth_and_hooks(family: Family, app: Answers) -> None:
    """Work as with any transport; a redirect to another host stays in process."""
    location = ("Location", "https://elsewhere.test/y")
    app.answers["/x"] = ("302 Found", [*TEXT, location, ("Set-Cookie", "a=1")], [b""])
    told: list[str] = []

    async def main() -> Any:
        def plainly(one: Any) -> None:
            told.append(type(one).__name__)

        async def awaited(one: Any) -> None:
            plainly(one)

        hook = awaited if family.is_async else plainly
        hooks = {"request": [hook], "response": [hook]}
        client: Client
        async with family.client(
            WSGIPoolManager(app), follow_redirects=True, auth=("u", "p"), event_hooks=hooks
        ) as client:
            response = await client.get(URL)
            await client.get("https://app.test/z")
            return response

    response = family.run(main)
    assert (response.text, [one.status_code for one in response.history]) == ("ok", [302])
    first, second, third = app.seen
    assert first.headers["AUTHORIZATION"].startswith("Basic ")
    assert (second.headers["HOST"], "AUTHORIZATION" in second.headers) == ("elsewhere.test", False)
    assert third.headers["COOKIE"] == "a=1"
    assert told == ["Request", "Response"] * 3


def test_proxies_of_the_environment_do_not_apply(
    family: Family, app: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client with a transport asks nobody."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert _asked(family, app).text == "ok"


@pytest.mark.parametrize("wrong", [None, Answers(), "manager", object()])
def test_a_transport_takes_a_manager(family: Family, wrong: Any) -> None:
    """Nothing else; the error says what."""
    with pytest.raises(TypeError, match="WSGIPoolManager"):
        family.transport(wrong)


def test_a_repr_names_the_app(family: Family) -> None:
    """And the face."""
    assert "WSGITransport" in repr(family.transport(WSGIPoolManager(echo)))


@pytest.mark.parametrize("name", LIBRARIES)
def test_the_faces_import_nothing_of_each_other(name: str) -> None:
    """Each module needs its own library alone."""
    pytest.importorskip(name)
    module = importlib.import_module(f"flask_aibridge.transport.{name}")
    other = {"httpx": "httpx2", "httpx2": "httpx"}[name]
    assert not hasattr(module, other)
    assert module.WSGITransport.library.__name__ == name


@pytest.mark.parametrize("url", ["ftp://app.test/x", "/x"])
def test_a_url_that_is_not_http_is_refused(family: Family, app: Answers, url: str) -> None:
    with pytest.raises(family.library.UnsupportedProtocol, match="http://"):
        _asked(family, app, url=url)
    assert app.seen == []
