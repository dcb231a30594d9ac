"""The bridge in a process patched by gevent: silences, draining and stopping never block the hub."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.transport.calls import run_script

pytestmark = pytest.mark.slow

pytest.importorskip("gevent")


@pytest.mark.parametrize(
    "scenario",
    [
        "silent_streams",
        "silent_streams_over_tls",
        "late_silent_streams",
        "more_answers_than_idle_connections",
        "more_answers_than_idle_connections_over_tls",
    ],
)
def test_patched_by_gevent(scenario: str, certificate: Path) -> None:
    run_script("scenarios_gevent.py", scenario, str(certificate), beside=__file__)
