"""Programs that tests run beside them: with the package that is under test, and without the folder they are in."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import flask_aibridge

HERE = Path(__file__).resolve().parent


def python(script: str) -> list[str]:
    """The command that runs a script beside this file."""
    return [sys.executable, "-P", str(HERE / script)]


def environment(**more: str) -> dict[str, str]:
    """The environment in which programs find the package as the tests do, and the tests."""
    installed = Path(flask_aibridge.__file__).resolve().parents[1]
    return {**os.environ, "PYTHONPATH": os.pathsep.join((str(installed), str(HERE.parents[1]))), **more}
