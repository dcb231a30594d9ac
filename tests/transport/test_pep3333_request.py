"""PEP 3333, rule by rule (R1–R20): the environ and ``wsgi.input``, as an app gets them through urllib3."""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from urllib3 import HTTPHeaderDict

from flask_aibridge.transport import Cancellation, WSGIPoolManager
from flask_aibridge.transport.urllib3 import WSGIConnectionPool
from tests.transport.calls import DEADLINE, TEXT, URL, call, pool_for, quoted, seen_environ, wait_for

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


def read_by(read: Callable[[Any], Any], body: Any, *, legal: bool = True, **request: Any) -> Any:
    """What ``read`` makes of the ``wsgi.input`` of a POST with this body, in the app."""
    results: list[Any] = []

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        results.append(read(environ["wsgi.input"]))
        start_response("200 OK", [TEXT])
        return []

    assert call(app, method="POST", body=body, legal=legal, **request).status == 200
    (result,) = results
    return result


def streamed(content: bytes, size: int = 3) -> Iterator[bytes]:
    """The content as a body of unknown length."""
    return (content[start : start + size] for start in range(0, len(content), size))


def test_r1_each_environ_is_a_new_plain_dict() -> None:
    """What an app does to its environ reaches neither the next request nor a redirected or retried one."""
    seen: list[dict[str, Any]] = []

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        assert type(environ) is dict
        seen.append(dict(environ))
        path = environ["PATH_INFO"]
        environ.clear()
        environ["HTTP_X_LEFT_OVER"] = "yes"
        status = {"/redirect": "302 Found", "/retry": "503 Busy"}.get(path, "200 OK")
        start_response(status, [TEXT, ("Location", "/done"), ("Retry-After", "0")])
        return []

    with pool_for(app, legal=False, environ={"my.key": 1}) as pool:
        assert pool.request("GET", URL + "/redirect").status == 200
        assert pool.request("GET", URL + "/retry", retries=2, redirect=False).status == 503
    assert len(seen) == 5
    for environ in seen:
        assert environ["my.key"] == 1
        assert "HTTP_X_LEFT_OVER" not in environ


def test_r2_values_have_the_types_of_cgi() -> None:
    environ = seen_environ("/a?b", method="POST", body=b"abc", headers={"X-Number": "1"})
    for key, value in environ.items():
        if "." not in key:
            assert type(key) is str
            assert type(value) is str
    assert environ["CONTENT_LENGTH"] == "3"
    assert environ["SERVER_PORT"] == "80"
    assert environ["wsgi.version"] == (1, 0)
    assert environ["wsgi.url_scheme"] == "http"


def test_r2_the_scheme_is_the_callers() -> None:
    """https needs no TLS and warns of nothing."""
    seen: list[Any] = []

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        seen.append((environ["wsgi.url_scheme"], environ["SERVER_PORT"]))
        start_response("200 OK", [TEXT])
        return []

    assert pool_for(app).request("GET", "https://app.test/").status == 200
    assert seen == [("https", "443")]


def test_r3_everything_required_is_there() -> None:
    environ = seen_environ()
    required = (
        ["REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "SERVER_NAME", "SERVER_PORT", "SERVER_PROTOCOL"]
    )
    wsgi = ["version", "url_scheme", "input", "errors", "multithread", "multiprocess", "run_once"]
    assert not {*required, *(f"wsgi.{name}" for name in wsgi)} - environ.keys()
    assert environ["QUERY_STRING"] == ""
    assert environ["REQUEST_METHOD"] == "GET"


@pytest.mark.parametrize("target", ["", "/", "/a", "?q"])
@pytest.mark.parametrize(
    ("script_name", "prefix"), [("", ""), ("/mount", ""), ("", "/p"), ("/mount/deep", "/p/q")]
)
def test_r4_script_name_and_path_info(script_name: str, prefix: str, target: str) -> None:
    """The mount point is configured, not cut off the path, so no segment is ever split."""
    environ = seen_environ(target, options={"script_name": script_name, "path_prefix": prefix})
    assert environ["SCRIPT_NAME"] == script_name
    assert environ["PATH_INFO"] == prefix + ("/a" if target == "/a" else "/")


@pytest.mark.parametrize("mount", ["/", "mount", "/mount/"])
def test_r4_a_mount_point_of_another_form_is_refused(mount: str) -> None:
    with pytest.raises(ValueError, match="script_name"):
        pool_for(lambda environ, start_response: [], script_name=mount)


@pytest.mark.parametrize(
    "path", [b"\xff\xfe", "é漢".encode(), "é".encode("latin-1"), b"a/b", b"a b%", b"\0\r\n"]
)
def test_r5_path_info_is_the_bytes_of_the_path(path: bytes) -> None:
    environ = seen_environ("/" + quoted(path))
    assert environ["PATH_INFO"] == "/" + path.decode("latin-1")
    assert environ["RAW_URI"] == environ["REQUEST_URI"] == "/" + quoted(path)


def test_r6_the_query_is_not_decoded_and_a_fragment_not_sent() -> None:
    environ = seen_environ("/a?b=%20%26&c=d?e#part")
    assert environ["QUERY_STRING"] == "b=%20%26&c=d?e"
    assert environ["REQUEST_URI"] == "/a?b=%20%26&c=d?e"


def test_r6_a_path_that_begins_with_two_slashes_is_a_path() -> None:
    environ = seen_environ("//other.test/a")
    assert environ["PATH_INFO"] == "//other.test/a"
    assert environ["HTTP_HOST"] == "app.test"


@pytest.mark.parametrize(
    ("url", "host", "name", "port"),
    [
        ("http://app.test/", "app.test", "app.test", "80"),
        ("http://app.test:80/", "app.test", "app.test", "80"),
        ("https://app.test:443/", "app.test", "app.test", "443"),
        ("http://app.test:8080/", "app.test:8080", "app.test", "8080"),
        ("http://[::1]:81/", "[::1]:81", "::1", "81"),
        ("http://user:secret@app.test/", "app.test", "app.test", "80"),
    ],
)
def test_r7_host_of_the_url(url: str, host: str, name: str, port: str) -> None:
    seen: list[Any] = []

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        seen.append((environ["HTTP_HOST"], environ["SERVER_NAME"], environ["SERVER_PORT"]))
        start_response("200 OK", [TEXT])
        return []

    assert pool_for(app).request("GET", url).status == 200
    assert seen == [(host, name, port)]


def test_r7_host_of_the_header_or_of_an_absolute_target() -> None:
    assert seen_environ(headers={"Host": "mine.test"})["HTTP_HOST"] == "mine.test"
    hosts: list[str] = []

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        hosts.append(environ["HTTP_HOST"] + environ["PATH_INFO"])
        start_response("200 OK", [TEXT])
        return []

    pool = pool_for(app).connection_from_url(URL)
    assert isinstance(pool, WSGIConnectionPool)
    connection = pool._new_conn()
    connection.request("GET", "http://other.test:81/a?b", headers={"Host": "mine.test"})
    assert connection.getresponse().status == 200
    assert hosts == ["other.test:81/a"]


def test_r8_headers() -> None:
    headers = HTTPHeaderDict({"Content-Type": "text/x", "X-One": "é", "X_Two": "forged", "Cookie": "a=1"})
    headers.add("X-Many", "1")
    headers.add("x-many", "2")
    headers.add("Cookie", "b=2")
    environ = seen_environ(method="POST", body=b"abc", headers=headers)
    assert (environ["CONTENT_TYPE"], environ["CONTENT_LENGTH"]) == ("text/x", "3")
    assert not {"HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH", "HTTP_X_TWO"} & environ.keys()
    assert environ["HTTP_X_ONE"] == "é"
    assert environ["HTTP_X_MANY"].replace(" ", "") == "1,2"
    assert environ["HTTP_COOKIE"] == "a=1; b=2"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Evil", "a\r\nX-Injected: 1"),
        ("X-Evil", "a\n b"),
        ("X-Evil", "\0"),
        ("X\r\nY", "1"),
        ("X Y", "1"),
        ("", "1"),
        ("X", "漢"),
    ],
)
def test_r8_a_header_that_could_not_be_sent_never_reaches_the_app(name: str, value: str) -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        raise AssertionError("called")

    with pytest.raises(ValueError):
        call(app, headers={name: value})


def test_r9_there_is_a_remote_address_and_a_server_software() -> None:
    environ = seen_environ(headers={"X-Forwarded-For": "192.0.2.1"})
    assert environ["REMOTE_ADDR"] == "127.0.0.1"
    assert environ["REMOTE_PORT"] == "0"
    assert environ["SERVER_SOFTWARE"]
    assert environ["HTTP_X_FORWARDED_FOR"] == "192.0.2.1"


def test_r10_the_app_is_told_that_it_runs_in_threads() -> None:
    environ = seen_environ()
    assert environ["wsgi.multithread"] is True
    assert environ["wsgi.multiprocess"] is False
    assert environ["wsgi.run_once"] is False


def test_r11_errors_is_a_text_stream_that_stays_open(capfd: pytest.CaptureFixture[str]) -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        errors = environ["wsgi.errors"]
        errors.write("one\n")
        errors.writelines(["two\n", "three é\n"])
        errors.flush()
        start_response("200 OK", [TEXT])
        return []

    pool = pool_for(app)
    for _ in range(2):
        assert pool.request("GET", URL).status == 200
    assert capfd.readouterr().err == "one\ntwo\nthree é\n" * 2


def test_r12_the_environment_of_the_process_stays_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.test")
    environ = seen_environ()
    assert not {"PATH", "HOME", "OPENAI_API_KEY", "HTTP_PROXY"} & environ.keys()


def test_r13_extension_keys() -> None:
    """Early hints are optional and not offered; connection headers go through, as real servers let them."""
    environ = seen_environ(
        headers={"Connection": "close", "TE": "trailers"}, options={"environ": {"my.key": 1}}
    )
    assert environ["wsgi.input_terminated"] is True
    assert callable(environ["wsgi.file_wrapper"])
    assert isinstance(environ["flask_aibridge.cancellation"], Cancellation)
    assert environ["my.key"] == 1
    assert environ["HTTP_CONNECTION"] == "close"
    assert environ["HTTP_TE"] == "trailers"
    assert "wsgi.early_hints" not in environ
    assert "flask_aibridge.source" not in environ


LINES = b"one\ntwo\n\nfour"


@pytest.mark.parametrize("body", [lambda: LINES, lambda: streamed(LINES), lambda: io.BytesIO(LINES)])
@pytest.mark.parametrize(
    ("read", "result"),
    [
        (lambda body: [body.read(5), body.read(100), body.read(1)], [LINES[:5], LINES[5:], b""]),
        (lambda body: [body.read(-1), body.read(-1)], [LINES, b""]),
        (lambda body: body.read(0), b""),
        (lambda body: [body.readline() for _ in range(6)], [b"one\n", b"two\n", b"\n", b"four", b"", b""]),
        (lambda body: [body.readline(2), body.readline(2), body.readline(9)], [b"on", b"e\n", b"two\n"]),
        (lambda body: body.readlines(), [b"one\n", b"two\n", b"\n", b"four"]),
        (lambda body: body.readlines(1), [b"one\n"]),
        (lambda body: list(body), [b"one\n", b"two\n", b"\n", b"four"]),
        (lambda body: [body.readline(), body.read(-1)], [b"one\n", LINES[4:]]),
    ],
)
def test_r14_input_has_the_methods_of_a_file(body: Callable[[], Any], read: Any, result: Any) -> None:
    assert read_by(read, body()) == result


@pytest.mark.parametrize("body", [lambda: LINES, lambda: streamed(LINES)])
def test_r14_input_may_be_read_without_arguments(body: Callable[[], Any]) -> None:
    """Which the validator refuses apps, but Werkzeug does."""
    assert read_by(lambda body: [body.read(), body.read()], body(), legal=False) == [LINES, b""]


@pytest.mark.parametrize("amount", [4, 3, 5, -1])
def test_r15_input_ends_at_the_content_length(amount: int) -> None:
    headers = {"Content-Length": "4"}
    assert (
        read_by(lambda body: body.read(amount), streamed(b"abcdefgh"), headers=headers)
        == b"abcd"[: amount % 6]
    )
    assert read_by(lambda body: body.read(amount), b"abcdefgh", headers=headers) == b"abcd"[: amount % 6]


@pytest.mark.parametrize(
    "body", [lambda: streamed(b"abc"), lambda: io.BytesIO(b"abc"), lambda: iter(["a", b"bc"])]
)
def test_r16_a_body_of_unknown_length_is_chunked(body: Callable[[], Any]) -> None:
    def read(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        seen.update(environ)
        start_response("200 OK", [TEXT])
        return [environ["wsgi.input"].read(-1)]

    seen: dict[str, Any] = {}
    assert call(read, method="POST", body=body()).data == b"abc"
    assert seen["HTTP_TRANSFER_ENCODING"] == "chunked"
    assert "CONTENT_LENGTH" not in seen
    assert seen["wsgi.input_terminated"] is True


def test_r17_transfer_encoding_wins_over_content_length() -> None:
    headers = {"Content-Length": "2", "Transfer-Encoding": "chunked"}
    environ = seen_environ(method="POST", body=b"abc", headers=headers)
    assert "CONTENT_LENGTH" not in environ
    assert read_by(lambda body: body.read(-1), b"abc", headers=headers) == b"abc"


@pytest.mark.parametrize("length", ["-1", "x", "", "9", "1,1"])
def test_r17_a_wrong_content_length_is_refused_before_the_app_is_called(length: str) -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        raise AssertionError("called")

    with pytest.raises(ValueError, match="Content-Length"):
        call(app, method="POST", body=b"abc", headers={"Content-Length": length})


@pytest.mark.parametrize("body", [lambda: b"x" * 1_000_000, lambda: streamed(b"x" * 1_000_000, 50_000)])
def test_r18_an_app_may_ignore_the_body(body: Callable[[], Any]) -> None:
    assert seen_environ(method="POST", body=body())["REQUEST_METHOD"] == "POST"


@pytest.mark.parametrize("body", [lambda: b"abc", lambda: streamed(b"abc"), lambda: None])
@pytest.mark.parametrize("method", ["read", "readline", "readlines", "__next__"])
def test_r18_input_fails_once_the_exchange_is_over(body: Callable[[], Any], method: str) -> None:
    kept: dict[str, Any] = {}

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        kept.update(environ)
        start_response("200 OK", [TEXT])
        return []

    assert call(app, method="POST", body=body(), legal=False).status == 200
    assert kept["flask_aibridge.cancellation"].wait(DEADLINE)
    with pytest.raises(OSError, match="over"):
        getattr(kept["wsgi.input"], method)()


def test_r19_an_expectation_is_passed_on_and_needs_no_answer() -> None:
    environ = seen_environ(method="POST", body=b"abc", headers={"Expect": "100-continue"})
    assert environ["HTTP_EXPECT"] == "100-continue"


def test_r20_a_lazy_body_is_produced_in_the_callers_thread_while_the_app_reads() -> None:
    """Not spooled: the second part is asked for when the app already has the first."""
    has_first, threads = threading.Event(), []

    def body() -> Iterator[bytes]:
        threads.append(threading.get_ident())
        yield b"one"
        wait_for(has_first)
        threads.append(threading.get_ident())
        yield b"two"

    def read(body: Any) -> bytes:
        first: bytes = body.read(3)
        has_first.set()
        return first + b"," + body.read(-1)

    assert read_by(read, body()) == b"one,two"
    assert threads == [threading.get_ident()] * 2


def test_r20_a_lazy_body_that_raises_fails_the_call_and_the_apps_read(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(Exception):
        pass

    failed = threading.Event()

    def body() -> Iterator[bytes]:
        yield b"one"
        raise Broken

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            environ["wsgi.input"].read(-1)
        except OSError:
            failed.set()
            raise
        start_response("200 OK", [TEXT])
        return []

    with pytest.raises(Broken):
        call(app, method="POST", body=body())
    wait_for(failed)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_r20_a_lazy_body_waits_for_an_app_that_does_not_read() -> None:
    """At most 64 KiB and one part run ahead of it."""
    sent: list[int] = []
    may_read = threading.Event()

    def body() -> Iterator[bytes]:
        for number in range(40):
            sent.append(number)
            yield b"x" * 8192

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        wait_for(may_read)
        start_response("200 OK", [TEXT])
        return [b"%d" % len(environ["wsgi.input"].read(-1))]

    answers: list[bytes] = []
    pool = WSGIPoolManager(app)
    caller = threading.Thread(target=lambda: answers.append(pool.request("POST", URL, body=body()).data))
    caller.start()
    caller.join(0.2)
    ahead = len(sent)
    may_read.set()
    caller.join(DEADLINE)
    assert answers == [b"%d" % (40 * 8192)]
    assert ahead <= 9
