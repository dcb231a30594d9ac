"""Pure: the WSGI environ (PEP 3333) of a request that never saw a socket.

A :class:`Mount` says where an app is mounted; :meth:`Mount.origin` what is alike for all requests to a host;
:meth:`Origin.environ` builds the environ of one request, always a fresh plain ``dict``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import unquote_to_bytes

__all__ = ["Mount", "Origin", "header_text"]

# RFC 9110 section 5.6.2. Underscores are tokens, but see environ_key().
_is_token = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
# RFC 9110 section 5.5 (CR, LF, NUL) and PEP 3333 "Unicode Issues" (latin-1).
_illegal_in_value = re.compile("[\x00\r\n]|[^\x00-\xff]").search
# RFC 9112 section 3.2: what would end or split a request line.
_illegal_in_target = re.compile("[\x00-\x20\x7f]|[^\x00-\x7f]").search
# What separates a path segment or ends a path: none of it belongs in a mount point's configuration.
_illegal_in_mount = re.compile("[\x00-\x20\x7f?#%\\\\]|[^\x00-\x7f]").search

_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}

# Names seen so far → environ key. Bounded, since callers may invent names: past the bound a name is worked
# out anew.
_KNOWN_NAMES_MAX: Final = 1024
_known_names: dict[str, str | None] = {}


# Whole headers seen before, of the kinds that clients send with every request alike and that hold no secrets.
# Bounded in number and in length.
_REPEATED: Final = frozenset(
    (
        "HTTP_ACCEPT",
        "HTTP_ACCEPT_ENCODING",
        "HTTP_ANTHROPIC_VERSION",
        "HTTP_CONNECTION",
        "HTTP_HOST",
        "HTTP_USER_AGENT",
        "CONTENT_TYPE",
    )
)
_KNOWN_VALUE_MAX: Final = 128
# Text and bytes apart: they are never equal, and ``python -bb`` objects to asking.
_known_headers: dict[Any, tuple[str, str]] = {}
_known_raw_headers: dict[Any, tuple[str, str]] = {}


def environ_key(name: str) -> str | None:
    """The environ key of a header, or ``None`` for one that is left out because it has an underscore.

    ``X_User`` and ``X-User`` would share a key, so an underscore is a way to forge a header that a proxy
    sets; gunicorn, waitress and werkzeug leave such headers out as well. Raises :exc:`ValueError` for what is
    no token.
    """
    if not _is_token(name):
        raise ValueError(
            f"Invalid header name {name!r}: use letters, digits and hyphens (RFC 9110 section 5.1)."
        )
    key: str | None = name.upper().replace("-", "_")
    if "_" in name:
        key = None
    elif key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        key = f"HTTP_{key}"
    if len(_known_names) < _KNOWN_NAMES_MAX:
        _known_names[name] = key
    return key


def header_text(value: object) -> str:
    """A header's name or value as text: ``str``, latin-1 ``bytes`` or ``int``. Raises :exc:`TypeError` for
    others.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, int):
        return str(value)
    raise TypeError(f"A header must be str, bytes or int, not {type(value).__name__}.")


class Mount:
    """Where an app is mounted, and what every one of its environs holds.

    ``script_name`` is the mount point as the app sees it (``""`` or ``/x``); ``path_prefix`` is put before
    the path of every request; ``extra`` is merged into every environ. Raises :exc:`ValueError` and
    :exc:`TypeError`.
    """

    __slots__ = ("_fixed", "extra", "path_prefix", "script_name")

    def __init__(
        self, script_name: str = "", path_prefix: str = "", extra: Mapping[str, Any] | None = None
    ) -> None:
        self.script_name = _checked_path("script_name", script_name)
        self.path_prefix = _checked_path("path_prefix", path_prefix)
        self._fixed: dict[str, Any] = {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": self.script_name,
            "PATH_INFO": "/",
            "QUERY_STRING": "",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "SERVER_SOFTWARE": "Flask-AIBridge",
            "REMOTE_ADDR": "127.0.0.1",
            "REMOTE_PORT": "0",
            "wsgi.version": (1, 0),
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            "wsgi.input_terminated": True,
        }
        self.extra = _checked_extra(extra)

    def origin(self, scheme: str, host: str, port: int | None) -> Origin:
        """What is the same for every request to ``scheme://host:port``."""
        return Origin(self, scheme, host, port)

    def fixed(self) -> dict[str, Any]:
        """A new environ with what does not depend on the request."""
        return self._fixed.copy()


class Origin:
    """One scheme, host and port of a mount: builds the environ of each request to it."""

    __slots__ = ("_extra", "_fixed", "_host", "_prefix", "_script_name", "_server_host", "_server_port")

    def __init__(self, mount: Mount, scheme: str, host: str, port: int | None) -> None:
        self._extra = mount.extra
        self._prefix = mount.path_prefix
        self._script_name = mount.script_name
        default_port = _DEFAULT_PORTS.get(scheme, "80")
        server_port = default_port if port is None else str(port)
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        self._host = f"[{bare}]" if ":" in bare else bare
        if server_port != default_port:
            self._host += f":{server_port}"
        self._fixed = mount.fixed()
        self._fixed.update({"SERVER_NAME": bare, "SERVER_PORT": server_port, "wsgi.url_scheme": scheme})

    def environ(
        self, method: str, target: str, headers: Sequence[tuple[str, str]] | Sequence[tuple[bytes, bytes]]
    ) -> dict[str, Any]:
        """The environ of one request, but for ``wsgi.input`` and ``wsgi.errors``.

        ``target`` is the request target as it would stand in the request line: percent-encoded, with its
        query, in origin or absolute form. ``headers`` are pairs of text, or of latin-1 bytes; of repeated
        ones the values are joined as RFC 9110 section 5.3 says. Raises :exc:`ValueError` for a method,
        target, name or value that could not be sent.
        """
        if not _is_token(method):
            raise ValueError(f"Method cannot contain non-token characters {method!r} (RFC 9110 section 9.1).")
        target, host = self._split_target(target)
        path, _, query = target.partition("?")
        path = self._prefix + path
        environ = self._fixed.copy()
        environ["REQUEST_METHOD"] = method
        # PEP 3333 "Unicode Issues": the bytes of the path, each as one character.
        environ["PATH_INFO"] = unquote_to_bytes(path).decode("latin-1") if "%" in path else path
        environ["QUERY_STRING"] = query
        environ["REQUEST_URI"] = environ["RAW_URI"] = f"{self._script_name}{self._prefix}{target}"
        self._add_headers(environ, headers)
        if host is not None:
            environ["HTTP_HOST"] = host  # RFC 9112 section 3.2.2: an absolute target overrides the header
        elif "HTTP_HOST" not in environ:
            environ["HTTP_HOST"] = self._host
        environ.update(self._extra)
        return environ

    def _split_target(self, target: str) -> tuple[str, str | None]:
        if _illegal_in_target(target):
            raise ValueError(
                f"The URL must be percent-encoded ASCII without spaces or controls; it is {target!r}."
            )
        if target.startswith("/"):
            return target.partition("#")[0], None
        if target == "*":
            return "/", None
        scheme, separator, rest = target.partition("://")
        if not separator or not scheme.isalpha():
            return "/" + target.partition("#")[0], None
        rest = rest.partition("#")[0]
        at = min((i for i in (rest.find("/"), rest.find("?")) if i >= 0), default=len(rest))
        authority, path = rest[:at], rest[at:]
        return (path if path.startswith("/") else "/" + path), authority.rpartition("@")[2]

    @staticmethod
    def _add_headers(
        environ: dict[str, Any], headers: Sequence[tuple[str, str]] | Sequence[tuple[bytes, bytes]]
    ) -> None:
        known_headers = _known_raw_headers if headers and type(headers[0][0]) is bytes else _known_headers
        for header in headers:
            known = known_headers.get(header)
            if known is None:
                known = _checked_header(header)
                if known is None:
                    continue
            key, value = known
            environ[key] = value if key not in environ else _merged(key, environ[key], value)
        length = environ.get("CONTENT_LENGTH")
        if length is not None:
            if "HTTP_TRANSFER_ENCODING" in environ:
                del environ["CONTENT_LENGTH"]  # RFC 9112 section 6.3: Transfer-Encoding overrides it
            elif not (length.isascii() and length.isdigit()):
                raise ValueError(f"Content-Length must be a number of bytes, not {length!r}.")


def _checked_header(header: tuple[str, str] | tuple[bytes, bytes]) -> tuple[str, str] | None:
    """The environ key and value of a header, or ``None`` for one that is left out."""
    name, content = header
    text = name.decode("latin-1") if isinstance(name, bytes) else name
    key = _known_names[text] if text in _known_names else environ_key(text)
    value = content.decode("latin-1") if isinstance(content, bytes) else content
    if not (value.isascii() and value.isprintable()) and _illegal_in_value(value):
        raise ValueError(
            f"Invalid value of header {name!r}: it must be latin-1 text without CR, LF or NUL (RFC 9110 section 5.5)."
        )
    if key is None:
        return None
    if value[:1] in _BLANK or value[-1:] in _BLANK:
        value = value.strip(" \t")
    if key in _REPEATED and len(value) <= _KNOWN_VALUE_MAX:
        known_headers = _known_raw_headers if isinstance(name, bytes) else _known_headers
        if len(known_headers) < _KNOWN_NAMES_MAX:
            known_headers[header] = (key, value)
    return key, value


def _merged(key: str, first: str, second: str) -> str:
    """Two values of one header as one (RFC 9110 section 5.3; cookies: RFC 6265 section 5.4)."""
    if key == "CONTENT_LENGTH":
        if first != second:
            raise ValueError("The request has two Content-Length headers that differ; send one.")
        return first
    if key == "CONTENT_TYPE":
        return second
    return f"{first}; {second}" if key == "HTTP_COOKIE" else f"{first},{second}"


_BLANK: Final = ("", " ", "\t")


def _checked_path(name: str, path: str) -> str:
    if not isinstance(path, str):
        raise TypeError(f"{name} must be a str, not {type(path).__name__}.")
    if not path:
        return ""
    if not path.startswith("/") or path.endswith("/") or _illegal_in_mount(path):
        raise ValueError(
            f"{name} must be empty or like '/mount': it starts with a slash and ends without; it is {path!r}."
        )
    return path


def _checked_extra(extra: Mapping[str, Any] | None) -> dict[str, Any]:
    if extra is None:
        return {}
    if not isinstance(extra, Mapping):
        raise TypeError(f"environ must be a mapping or None, not {type(extra).__name__}.")
    for key in extra:
        if not isinstance(key, str):
            raise TypeError(f"Every key of environ must be a str; {key!r} is not.")
    return dict(extra)
