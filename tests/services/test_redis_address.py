"""Every documented form of the URL is understood, every other refused without repeating its password."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_aibridge.errors import ConfigError
from flask_aibridge.services.redis.address import RedisAddress, parse_redis_url

UNDERSTOOD: list[tuple[str, dict[str, Any]]] = [
    ("redis://host", {"kind": "tcp", "nodes": (("host", 6379),)}),
    ("redis://host:6380/3", {"nodes": (("host", 6380),), "database": 3}),
    ("redis://host/?db=4", {"nodes": (("host", 6379),), "database": 4}),
    ("redis://u%40x:p%3Aw@host", {"username": "u@x", "password": "p:w"}),
    ("redis://:secret@host", {"username": None, "password": "secret"}),
    ("redis://[::1]:7000", {"nodes": (("::1", 7000),)}),
    ("redis://[fe80::1]", {"nodes": (("fe80::1", 6379),)}),
    ("rediss://host?ssl_ca_certs=/ca.pem", {"tls": True, "options": {"ssl_ca_certs": "/ca.pem"}}),
    ("unix:///run/redis.sock", {"kind": "unix", "nodes": (), "path": "/run/redis.sock"}),
    ("unix://u:p@/run/a%20b.sock?db=2", {"path": "/run/a b.sock", "database": 2, "password": "p"}),
    (
        "redis+sentinel://u:p@a,b:26380/main/2",
        {
            "kind": "sentinel",
            "nodes": (("a", 26379), ("b", 26380)),
            "service": "main",
            "database": 2,
            "username": "u",
            "password": "p",
        },
    ),
    ("rediss+sentinel://a/main", {"kind": "sentinel", "tls": True, "service": "main"}),
    ("redis+cluster://a:1,b:2,[::1]:3", {"kind": "cluster", "nodes": (("a", 1), ("b", 2), ("::1", 3))}),
    ("redis+cluster://a/0", {"kind": "cluster", "database": 0}),
    ("rediss+cluster://:p@a:1", {"kind": "cluster", "tls": True, "password": "p"}),
]

REFUSED = [
    "",
    "host:6379",
    "http://host",
    "valkey://host",
    "redis://",
    "redis://host:0",
    "redis://host:65536",
    "redis://host:many",
    "redis://host/one",
    "redis://host/1/2",
    "redis://host?socket_timeout=5",
    "redis://host?db",
    "redis://[::1",
    "redis://a,,b",
    "unix://relative/path",
    "unix:///",
    "redis+sentinel://a",
    "redis+sentinel://a/main/1/2",
    "redis+cluster://a/1",
]


@pytest.mark.parametrize(("url", "expected"), UNDERSTOOD)
def test_a_documented_form_is_understood(url: str, expected: dict[str, Any]) -> None:
    """Each part of the URL is where it belongs."""
    address = parse_redis_url(url)
    assert {name: getattr(address, name) for name in expected} == expected


@pytest.mark.parametrize("url", REFUSED)
def test_anything_else_is_refused(url: str) -> None:
    """The error names the key and shows what a URL looks like."""
    with pytest.raises(ConfigError, match=r"AIBRIDGE_REDIS_URL cannot be used: .* redis://host"):
        parse_redis_url(url)


@pytest.mark.parametrize(
    "url", ["redis://me:sesame@host:x", "redis://:sesame@h/z", "redis://me:sesame@h?x=sesame"]
)
def test_a_refusal_does_not_repeat_a_password(url: str) -> None:
    """What goes to the log is not what must not be read."""
    with pytest.raises(ConfigError) as refused:
        parse_redis_url(url)
    assert "sesame" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "rediss://me:sesame@host/1",
        "unix://me:sesame@/run/s",
        "redis+sentinel://me:sesame@a,b/main?sentinel_password=sesame",
        "redis+cluster://me:sesame@a",
    ],
)
def test_an_address_does_not_show_its_password(url: str) -> None:
    """Neither as text nor in its repr."""
    address = parse_redis_url(url)
    assert "sesame" not in f"{address} {address!r}"
    assert address.password == "sesame"


def test_the_text_of_an_address_names_every_node() -> None:
    """For people who look for the one that is away."""
    assert str(parse_redis_url("redis+cluster://a:1,[::1]:2")) == "redis+cluster://a:1,[::1]:2"
    assert str(parse_redis_url("rediss+sentinel://a/main/1")) == "rediss+sentinel://a:26379/main"


@given(st.text() | st.text(alphabet="redisunx+cltp:/@?[],.=&%0123456789").map("redis://".__add__))
def test_any_text_is_an_address_or_refused(url: str) -> None:
    """Never another exception."""
    with contextlib.suppress(ConfigError):
        assert isinstance(parse_redis_url(url), RedisAddress)
