"""Where a request goes, and with which key, is for administrators to say: nothing that a client writes changes it, and
nothing that a provider answers (SSRF)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

import pytest
import urllib3
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from flask_aibridge.bridge import Bridge
from flask_aibridge.config import ProviderSettings
from flask_aibridge.testing import AnswerWith, Served, StandInProvider, serve_stand_in
from tests.bridge.wsgi import call
from tests.security.gateways import AS_ADMIN, KEY, PREFIX, PROVIDER_KEY, gateway

BASES = {
    "plain": "http://provider.example",
    "port": "http://provider.example:8080",
    "v1": "https://provider.example/v1",
    "deep": "https://provider.example/a/b/v1",
}
ELSEWHERE = "elsewhere.example"


class Gone(urllib3.PoolManager):
    """Keeps where requests would have gone, as urllib3 itself reads the URL, and sends none."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[str, str | None, Any]] = []

    def urlopen(self, method: str, url: str, redirect: bool = True, **options: Any) -> Any:  # type: ignore[override]
        parsed = urllib3.util.parse_url(url)
        self.sent.append((url, parsed.netloc, {"redirect": redirect, **options}))
        raise urllib3.exceptions.HTTPError("nothing is sent")


def bridge_to(pool: Gone) -> Bridge:
    """Both types at every kind of base URL."""
    providers = [
        ProviderSettings(f"{kind}-{name}", kind, url, (PROVIDER_KEY,))
        for name, url in BASES.items()
        for kind in ("anthropic", "openai")
    ]
    return Bridge(providers, api_keys={"alice": KEY}, pool=pool, hooks=[])


PIECES = st.sampled_from(
    [
        *(
            "/",
            "//",
            "%2f",
            "%2F",
            "\\",
            "%5c",
            "@",
            "%40",
            ":",
            "%3a",
            ":80",
            "?",
            "%3f",
            "#",
            "%23",
            "..",
            "%2e%2e",
            ".",
        ),
        *(
            "v1",
            "%761",
            "models",
            "responses",
            "messages",
            "chat/completions",
            "x",
            "\r\n",
            "%0d%0a",
            "%00",
            " ",
            ";",
            "&",
        ),
        *(
            ELSEWHERE,
            f"@{ELSEWHERE}",
            f"http://{ELSEWHERE}",
            f"//{ELSEWHERE}",
            "[::1]",
            "127.0.0.1",
            "é",
            "%ff",
            "%",
        ),
    ]
)
TAILS = st.lists(PIECES, max_size=8).map("".join)
ROUTES = st.sampled_from(
    ["/v1/models", "/v1%2Fmodels", "/v1/responses", "/%76%31/models", "/v1%2fresponses", "/v1", ""]
)
HEADERS = st.sampled_from(
    [
        {},
        {"Host": ELSEWHERE},
        {"Host": f"{ELSEWHERE}@provider.example"},
        {
            "X-Forwarded-Host": ELSEWHERE,
            "X-Forwarded-Proto": "http",
            "X-Forwarded-Port": "1",
            "Forwarded": f"host={ELSEWHERE}",
        },
        {"X-Original-Url": f"http://{ELSEWHERE}/", "X-Rewrite-Url": "/admin", "Proxy": f"http://{ELSEWHERE}"},
        {
            "X-Api-Base": f"http://{ELSEWHERE}",
            "X-Base-Url": f"http://{ELSEWHERE}",
            "OpenAI-Base-URL": f"http://{ELSEWHERE}",
        },
    ]
)


@given(
    name=st.sampled_from([f"{kind}-{base}" for kind in ("anthropic", "openai") for base in BASES]),
    route=ROUTES,
    tail=TAILS,
    headers=HEADERS,
    form=st.sampled_from(["", f"http://{ELSEWHERE}", f"//{ELSEWHERE}", "*"]),
)
def test_a_request_goes_to_the_providers_base_url(
    name: str, route: str, tail: str, headers: dict[str, str], form: str
) -> None:
    """Whatever the client writes into the path, the query, the host and the headers, and however it is encoded."""
    pool = Gone()
    target, _, query = f"/{name}{route}{tail}".partition("?")
    more = {"RAW_URI": f"{form}/{name}{route}{tail}", "QUERY_STRING": query}
    sent = {"X-Api-Key": KEY, **headers}
    path = (
        unquote_to_bytes(target).decode("latin-1").replace("?", "%3F")
    )  # environ_of splits at a question mark
    call(bridge_to(pool), "GET", path, headers=sent, **more)
    base = urlsplit(BASES[name.partition("-")[2]])
    for url, netloc, options in pool.sent:
        assert netloc == base.netloc
        assert url.startswith(f"{base.geturl()}/")
        assert options["redirect"] is False
        assert ELSEWHERE not in "".join(
            value for key, value in options["headers"].items() if key.lower() == "host"
        )


def test_the_paths_tried_reach_the_provider() -> None:
    """What is well formed does; so does a path whose slash is encoded, as it was written."""
    pool = Gone()
    for raw in ("/v1/models", "/v1/models/a%2Fb", f"/v1%2Fmodels%2F@{ELSEWHERE}", f"/v1/models/@{ELSEWHERE}"):
        path = unquote_to_bytes(raw).decode("latin-1")
        call(
            bridge_to(pool),
            "GET",
            f"/openai-plain{path}",
            headers={"X-Api-Key": KEY},
            RAW_URI=f"/openai-plain{raw}",
        )
    assert [url for url, _, _ in pool.sent] == [
        "http://provider.example/models",
        "http://provider.example/models/a%2Fb",
        f"http://provider.example/v1%2Fmodels%2F@{ELSEWHERE}",
        f"http://provider.example/models/@{ELSEWHERE}",
    ]


@pytest.fixture
def elsewhere() -> Iterator[Served[StandInProvider]]:
    """Where no request may ever arrive."""
    with serve_stand_in() as served:
        yield served
    assert served.stand_in.requests == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_of_the_provider_is_not_followed(elsewhere: Served[StandInProvider], status: int) -> None:
    """Nor handed on with its address: an SDK that followed it would take the gateway's key along."""
    redirect = AnswerWith(
        status, b"{}", {"Location": f"{elsewhere.base_url}/v1/messages", "Refresh": "0; url=/x"}
    )
    with serve_stand_in(StandInProvider(failures=[redirect])) as served, gateway(served.base_url) as app:
        asked = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hello"}]}
        answer = app.test_client().post(
            f"{PREFIX}/anthropic/v1/messages", json=asked, headers={"X-Api-Key": KEY}
        )
    assert answer.status_code == status
    assert not {"Location", "Refresh"} & set(answer.headers.keys())
    assert len(served.stand_in.requests) == 1


def test_a_proxy_of_the_environment_is_not_used(
    elsewhere: Served[StandInProvider], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client's ``Proxy`` header is such a variable to a CGI script (CVE-2016-5385); here neither of them counts."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, elsewhere.base_url)
    with serve_stand_in() as served, gateway(served.base_url) as app:
        answer = app.test_client().get(
            f"{PREFIX}/openai/v1/models", headers={"X-Api-Key": KEY, "Proxy": elsewhere.base_url}
        )
        assert answer.status_code == 200
    (received,) = served.stand_in.requests
    assert "proxy" not in received.headers


URLS = [
    *(
        "file:///etc/passwd",
        "ftp://host.example",
        "gopher://host.example/",
        "unix:///run/x",
        "javascript:x",
        "//host.example",
    ),
    *(
        "host.example",
        "/v1",
        "http://",
        "http:///v1",
        "http://user:pw@host.example",
        "http://host.example@elsewhere.example",
    ),
    *(
        "http://host.example/#x?x=1",
        "http://host.example/#x",
        "http://host.example\\@elsewhere.example",
        "http://host.example/\r\nX: y",
    ),
    *(
        "http://host.example:0",
        "http://host.example:99999",
        "http://host.example:x",
        "http://[::1",
        "http://ho st.example",
        "",
    ),
    *(
        "http://host.example/é",
        "http://hóst.example",
        "http://host.example/\x00",
        "HTTP\x09://host.example",
        " http://host.example",
    ),
    *(1, [], {}, True),
]


@pytest.fixture(scope="module")
def administered() -> Iterator[Flask]:
    with gateway("http://127.0.0.1:1", AIBRIDGE_SECRET_KEY="s" * 43) as app:
        yield app


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize(
    ("path", "body"),
    [("/providers/new", {"type": "openai", "keys": ["k"]}), ("/mcp/servers/new", {})],
)
def test_an_administrator_can_name_http_urls_only(
    administered: Flask, path: str, body: dict[str, Any], url: Any
) -> None:
    """With a host, and nothing in front of it or behind that would be read in two ways."""
    name = "base_url" if "type" in body else "url"
    answer = administered.test_client().put(PREFIX + path, json={**body, name: url}, headers=AS_ADMIN)
    assert answer.status_code == 400, answer.text
    assert "pw" not in json.dumps(answer.get_json()).replace("//pw", "")


def test_a_user_cannot_name_any(administered: Flask) -> None:
    """Not by key, not without."""
    for headers in ({}, {"Authorization": f"Bearer {KEY}"}, {"X-Api-Key": KEY}):
        for method, path in (
            ("PUT", "/providers/x"),
            ("PATCH", "/providers/anthropic"),
            ("DELETE", "/providers/anthropic"),
        ):
            body = {"type": "openai", "base_url": f"http://{ELSEWHERE}", "keys": ["k"], "enabled": True}
            answer = administered.test_client().open(PREFIX + path, method=method, json=body, headers=headers)
            assert answer.status_code in (401, 403)


def test_stored_keys_do_not_go_to_another_url(administered: Flask) -> None:
    """An administrator who may not read the stored keys cannot have them sent elsewhere."""
    body = {"base_url": "http://127.0.0.1:2"}
    moved = administered.test_client().put(f"{PREFIX}/providers/anthropic", json=body, headers=AS_ADMIN)
    assert moved.status_code == 400
    assert "give its keys again" in moved.text
