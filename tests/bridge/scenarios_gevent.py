"""A bridge in a process patched by gevent; run by name from test_gevent. ``late_…`` makes the bridge before that, as an
application that is preloaded does."""

from __future__ import annotations

import sys
import threading
import warnings

from gevent import monkey

if not sys.argv[1].startswith("late_"):
    monkey.patch_all()

import ssl

import gevent

from flask_aibridge.bridge import Bridge
from flask_aibridge.bridge.options import BridgeOptions
from flask_aibridge.config import ProviderSettings
from tests.bridge.conftest import RecordingHook

LATE = sys.argv[1].startswith("late_")
STREAMS = 20
OPTIONS = BridgeOptions(ping_seconds=0.05, on_disconnect="drain")
HOOK = RecordingHook()


def bridge_at(base_url: str, **options: object) -> Bridge:
    settings = ProviderSettings("openai", "openai", f"{base_url}/v1", ("sk-host",))
    return Bridge([settings], api_keys={"alice": "aib_1_secret"}, hooks=[HOOK], options=OPTIONS, **options)  # type: ignore[arg-type]


PRELOADED: list[Bridge] = []


def streams(tls: ssl.SSLContext | None = None, certificate: str = "") -> None:
    """Many silent streams: each is pinged while the hub goes on, half of them are left and read on, the others are
    ended by a drain."""
    from flask_aibridge.bridge.upstream import UpstreamPool
    from tests.bridge.doors import CHAT, EVENT, KEY, QUESTION
    from tests.bridge.upstreams import SSE_HEAD, Peer, ScriptedUpstream, chunk
    from tests.bridge.wsgi import Reply, call

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(SSE_HEAD + chunk(EVENT))
        peer.is_gone()

    with ScriptedUpstream(script, tls) as server:
        if LATE:
            (bridge,) = PRELOADED
            provider = bridge._host.providers(None).providers["openai"]
            provider._base_url = f"{server.base_url}/v1"
        else:
            bridge = bridge_at(server.base_url, pool=UpstreamPool(ca_certs=certificate) if tls else None)

        def ask() -> Reply:
            reply = call(bridge, "POST", f"/{CHAT}", QUESTION, headers=KEY)
            assert next(reply.iterator) == EVENT
            assert next(reply.iterator) == b": ping\n\n"
            return reply

        def stay() -> bytes:
            return ask().body

        staying = [gevent.spawn(stay) for _ in range(STREAMS)]
        for reply in [ask() for _ in range(3)]:
            reply.close()
        with gevent.Timeout(10):
            while bridge.running < STREAMS + 3:
                gevent.sleep(0.01)
        assert bridge.running == STREAMS + 3
        assert not bridge.drain(0.2)
        assert bridge.running == 0
        bodies = [each.get(timeout=10) for each in staying]
        assert all(b'"error"' in body for body in bodies)
        outcomes = sorted(record.outcome for record in HOOK.records)
        assert outcomes == ["client_closed"] * 3 + ["interrupted"] * STREAMS, outcomes
        bridge.close()


def silent_streams() -> None:
    streams()


def silent_streams_over_tls() -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(sys.argv[2])
    streams(tls, sys.argv[2])


def late_silent_streams() -> None:
    PRELOADED.append(bridge_at("http://127.0.0.1:1"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", monkey.MonkeyPatchWarning)
        monkey.patch_all()
    streams()


def more_answers_than_idle_connections() -> None:
    """They end together, in the same bytes that bring their last event: the connections that there is no room for are
    closed, and nobody asks them anything after that."""
    whole_answers()


def more_answers_than_idle_connections_over_tls() -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(sys.argv[2])
    whole_answers(tls, sys.argv[2])


def whole_answers(tls: ssl.SSLContext | None = None, certificate: str = "") -> None:
    from flask_aibridge.bridge.upstream import UpstreamPool
    from tests.bridge.doors import CHAT, EVENT, KEY, QUESTION
    from tests.bridge.upstreams import SSE_HEAD, Peer, ScriptedUpstream, chunk
    from tests.bridge.wsgi import call

    together, last = threading.Barrier(STREAMS), b"data: [DONE]\n\n"

    def script(peer: Peer) -> None:
        peer.read_request()
        peer.send(SSE_HEAD + chunk(EVENT))
        together.wait(30)
        peer.send(chunk(last) + b"0\r\n\r\n")
        peer.is_gone()

    with ScriptedUpstream(script, tls) as server:
        pool = UpstreamPool(idle_connections=2, ca_certs=certificate or None)
        bridge = bridge_at(server.base_url, pool=pool)

        def ask() -> bytes:
            return call(bridge, "POST", f"/{CHAT}", QUESTION, headers=KEY).body

        bodies = [each.get(timeout=30) for each in [gevent.spawn(ask) for _ in range(STREAMS)]]
        assert [body.replace(b": ping\n\n", b"") for body in bodies] == [EVENT + last] * STREAMS, bodies
        assert {record.outcome for record in HOOK.records} == {"completed"}, HOOK.records
        bridge.close()


if __name__ == "__main__":
    globals()[sys.argv[1]]()
