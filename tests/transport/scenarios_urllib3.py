"""Requests with the answers they get, to be made over a socket and in process: nobody should see a difference."""

from __future__ import annotations

import gzip
import io
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from urllib3 import HTTPHeaderDict, Retry
from urllib3.util import SKIP_HEADER

from tests.transport.apps_faces import Answers, Seen, raising

_TEXT = [("Content-Type", "text/plain")]
_LONG = b"0123456789" * 2000


@dataclass(frozen=True)
class Scenario:
    """``options`` makes the arguments of the request anew each time, since some can be used only once."""

    name: str
    method: str = "GET"
    target: str = "/ok"
    options: Callable[[], dict[str, Any]] = field(default=dict)
    body_of_answer: bool = True  # whether the words of the answer are the app's, not the server's own
    body_seen: bool = True  # whether all that the app may see of the body is settled


def _encoded(encoding: str, data: bytes) -> Any:
    return "200 OK", [*_TEXT, ("Content-Encoding", encoding)], [data[:5], data[5:]]


def _redirect(status: str, location: str) -> Any:
    return status, [*_TEXT, ("Location", location), ("Content-Length", "5")], [b"moved"]


def _echo_body(seen: Seen) -> Any:
    return "200 OK", _TEXT, [seen.body]


def answers() -> Answers:
    """The app behind all scenarios."""
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    app = Answers(
        echo=_echo_body,
        long=("200 OK", [*_TEXT, ("Content-Length", str(len(_LONG)))], [_LONG[:7000], _LONG[7000:]]),
        unframed=("200 OK", _TEXT, lambda: iter([b"one,", b"", b"two,", b"three"])),
        empty=("200 OK", _TEXT, []),
        teapot=("418 I'm a \xe4 teapot", _TEXT, [b"short and stout"]),
        reasonless=("299 ", _TEXT, [b"x"]),
        none=("204 No Content", [], []),
        unchanged=("304 Not Modified", [("ETag", '"1"')], []),
        missing=("404 Not Found", _TEXT, [b"not here"]),
        unavailable=("503 Service Unavailable", [*_TEXT, ("Retry-After", "0")], [b"later"]),
        limited=("429 Too Many Requests", [*_TEXT, ("Retry-After", "0")], [b"slower"]),
        broken=("500 Internal Server Error", _TEXT, [b"oops"]),
        cookies=(
            "200 OK",
            [*_TEXT, ("Set-Cookie", "a=1; Path=/"), ("Set-Cookie", "b=2"), ("X-One", "1"), ("x-one", "2")],
            [b"."],
        ),
        latin=("200 OK", [*_TEXT, ("X-Name", "na\xefve"), ("X-Padded", "  p"), ("X-Empty", "")], [b"."]),
        gzip=_encoded("gzip", gzip.compress(_LONG, mtime=0)),
        deflate=_encoded("deflate", zlib.compress(_LONG)),
        rawdeflate=_encoded("deflate", compressor.compress(_LONG) + compressor.flush()),
        notgzip=_encoded("gzip", b"this is no gzip"),
        halfgzip=_encoded("gzip", gzip.compress(_LONG, mtime=0)[:20]),
        toolong=("200 OK", [*_TEXT, ("Content-Length", "3")], [b"ab", b"cdef"]),
        tooshort=("200 OK", [*_TEXT, ("Content-Length", "9")], [b"abc"]),
        breaks=("200 OK", _TEXT, raising(RuntimeError("on purpose"), b"some", b"thing")),
        breakslate=(
            "200 OK",
            [*_TEXT, ("Content-Length", "20")],
            raising(RuntimeError("on purpose"), b"some"),
        ),
        never=("200 OK", _TEXT, raising(RuntimeError("on purpose"))),
    )
    for code, reason in (
        (301, "Moved"),
        (302, "Found"),
        (303, "See Other"),
        (307, "Temporary"),
        (308, "Permanent"),
    ):
        app.answers[f"/to/{code}"] = _redirect(f"{code} {reason}", "../echo?from=there")
    app.answers["/to/slash"] = _redirect("302 Found", "/ok#fragment")
    app.answers["/to/self"] = _redirect("302 Found", "/to/self")
    app.answers["/to/nowhere"] = ("302 Found", _TEXT, [b"no location"])
    app.answers["/to/endless"] = _redirect("302 Found", "/to/nowhere")
    return app


def _file(data: bytes, position: int = 0) -> Any:
    file = tempfile.TemporaryFile()  # noqa: SIM115 - whoever makes the request closes it
    file.write(data)
    file.seek(position)
    return file


def _parts(*parts: bytes | str) -> Iterator[bytes | str]:
    yield from parts


def _with(**options: Any) -> Callable[[], dict[str, Any]]:
    return lambda: dict(options)


def _body(make: Callable[[], Any], **options: Any) -> Callable[[], dict[str, Any]]:
    return lambda: {"body": make(), **options}


def _headers(**headers: Any) -> Callable[[], dict[str, Any]]:
    return lambda: {"headers": {name.replace("_", "-"): value for name, value in headers.items()}}


def _repeated() -> dict[str, Any]:
    headers = HTTPHeaderDict({"X-Many": "1", "Accept": "a/b"})
    headers.add("X-Many", "2")
    return {"headers": headers}


_once = _with(retries=False)

REQUESTS = [
    Scenario("plain"),
    Scenario("query", target="/ok?a=1&b=%20%26&c"),
    Scenario("query that is empty", target="/ok?"),
    Scenario("unicode", target="/ok/ä ö?q=ü"),
    Scenario("percent", target="/a%2fb%25c%C3%A9"),
    Scenario("dots", target="/a/./b/../c"),
    Scenario("fragment", target="/ok#part"),
    Scenario("double slash inside", target="/a//b"),
    Scenario("fields in the query", target="/ok", options=_with(fields={"a": "1 2", "ü": "&"})),
    Scenario("lower-case method", "post", "/echo", _with(body=b"x")),
    Scenario("unknown method", "PURGE"),
    Scenario("options", "OPTIONS"),
    Scenario("delete", "DELETE"),
    Scenario("post without a body", "POST", "/echo"),
    Scenario("patch without a body", "PATCH", "/echo"),
    Scenario("get with a body", "GET", "/echo", _with(body=b"hm")),
    Scenario("bytes", "POST", "/echo", _with(body=b"\0\xff")),
    Scenario("empty bytes", "POST", "/echo", _with(body=b"")),
    Scenario("text", "POST", "/echo", _with(body="gr\xfc\xdfe")),
    Scenario("bytearray", "PUT", "/echo", _body(lambda: bytearray(b"ab"))),
    Scenario("memoryview", "PUT", "/echo", _body(lambda: memoryview(b"abc")[1:])),
    Scenario("in-memory file", "POST", "/echo", _body(lambda: io.BytesIO(_LONG))),
    Scenario("text file", "POST", "/echo", _body(lambda: io.StringIO("gr\xfc\xdfe"))),
    Scenario("file", "POST", "/echo", _body(lambda: _file(_LONG))),
    Scenario("rest of a file", "POST", "/echo", _body(lambda: _file(b"0123456", 4))),
    Scenario("generator", "POST", "/echo", _body(lambda: _parts(b"one", b"", b"two"))),
    Scenario("generator of text", "POST", "/echo", _body(lambda: _parts("\xe9", b"two"))),
    Scenario("list", "POST", "/echo", _body(lambda: [b"one", b"two"])),
    Scenario("empty generator", "POST", "/echo", _body(_parts)),
    Scenario("json", "POST", "/echo", _with(json={"a": ["\xfc", None]})),
    Scenario("form", "POST", "/echo", _with(fields={"a": "b c"}, encode_multipart=False)),
    Scenario("multipart", "POST", "/echo",
             _with(fields={"f": ("n.txt", b"data"), "x": "y"}, multipart_boundary="bound")),
    Scenario("chunked bytes", "POST", "/echo", _with(body=b"abc", chunked=True)),
    Scenario("chunked file", "POST", "/echo", _body(lambda: io.BytesIO(b"abc"), chunked=True)),
    Scenario("own length", "POST", "/echo", _body(lambda: _parts(b"one", b"two"), headers={"Content-Length": "6"})),
    Scenario("own framing", "POST", "/echo", _body(lambda: _parts(b"one"), headers={"transfer-encoding": "chunked"})),
    Scenario("length of zero", "POST", "/echo", _headers(Content_Length="0")),
    Scenario("headers", options=_headers(X_A="1", Accept="x/y", Cookie="a=1; b=2", Content_Type="t/t", Expect="no")),
    Scenario("header values", options=_headers(X_Int=5, X_Bytes=b"\xe9", X_Latin="\xe9", X_Blank="", X_Tab="a\tb")),
    Scenario("repeated headers", options=_repeated),
    Scenario("own defaults", options=_headers(User_Agent="me", Accept_Encoding="gzip", Host="example.test:1")),
    Scenario("no user agent", options=_headers(User_Agent=SKIP_HEADER, Accept_Encoding=SKIP_HEADER)),
    Scenario("headers none", options=_with(headers=None)),
    Scenario("headers empty", options=_with(headers={})),
    Scenario("skipped in vain", options=_headers(X_Other=SKIP_HEADER)),
    Scenario("bad method", "G ET"),
    Scenario("bad method with a line", "GET\r\nX: y"),
    Scenario("injected value", options=_headers(X_A="1\r\nX-B: 2")),
    Scenario("injected bytes", options=_headers(X_A=b"1\nX-B: 2")),
    Scenario("injected name", options=_with(headers={"X-A: 1\r\nX-B": "2"})),
    Scenario("unencodable value", options=_headers(X_A="\u20ac")),
    Scenario("float value", options=_headers(X_A=1.5)),
    Scenario("body of a number", "POST", "/echo", _with(body=5)),
    Scenario("body of numbers", "POST", "/echo", _body(lambda: [b"a", object()], retries=False), body_seen=False),
]  # fmt: skip

ANSWERS = [
    Scenario("long", target="/long"),
    Scenario("unframed", target="/unframed"),
    Scenario("empty", target="/empty"),
    Scenario("teapot", target="/teapot"),
    Scenario("no reason", target="/reasonless"),
    Scenario("204", target="/none"),
    Scenario("304", target="/unchanged"),
    Scenario("head", "HEAD", "/long"),
    Scenario("head unframed", "HEAD", "/unframed"),
    Scenario("404", target="/missing"),
    Scenario("500", target="/broken"),
    Scenario("repeated headers", target="/cookies"),
    Scenario("latin-1 headers", target="/latin"),
    Scenario("gzip", target="/gzip"),
    Scenario("gzip undecoded", target="/gzip", options=_with(decode_content=False)),
    Scenario("deflate", target="/deflate"),
    Scenario("raw deflate", target="/rawdeflate"),
    Scenario("not gzip", target="/notgzip"),
    Scenario("half gzip", target="/halfgzip"),
    Scenario("too long", target="/toolong"),
    Scenario("too short", target="/tooshort", options=_once),
    Scenario("too short, retried", target="/tooshort", options=_with(retries=2)),
    Scenario("too short, posted", "POST", "/tooshort", _with(body=b"x", retries=2)),
    Scenario("breaks", target="/breaks", options=_once),
    Scenario("breaks, framed", target="/breakslate", options=_once),
    Scenario("raises", target="/never", body_of_answer=False),
    Scenario("unavailable", target="/unavailable", options=_with(retries=2)),
    Scenario("unavailable, posted", "POST", "/unavailable", _with(body=b"x", retries=2)),
    Scenario("limited, not raised", target="/limited", options=_with(retries=Retry(1, raise_on_status=False))),
    Scenario("limited, ignored", target="/limited", options=_with(retries=Retry(1, respect_retry_after_header=False))),
    Scenario("forced", target="/broken", options=_with(retries=Retry(2, status_forcelist=[500]))),
    Scenario("forced 200", target="/ok", options=_with(retries=Retry(2, status_forcelist=[200]))),
    Scenario("forced, posted", "POST", "/broken", _with(body=b"x", retries=Retry(2, status_forcelist=[500]))),
    Scenario("forced, posted, allowed", "POST", "/broken",
             _with(body=b"x", retries=Retry(2, status_forcelist=[500], allowed_methods=None))),
    *(Scenario(f"get to {code}", target=f"/to/{code}") for code in (301, 302, 303, 307, 308)),
    *(Scenario(f"post to {code}", "POST", f"/to/{code}", _with(body=b"kept", headers={"Content-Type": "a/b"}))
      for code in (301, 302, 303, 307, 308)),
    Scenario("put a file to 307", "PUT", "/to/307", _body(lambda: io.BytesIO(b"kept"))),
    Scenario("redirect to a slash", target="/to/slash"),
    Scenario("redirect without location", target="/to/nowhere"),
    Scenario("redirect to one without location", target="/to/endless"),
    Scenario("not redirected", target="/to/302", options=_with(redirect=False)),
    Scenario("not redirected by retries", target="/to/302", options=_once),
    Scenario("too many redirects", target="/to/self", options=_with(retries=2)),
    Scenario("too many redirects, not raised", target="/to/self",
             options=_with(retries=Retry(redirect=1, raise_on_redirect=False))),
    Scenario("read timeout of 0", options=_with(timeout=0, retries=False)),
    Scenario("bad timeout", options=_with(timeout=-1)),
    Scenario("bad timeout type", options=_with(timeout="soon")),
    Scenario("generous timeout", target="/long", options=_with(timeout=30)),
    Scenario("no timeout", target="/long", options=_with(timeout=None)),
]  # fmt: skip
