"""The environ of a request: what the caller asks for, as PEP 3333 spells it, or a refusal."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from typing import Any
from wsgiref import validate

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from flask_aibridge.transport.environ import Mount, Origin, environ_key, header_text
from tests.transport.calls import quoted, seen_environ, unquoted

# Where trouble would come from: what ends a line, what ends a header's name, what latin-1 or ASCII lacks.
_awkward = st.text("ab-_:;,% \t\r\n\0\x7f\x85é\u2028漢", max_size=12)
_names = st.one_of(st.text(max_size=8), _awkward, st.from_regex(r"[A-Za-z_-]{1,6}", fullmatch=True))
_values = st.one_of(st.text(max_size=20), _awkward)


def origin(script_name: str = "", path_prefix: str = "", extra: Mapping[str, Any] | None = None) -> Origin:
    return Mount(script_name, path_prefix, extra).origin("http", "app.test", None)


def build(target: str = "/", *headers: tuple[str, str], method: str = "GET") -> dict[str, Any]:
    return origin().environ(method, target, headers)


def assert_legal(environ: dict[str, Any]) -> None:
    """By the standard library's validator, and by what it does not look at."""
    validate.check_environ(  # type: ignore[attr-defined]  # public in all but its stub
        {**environ, "wsgi.input": io.BytesIO(), "wsgi.errors": sys.stderr}
    )
    for key, value in environ.items():
        assert type(key) is str
        if "." not in key:
            assert type(value) is str
            value.encode("latin-1")
            assert not set("\r\n\0") & set(key)
            assert key == "PATH_INFO" or not set("\r\n\0") & set(value)


@given(st.binary(max_size=40))
def test_any_bytes_of_a_path_survive(path: bytes) -> None:
    environ = build("/" + quoted(path))
    assert environ["PATH_INFO"].encode("latin-1") == b"/" + path
    assert unquoted(environ["REQUEST_URI"]) == b"/" + path


@given(st.binary(max_size=12))
def test_any_bytes_of_a_path_survive_urllib3(path: bytes) -> None:
    assume(path.strip(b"/."))
    assert seen_environ("/" + quoted(path))["PATH_INFO"].encode("latin-1") == b"/" + path


@given(st.lists(st.tuples(_names, _values), max_size=4))
def test_headers_give_a_legal_environ_or_a_value_error(headers: list[tuple[str, str]]) -> None:
    try:
        environ = build("/", *headers)
    except ValueError:
        return
    assert_legal(environ)


@given(_names, _values)
def test_one_header_arrives_as_it_is_or_is_refused(name: str, value: str) -> None:
    try:
        environ = build("/", (name, value))
    except ValueError:
        return
    assume(name.lower() not in ("host", "content-length", "content-type", "transfer-encoding"))
    key = "HTTP_" + name.upper().replace("-", "_")
    assert environ.get(key) == (None if "_" in name else value.strip(" \t"))


@given(_values)
def test_no_line_break_or_nul_passes_in_a_value(value: str) -> None:
    for evil in ("\r", "\n", "\0", "\r\n "):
        with pytest.raises(ValueError, match="X-Evil"):
            build("/", ("X-Evil", value + evil + value))


@given(st.one_of(st.text(max_size=20), _awkward))
def test_a_target_gives_a_legal_environ_or_a_value_error(target: str) -> None:
    try:
        environ = build(target)
    except ValueError:
        return
    assert_legal(environ)
    assert environ["QUERY_STRING"].isascii()


@given(st.one_of(st.text(max_size=8), _awkward))
def test_a_method_is_a_token_or_a_value_error(method: str) -> None:
    try:
        environ = build(method=method)
    except ValueError:
        return
    assert environ["REQUEST_METHOD"] == method
    assert method.isascii()
    assert method.isprintable()
    assert not set(' "(),/:;<=>?@[\\]{}') & set(method)


@given(st.lists(st.text("abc =", min_size=1, max_size=5), min_size=1, max_size=4))
def test_repeated_headers_are_joined_as_lists_and_cookies_as_pairs(values: list[str]) -> None:
    stripped = [value.strip() for value in values]
    environ = build("/", *(("X-Part", value) for value in values), *(("Cookie", value) for value in values))
    assert environ["HTTP_X_PART"] == ",".join(stripped)
    assert environ["HTTP_COOKIE"] == "; ".join(stripped)


def test_every_environ_is_a_new_dict() -> None:
    shared = origin(extra={"my.key": 1})
    first, second = (shared.environ("GET", "/", ()) for _ in range(2))
    assert type(first) is dict
    first.clear()
    assert second["my.key"] == 1
    assert shared.environ("GET", "/", ()) == second


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/", "/", ""),
        ("/a?b=%20c", "/a", "b=%20c"),
        ("/a?b?c", "/a", "b?c"),
        ("/a?", "/a", ""),
        ("/a#part", "/a", ""),
        ("/a?b#part?c", "/a", "b"),
        ("/a%2Fb%3F", "/a/b?", ""),
        ("/%zz%4", "/%zz%4", ""),
        ("//other.test/a", "//other.test/a", ""),
        ("/a//b/../c", "/a//b/../c", ""),
        ("?q", "/", "q"),
        ("*", "/", ""),
        ("http://other.test/a?b", "/a", "b"),
        ("http://other.test", "/", ""),
        ("http://other.test?q", "/", "q"),
    ],
)
def test_target(target: str, path: str, query: str) -> None:
    environ = build(target)
    assert (environ["PATH_INFO"], environ["QUERY_STRING"]) == (path, query)


def test_the_raw_target_is_kept_with_its_query_and_mount_point() -> None:
    environ = origin("/mount", "/prefix").environ("GET", "/a%2Fb?c=%26", ())
    assert environ["SCRIPT_NAME"] == "/mount"
    assert environ["PATH_INFO"] == "/prefix/a/b"
    assert environ["REQUEST_URI"] == environ["RAW_URI"] == "/mount/prefix/a%2Fb?c=%26"


@pytest.mark.parametrize(
    ("scheme", "host", "port", "header", "name", "number"),
    [
        ("http", "a.test", None, "a.test", "a.test", "80"),
        ("https", "a.test", None, "a.test", "a.test", "443"),
        ("http", "a.test", 80, "a.test", "a.test", "80"),
        ("https", "a.test", 443, "a.test", "a.test", "443"),
        ("http", "a.test", 443, "a.test:443", "a.test", "443"),
        ("https", "a.test", 8080, "a.test:8080", "a.test", "8080"),
        ("http", "::1", 81, "[::1]:81", "::1", "81"),
        ("http", "[::1]", None, "[::1]", "::1", "80"),
    ],
)
def test_host_and_port(scheme: str, host: str, port: int | None, header: str, name: str, number: str) -> None:
    environ = Mount().origin(scheme, host, port).environ("GET", "/", ())
    assert environ["HTTP_HOST"] == header
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == (name, number)
    assert environ["wsgi.url_scheme"] == scheme


def test_an_absolute_target_overrides_the_host_header_and_hides_credentials() -> None:
    environ = build("http://user:secret@other.test:81/a", ("Host", "mine.test"))
    assert environ["HTTP_HOST"] == "other.test:81"


def test_headers_with_underscores_are_left_out() -> None:
    environ = build("/", ("X_User", "forged"), ("X-User", "real"))
    assert environ["HTTP_X_USER"] == "real"
    assert environ_key("Content_Length") is None


def test_no_header_becomes_anything_but_an_http_key() -> None:
    environ = build("/", ("flask_aibridge.source", "x"), ("Flask-AIBridge.Source", "x"), ("wsgi.input", "x"))
    assert not [key for key in environ if key.startswith("flask_aibridge.")]
    assert "wsgi.input" not in environ
    assert environ["HTTP_FLASK_AIBRIDGE.SOURCE"] == "x"


def test_more_names_than_are_remembered_still_work() -> None:
    environ = build("/", *((f"X-Name-{number}", str(number)) for number in range(3000)))
    assert environ["HTTP_X_NAME_2999"] == "2999"


@pytest.mark.parametrize("length", ["-1", "+1", "1.0", "0x1", "", "one", "1,1", "\u00b2", "1 1"])
def test_a_content_length_that_is_no_number_is_refused(length: str) -> None:
    with pytest.raises(ValueError, match="Content-Length"):
        build("/", ("Content-Length", length))


def test_content_lengths_that_differ_are_refused_and_equal_ones_are_one() -> None:
    assert build("/", ("Content-Length", "3"), ("content-length", " 3 "))["CONTENT_LENGTH"] == "3"
    with pytest.raises(ValueError, match="two Content-Length"):
        build("/", ("Content-Length", "3"), ("Content-Length", "4"))


def test_transfer_encoding_overrides_content_length() -> None:
    environ = build("/", ("Content-Length", "3"), ("Transfer-Encoding", "chunked"))
    assert "CONTENT_LENGTH" not in environ
    assert environ["HTTP_TRANSFER_ENCODING"] == "chunked"


def test_header_text_takes_what_http_client_takes() -> None:
    assert [header_text(value) for value in ("é", b"\xe9", 3)] == ["é", "é", "3"]
    for wrong in (None, 1.5, ["a"]):
        with pytest.raises(TypeError, match="header"):
            header_text(wrong)


@pytest.mark.parametrize(
    "path", ["/", "x", "/x/", "/a b", "/a?b", "/a#b", "/a%2Fb", "/\u00e9", "/a\n", "\\a", "/a\\b"]
)
def test_a_mount_point_that_is_none_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="script_name"):
        Mount(script_name=path)
    with pytest.raises(ValueError, match="path_prefix"):
        Mount(path_prefix=path)


def test_what_is_merged_in_must_be_a_mapping_of_text() -> None:
    wrong: Any
    for wrong in ({1: 2}, {b"a": 1}):
        with pytest.raises(TypeError, match="key of environ"):
            Mount(extra=wrong)
    for wrong in ([("a", 1)], "text"):
        with pytest.raises(TypeError, match="mapping"):
            Mount(extra=wrong)
    for wrong in (None, b"/a"):
        with pytest.raises(TypeError, match="script_name"):
            Mount(script_name=wrong)


def test_what_is_merged_in_is_copied_once() -> None:
    extra = {"my.key": 1}
    mount = Mount(extra=extra)
    extra["my.key"] = 2
    assert mount.origin("http", "a.test", None).environ("GET", "/", ())["my.key"] == 1
