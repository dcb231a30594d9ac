"""A whole application in a process that something happens to: forks, no descriptors, a full disk, clocks that jump."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.services.servers import redis_binary, valkey_binary
from tests.transport.calls import run_script

pytestmark = [
    pytest.mark.servers,
    pytest.mark.skipif(valkey_binary() is None and redis_binary() is None, reason="needs a server"),
]


@pytest.mark.parametrize(
    "scenario",
    [
        ("fork", "cancel"),
        ("fork", "drain"),
        ("no_descriptors",),
        ("full_disk", "required"),
        ("full_disk", "best-effort"),
        ("clocks_jump",),
    ],
    ids=" ".join,
)
def test_in_a_process_of_its_own(scenario: tuple[str, ...], tmp_path: Path) -> None:
    name, *arguments = scenario
    run_script("fault_scenarios.py", name, str(tmp_path), *arguments, beside=__file__)
