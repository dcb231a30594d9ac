"""A toolbox in a process that is patched by gevent; run by ``test_gevent``."""

# ruff: noqa: E402 - what is imported must be patched by then

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import threading
from collections.abc import Callable

import gevent

from flask_aibridge.bridge.injection.tools import InjectedCall
from tests.bridge.mcp.servers import Document, FakeServer
from tests.bridge.mcp.test_toolbox import bench
from tests.bridge.upstreams import Peer


def main() -> None:
    """The hub goes on while a tool runs, and who leaves is let go at once."""
    server, called = FakeServer(), threading.Event()

    def hang(peer: Peer, message: Document) -> None:
        called.set()
        peer.is_gone()

    server.on["tools/call"] = hang
    with bench(server, FakeServer(modern=False)) as bench_:
        several = [gevent.spawn(bench_.toolbox.tools_for, "alice") for _ in range(5)]
        tools = several[0].get(timeout=10)
        assert all(one.get(timeout=10) is tools for one in several)
        assert bench_.configurator.asked == ["alice"]
        stops: list[Callable[[], None]] = []

        def on_stop(stop: Callable[[], None]) -> Callable[[], None]:
            stops.append(stop)
            return stops.clear

        call = gevent.spawn(tools.run, InjectedCall("c", "bmcp_s0_echo", ""), on_stop)
        assert called.wait(10)
        assert not call.ready()
        stops[0]()
        assert "left" in call.get(timeout=10).text
        assert tools.run(InjectedCall("c", "bmcp_s1_echo", "")).text == "{}"


if __name__ == "__main__":
    main()
