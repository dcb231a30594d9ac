"""Pure: the forms of ``AIBRIDGE_REDIS_URL``, and what they say.

::

    redis://[user:password@]host[:6379][/database]
    unix://[user:password@]/path/of/the/socket[?db=0]
    redis+sentinel://[user:password@]host[:26379][,host…]/service[/database]
    redis+cluster://[user:password@]host[:6379][,host…]

``rediss`` in place of ``redis`` is TLS. User and password are the data nodes', percent-encoded where they hold anything
but letters and digits; what the Sentinels want is in ``sentinel_username`` and ``sentinel_password`` of the query.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal, NoReturn, TypeAlias
from urllib.parse import parse_qsl, unquote, urlsplit

from flask_aibridge.errors import ConfigError

Kind: TypeAlias = Literal["tcp", "unix", "sentinel", "cluster"]

SCHEMES: Final[Mapping[str, tuple[Kind, bool]]] = MappingProxyType(
    {
        "redis": ("tcp", False),
        "rediss": ("tcp", True),
        "unix": ("unix", False),
        "redis+sentinel": ("sentinel", False),
        "rediss+sentinel": ("sentinel", True),
        "redis+cluster": ("cluster", False),
        "rediss+cluster": ("cluster", True),
    }
)
"""What each scheme means: how servers are found, and whether by TLS."""

OPTIONS: Final = (
    "db",
    "sentinel_password",
    "sentinel_username",
    "ssl_ca_certs",
    "ssl_cert_reqs",
    "ssl_certfile",
    "ssl_check_hostname",
    "ssl_keyfile",
)
"""What the query may hold: redis-py's own names."""

PORT: Final = 6379
SENTINEL_PORT: Final = 26379

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisAddress:
    """Where Redis is and how to get in. Its text has no credentials."""

    kind: Kind
    nodes: tuple[tuple[str, int], ...] = ()
    path: str = ""
    service: str = ""
    database: int = 0
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    options: Mapping[str, str] = field(default_factory=lambda: _NOTHING, repr=False)

    @property
    def is_cluster(self) -> bool:
        """Whether what one script touches has to be in one slot."""
        return self.kind == "cluster"

    def __str__(self) -> str:
        if self.kind == "unix":
            return f"unix://{self.path}"
        scheme = "rediss" if self.tls else "redis"
        nodes = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.nodes)
        suffix = "" if self.kind == "tcp" else f"+{self.kind}"
        return f"{scheme}{suffix}://{nodes}" + (f"/{self.service}" if self.service else "")


def parse_redis_url(url: str) -> RedisAddress:
    """Where a URL points.

    :raises ConfigError: for a URL of no known form; the message never repeats its credentials.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        _refuse("it is not a URL")
    if parts.scheme not in SCHEMES:
        _refuse(f"its scheme is none of {', '.join(SCHEMES)}")
    kind, tls = SCHEMES[parts.scheme]
    options = _options(parts.query)
    credentials, _, hosts = parts.netloc.rpartition("@")
    username, password = _credentials(credentials)
    if kind == "unix":
        path, service, database = _socket(hosts, parts.path), "", _database(options.get("db", ""))
    else:
        path = ""
        service, database = _service_and_database(kind, parts.path, options.get("db", ""))
    return RedisAddress(
        kind=kind,
        nodes=() if kind == "unix" else _nodes(hosts, SENTINEL_PORT if kind == "sentinel" else PORT),
        path=path,
        service=service,
        database=database,
        username=username,
        password=password,
        tls=tls,
        options=MappingProxyType(options),
    )


def _refuse(why: str) -> NoReturn:
    raise ConfigError(
        f"AIBRIDGE_REDIS_URL cannot be used: {why}. It looks like redis://host:6379/0, unix:///path/of/the/socket, "
        "redis+sentinel://host:26379,host:26379/service or redis+cluster://host:6379,host:6379; see the "
        "configuration reference."
    )


def _options(query: str) -> dict[str, str]:
    try:
        options = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
    except ValueError:
        _refuse("what follows its ? is not name=value&name=value")
    unknown = sorted(set(options) - set(OPTIONS))
    if unknown:
        _refuse(f"after its ? stands something that is none of {', '.join(OPTIONS)}")
    return options


def _credentials(text: str) -> tuple[str | None, str | None]:
    username, _, password = text.partition(":")
    return unquote(username) or None, unquote(password) or None


def _socket(host: str, path: str) -> str:
    if host or not path.startswith("/") or path == "/":
        _refuse("after unix:// stands an absolute path, so there are three slashes")
    return unquote(path)


def _nodes(hosts: str, default_port: int) -> tuple[tuple[str, int], ...]:
    return tuple(_node(each.strip(), default_port) for each in hosts.split(","))


def _node(text: str, default_port: int) -> tuple[str, int]:
    """A host and its port; an IPv6 address stands in brackets."""
    bracketed, host, port = text.startswith("["), text, ""
    if bracketed:
        host, closing, port = text[1:].partition("]")
        if not closing or (port and not port.startswith(":")):
            _refuse("an IPv6 address stands in brackets: [::1]:6379")
        port = port[1:]
    elif ":" in text:
        host, _, port = text.partition(":")
    if not host:
        _refuse("a host is missing")
    if not port:
        return unquote(host), default_port
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        _refuse("a port is no number from 1 to 65535")
    return unquote(host), int(port)


def _service_and_database(kind: Kind, path: str, option: str) -> tuple[str, int]:
    segments = [unquote(segment) for segment in path.strip("/").split("/")] if path.strip("/") else []
    service = ""
    if kind == "sentinel":
        if not segments:
            _refuse("with Sentinel its path begins with the name of the service")
        service = segments.pop(0)
    if len(segments) > 1:
        _refuse("its path is too long")
    database = _database(segments[0] if segments else option)
    if kind == "cluster" and database:
        _refuse("a cluster has one database, 0")
    return service, database


def _database(text: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) < 6):
        _refuse("the database is no number")
    return int(text)
