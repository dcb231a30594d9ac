"""PEP 3333, rule by rule (R1–R13): the environ, as an app gets it through urllib3."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pytest
from urllib3 import HTTPHeaderDict

from flask_aibridge.transport import Cancellation
from flask_aibridge.transport.urllib3 import WSGIConnectionPool
from tests.transport.calls import TEXT, URL, call, pool_for, quoted, seen_environ

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


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
    required = [
        "REQUEST_METHOD",
        "SCRIPT_NAME",
        "PATH_INFO",
        "QUERY_STRING",
        "SERVER_NAME",
        "SERVER_PORT",
        "SERVER_PROTOCOL",
    ]
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


def test_r11_errors_may_be_the_callers_own() -> None:
    """What the manager's ``environ`` says is merged in."""
    errors = io.StringIO()
    assert seen_environ(legal=False, options={"environ": {"wsgi.errors": errors}})["wsgi.errors"] is errors
