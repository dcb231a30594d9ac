"""``flask aibridge serve``: gunicorn with the app that the flask command finds."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from flask_aibridge.cli import aibridge
from flask_aibridge.cli.serve import MAX_WORKERS, MIN_WORKERS, default_workers
from tests.gunicorn.serving import DEADLINE_SECONDS, PREFIX, Gunicorn, Provider

FLASK = """
from flask.cli import cli
from flask_aibridge.cli import aibridge
cli.add_command(aibridge)
cli.main(prog_name="flask")
"""
"""The flask command, with ours also where the package is not installed."""


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider().served() as provider:
        yield provider


class Served(Gunicorn):
    """What the command serves, at the Unix socket that it is told of."""

    def __init__(self, provider: Provider, app: str, *options: str) -> None:
        flask = [sys.executable, "-P", "-c", FLASK, "--app", app, "aibridge", "serve", *options]
        super().__init__(provider, command=flask, AIBRIDGE_REDIS_URL="memory://")


@pytest.mark.slow
@pytest.mark.servers
@pytest.mark.parametrize("app", ["host:app", "host:create_other()"])
def test_it_serves_the_app_and_ends_by_a_signal(app: str, provider: Provider) -> None:
    """An app or a factory; Ctrl-C, which reaches every process of the terminal, ends it at once."""
    pytest.importorskip("gunicorn")
    with Served(provider, app, "--workers", "2", "--threads", "3") as server:
        assert server.get(f"{PREFIX}/healthz")[0] == 200
        assert server.ask(words="quick").is_whole
        said = re.search(
            r"^gunicorn serves on unix:\S+ with 2 workers of 3 threads.*$", server.logged(), re.M
        )
        assert said
        assert "Traceback" not in server.logged()
        late = server.ask().begun()
        os.killpg(server.process.pid, signal.SIGINT)
        assert server.process.wait(DEADLINE_SECONDS) == 0
        assert not late.is_whole


def test_without_gunicorn_it_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("gunicorn", "gunicorn.app", "gunicorn.app.base"):
        monkeypatch.setitem(sys.modules, name, None)
    result = CliRunner().invoke(aibridge, ["serve"])
    assert result.exit_code == 1
    assert "pip install 'Flask-AIBridge[gunicorn]'" in result.output


@pytest.mark.parametrize("wrong", [["--workers", "0"], ["--threads", "none"], ["--graceful-timeout", "-1"]])
def test_options_that_cannot_be_are_refused(wrong: list[str]) -> None:
    result = CliRunner().invoke(aibridge, ["serve", *wrong])
    assert result.exit_code == 2
    assert wrong[0] in result.output


def test_there_are_workers_for_every_processor_within_bounds() -> None:
    assert MIN_WORKERS <= default_workers() <= MAX_WORKERS
