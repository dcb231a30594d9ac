"""The toolbox under gevent's monkey patching, which needs a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.services.programs import environment

pytest.importorskip("gevent")


def test_under_gevent(deadline: float) -> None:
    program = Path(__file__).with_name("scenario_gevent.py")
    done = subprocess.run(
        [sys.executable, "-P", str(program)],
        env=environment(PYTHONWARNINGS="ignore"),
        capture_output=True,
        text=True,
        timeout=3 * deadline,
        check=False,
    )
    assert done.returncode == 0, done.stderr
