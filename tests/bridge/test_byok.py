"""Callers who bring a key of their own for the provider."""

from __future__ import annotations

import io
from contextlib import closing
from typing import Any

import pytest
import urllib3

from flask_aibridge.bridge import Bridge
from flask_aibridge.bridge.options import BridgeOptions
from flask_aibridge.config import ProviderSettings
from flask_aibridge.services.interfaces import Credential
from flask_aibridge.testing import AnswerWith, Served, StandInProvider, serve_stand_in
from tests.bridge.conftest import MakeBridge, RecordingHook
from tests.bridge.test_admission import KEY, ScriptedHost
from tests.bridge.wsgi import FakeCancellation, Reply, call

pytestmark = pytest.mark.usefixtures("no_leaks")

MESSAGES, CHAT = "/anthropic/v1/messages", "/openai/v1/chat/completions"
QUESTION = {"model": "m-1", "max_tokens": 50, "messages": [{"role": "user", "content": "Say hello"}]}
GATEWAY = "aib_1_secret"
OWN = "sk-own-0123456789-zzzz"
ALLOWED = BridgeOptions(allow_byok=True)


def ask(bridge: Bridge, path: str, headers: dict[str, str], *, door: str = "public", **options: Any) -> Reply:
    if door != "public":
        options["flask_aibridge.cancellation"] = FakeCancellation()
    return call(bridge, "POST", path, QUESTION, headers=headers, **options)


def credentials(served: Served[StandInProvider]) -> dict[str, str]:
    """What the provider was asked with, the last time."""
    received = served.stand_in.requests[-1].headers
    return {name: received[name] for name in ("authorization", "x-api-key") if name in received}


BROUGHT = [
    (MESSAGES, {"X-Api-Key": OWN}, {"x-api-key": OWN}),
    (MESSAGES, {"Authorization": f"Bearer {OWN}"}, {"authorization": f"Bearer {OWN}"}),
    (MESSAGES, {"Authorization": "Bearer other", "X-Api-Key": OWN}, {"x-api-key": OWN}),
    (
        MESSAGES,
        {"Authorization": f"Bearer {OWN}", "X-Api-Key": GATEWAY},
        {"authorization": f"Bearer {OWN}"},
    ),
    (CHAT, {"Authorization": f"bearer {OWN}"}, {"authorization": f"bearer {OWN}"}),
    (CHAT, {"Authorization": f"Bearer {OWN}", "X-Api-Key": "x"}, {"authorization": f"Bearer {OWN}"}),
]


@pytest.mark.parametrize(("path", "headers", "sent"), BROUGHT)
@pytest.mark.parametrize("keys", [("sk-host",), ()])
def test_what_a_caller_brings_goes_to_the_provider_as_it_is(
    path: str, headers: dict[str, str], sent: dict[str, str], keys: tuple[str, ...], make_bridge: MakeBridge
) -> None:
    """Where its own SDK would put it; the token goes nowhere, and the host's key is not used."""
    with serve_stand_in(StandInProvider()) as served:
        bridge = make_bridge(served.base_url, keys=keys, options=ALLOWED)
        assert ask(bridge, path, headers | {"X-AIBridge-Token": GATEWAY}).status == 200
        assert credentials(served) == sent
        assert GATEWAY not in str(served.stand_in.requests[-1].headers.values())


@pytest.mark.parametrize("path", [MESSAGES, CHAT])
@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": f"Bearer {GATEWAY}"}, {"X-Api-Key": GATEWAY, "Authorization": " "}]
)
def test_who_brings_nothing_uses_the_hosts_key(
    path: str, headers: dict[str, str], make_bridge: MakeBridge
) -> None:
    """As in the model: an SDK that insists on a key may be given the gateway's there too."""
    with serve_stand_in(StandInProvider()) as served:
        bridge = make_bridge(served.base_url, keys=("sk-host",), options=ALLOWED)
        assert ask(bridge, path, headers | {"X-AIBridge-Token": GATEWAY}).status == 200
        assert list(credentials(served).values()) in (["sk-host"], ["Bearer sk-host"])


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        (CHAT, {"X-Api-Key": OWN}),
        (CHAT, {"Authorization": f"Basic {OWN}"}),
        (CHAT, {"Authorization": f"Bearer {OWN}, Bearer {OWN}"}),
        (CHAT, {"Authorization": f"Bearer {OWN}\N{LATIN SMALL LETTER E WITH ACUTE}"}),
        (MESSAGES, {"Authorization": OWN}),
    ],
)
def test_what_the_provider_would_not_take_is_refused(
    path: str, headers: dict[str, str], make_bridge: MakeBridge
) -> None:
    """Who brings a key does not want to use the host's by mistake."""
    with serve_stand_in(StandInProvider()) as served:
        bridge = make_bridge(served.base_url, options=ALLOWED)
        reply = ask(bridge, path, headers | {"X-AIBridge-Token": GATEWAY})
        assert served.stand_in.requests == []
    assert reply.status == 401
    assert reply.headers["www-authenticate"] == f'Bearer realm="{path.split("/")[1]}"'
    assert "Bearer" in reply.json["error"]["message"]
    assert OWN not in reply.body.decode()


@pytest.mark.parametrize("path", [MESSAGES, CHAT])
@pytest.mark.parametrize(
    ("token", "beside"), [(GATEWAY, "aib_2_anothers"), ("of-another-form", "of-another-form")]
)
def test_a_key_of_a_gateway_is_nobodys_own(
    path: str, token: str, beside: str, make_bridge: MakeBridge
) -> None:
    """Neither one that is not the caller's, nor the caller's own where keys have a form that the host chose."""
    with serve_stand_in(StandInProvider()) as served:
        bridge = make_bridge(served.base_url, options=ALLOWED, api_keys={"alice": token})
        assert (
            ask(bridge, path, {"X-AIBridge-Token": token, "Authorization": f"Bearer {beside}"}).status == 200
        )
        assert "sk-host" in str(credentials(served))
        assert beside not in str(dict(served.stand_in.requests[-1].headers))


def test_a_provider_for_own_keys_only_says_so(make_bridge: MakeBridge) -> None:
    """It is configured without a key, and asks its callers for one."""
    bridge = make_bridge("https://api.anthropic.com", keys=(), options=ALLOWED)
    reply = ask(bridge, MESSAGES, {"X-AIBridge-Token": GATEWAY})
    assert (reply.status, "'X-Api-Key'" in reply.json["error"]["message"]) == (401, True)


class Kept(urllib3.PoolManager):
    """Sends nothing, and keeps what it was to send."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[str, str, str]] = []

    def urlopen(self, method: str, url: str, **options: Any) -> urllib3.BaseHTTPResponse:  # type: ignore[override]
        self.sent.append((method, url, options["headers"]["X-Api-Key"]))
        head = {"Content-Type": "application/json"}
        return urllib3.HTTPResponse(io.BytesIO(b"{}"), status=200, headers=head, preload_content=False)


def test_a_provider_for_own_keys_only_is_asked_with_them(make_bridge: MakeBridge) -> None:
    """At the vendor's own address, where the host has no key."""
    pool = Kept()
    bridge = make_bridge("https://api.anthropic.com", keys=(), options=ALLOWED, pool=pool)
    assert ask(bridge, MESSAGES, {"X-AIBridge-Token": GATEWAY, "X-Api-Key": OWN}).status == 200
    assert pool.sent == [("POST", "https://api.anthropic.com/v1/messages", OWN)]


def test_the_token_alone_says_who_is_asking(make_bridge: MakeBridge, hook: RecordingHook) -> None:
    """A gateway key in another header does not help a wrong one."""
    bridge = make_bridge("http://127.0.0.1:9", options=ALLOWED)
    for headers in (
        {"X-AIBridge-Token": "aib_1_wrong", "X-Api-Key": GATEWAY},
        {"X-AIBridge-Token": OWN, "Authorization": f"Bearer {GATEWAY}"},
    ):
        assert ask(bridge, MESSAGES, headers).status == 401
    assert {(record.outcome, record.user) for record in hook.records} == {("refused", None)}


@pytest.mark.parametrize(("path", "status"), [(MESSAGES, 403), ("/openai/v1/models", 405)])
def test_without_the_option_a_token_is_refused(path: str, status: int, make_bridge: MakeBridge) -> None:
    """To those who may come in, in the provider's form; nothing of theirs is taken for anything else."""
    with serve_stand_in(StandInProvider()) as served:
        bridge = make_bridge(served.base_url)
        reply = ask(bridge, path, {"X-AIBridge-Token": GATEWAY, "X-Api-Key": OWN})
        assert (reply.status, "error" in reply.json) == (status, True)
        assert ask(bridge, path, {"X-AIBridge-Token": "wrong", "X-Api-Key": GATEWAY}).status == 401
        assert served.stand_in.requests == []
    if status == 403:
        assert "BYOK" in reply.json["error"]["message"]
        assert reply.headers["x-should-retry"] == "false"


def test_an_empty_token_is_none(make_bridge: MakeBridge) -> None:
    """As a variable that is not set leaves it."""
    with serve_stand_in(StandInProvider()) as served:
        bridge = make_bridge(served.base_url)
        assert ask(bridge, MESSAGES, {"X-AIBridge-Token": " ", "X-Api-Key": GATEWAY}).status == 200
        assert credentials(served) == {"x-api-key": "sk-host"}


@pytest.mark.parametrize("options", [ALLOWED, BridgeOptions()])
def test_in_process_it_has_to_be_asked_for(options: BridgeOptions, make_bridge: MakeBridge) -> None:
    """What an SDK sends there is a dummy; with the header, whatever it says, it is for the provider.

    The option is about callers over HTTP.
    """
    with serve_stand_in(StandInProvider()) as served:
        bridge = make_bridge(served.base_url, options=options)
        assert ask(bridge, CHAT, {"Authorization": f"Bearer {OWN}"}, door="in process").status == 200
        assert credentials(served) == {"authorization": "Bearer sk-host"}
        headers = {"Authorization": f"Bearer {OWN}", "X-AIBridge-Token": "byok"}
        assert ask(bridge, CHAT, headers, door="in process").status == 200
        assert credentials(served) == {"authorization": f"Bearer {OWN}"}


@pytest.mark.parametrize("status", [401, 429])
def test_an_own_key_does_not_fail_over(status: int, make_bridge: MakeBridge) -> None:
    """What the provider says of it is for its owner."""
    failure = AnswerWith(status, b'{"error": 1}', {"Retry-After": "7"})
    with serve_stand_in(StandInProvider(failures=[failure])) as served:
        bridge = make_bridge(served.base_url, keys=("a", "b"), options=ALLOWED)
        reply = ask(bridge, MESSAGES, {"X-AIBridge-Token": GATEWAY, "X-Api-Key": OWN})
        assert (reply.status, reply.body, reply.headers["retry-after"]) == (status, b'{"error": 1}', "7")
        assert len(served.stand_in.requests) == 1


@pytest.mark.parametrize(
    ("headers", "kind", "hint"),
    [
        ({"X-Api-Key": KEY}, "centralized", "s…t"),
        ({"X-AIBridge-Token": KEY}, "centralized", "s…t"),
        ({"X-AIBridge-Token": KEY, "X-Api-Key": OWN}, "byok", "sk-o…zzzz"),
        ({"X-AIBridge-Token": KEY, "Authorization": "Basic x"}, "byok", None),
    ],
)
def test_the_record_says_whose_key_it_was(headers: dict[str, str], kind: str, hint: str | None) -> None:
    """And shows no more than its ends."""
    with serve_stand_in(StandInProvider()) as served:
        host = ScriptedHost(served.base_url)
        with closing(Bridge(recording=lambda: host, hooks=[], options=ALLOWED)) as bridge:
            ask(bridge, MESSAGES, headers)
    ((start, credential),) = host.admitted
    assert credential == Credential(key=KEY)
    assert start is not None
    assert (start.credential_kind, start.credential_hint) == (kind, hint)
    assert host.end.credential_hint is None
    assert OWN not in repr([start, *host.records])


def test_nothing_of_it_is_in_a_repr() -> None:
    """It lives no longer than the request, and shows itself nowhere meanwhile."""
    from flask_aibridge.bridge.credentials import own_credential
    from flask_aibridge.bridge.providers.registry import provider_from

    provider = provider_from(ProviderSettings("anthropic", "anthropic", "http://h"))
    environ = {"HTTP_X_AIBRIDGE_TOKEN": GATEWAY, "HTTP_X_API_KEY": OWN}
    own = own_credential(environ, provider, allowed=True)
    assert own is not None
    assert OWN not in repr(own)


@pytest.mark.parametrize("path", ["/openai/v1/files", "/openai/v1/batches", "/anthropic/v1/files"])
def test_a_list_is_shown_of_an_account_of_ones_own(path: str, make_bridge: MakeBridge) -> None:
    """Not of the host's, which holds what everybody has stored: the token alone opens no list."""
    with serve_stand_in(StandInProvider()) as served:
        bridge = make_bridge(served.base_url, keys=("sk-host",), options=ALLOWED)
        token, own = {"X-AIBridge-Token": GATEWAY}, {"Authorization": f"Bearer {OWN}"}
        assert call(bridge, "GET", path, headers=token).status == 403
        assert served.stand_in.requests == []
        call(bridge, "GET", path, headers=token | own)
        assert credentials(served) == {"authorization": f"Bearer {OWN}"}
