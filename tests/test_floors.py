"""An import goes down, or sideways within a folder, never up; a module that says it is pure is pure."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest

from tests.floors import FLOORS, MAY_IMPORT, Module, read_package, violations

SPEC = importlib.util.find_spec("flask_aibridge")
assert SPEC is not None
PACKAGE = Path(next(iter(SPEC.submodule_search_locations or ())))

PURE_BY_DESIGN = {
    "transport.environ",
    "bridge.sse",
    "license.claims",
    "license.signature",
    "license.entitlements",
}
DRIVERS = {"blocking", "streaming"}


@pytest.fixture(scope="module")
def modules() -> dict[str, Module]:
    return read_package(PACKAGE)


def test_imports_keep_to_the_floors(modules: dict[str, Module]) -> None:
    """No module of the package imports what its floor may not, and no pure module reaches I/O."""
    assert violations(modules) == []


def test_every_part_stands_on_a_floor(modules: dict[str, Module]) -> None:
    """A new folder or file at the package's root has to be given its floor first."""
    assert {module.part for module in modules.values()} <= set(FLOORS)


def test_the_table_itself_only_goes_down() -> None:
    """What a part may import stands on a lower floor, or beside it."""
    assert [
        (part, other)
        for part, others in MAY_IMPORT.items()
        for other in others
        if FLOORS[other] > FLOORS[part]
    ] == []


def test_the_designs_pure_modules_say_so(modules: dict[str, Module]) -> None:
    """Each module that the design calls pure begins its docstring with ``Pure:``."""
    machines = {
        name
        for name, module in modules.items()
        if name.startswith("bridge.intercept.") and module.file not in DRIVERS and not module.is_package
    }
    expected = (PURE_BY_DESIGN & modules.keys()) | machines

    assert {name for name in expected if not modules[name].declares_itself_pure} == set()


def test_every_module_says_what_belongs_in_it(modules: dict[str, Module]) -> None:
    """A stranger learns from the first line of a file what it is for."""
    assert [name for name, module in modules.items() if not ast.get_docstring(module.tree)] == []


BROKEN = [
    ("transport/pipe.py", "from flask_aibridge.bridge import app", "imports upward, bridge from transport"),
    ("transport/pipe.py", "from ..extension import AIBridge", "imports upward, extension from transport"),
    ("transport/pipe.py", "from .. import AIBridge", "imports upward, __init__ from transport"),
    ("transport/pipe.py", "from .. import config", "transport may not import config"),
    ("bridge/providers/base.py", "from ...transport import pipe", "bridge may not import transport"),
    ("bridge/__init__.py", "from ..cli import aibridge", "imports upward, cli from bridge"),
    (
        "services/memory.py",
        "def f():\n    from ..transport import pipe",
        "only services.rpc may import transport",
    ),
    ("bridge/app.py", "import flask", "bridge never imports flask"),
    ("transport/exchange.py", "from flask import current_app", "transport never imports flask"),
    ("services/memory.py", "from redis import Redis", "redis may be imported only in files named redis…"),
    ("transport/httpx2.py", "import httpx", "httpx may be imported only in a file named httpx.py"),
    (
        "transport/pipe.py",
        "import requests.adapters",
        "requests may be imported only in a file named requests.py",
    ),
    ("config.py", "import urllib3", "config imports the standard library only, not urllib3"),
    (
        "api/json.py",
        "from flask_aibridge.shelf import x",
        "imports shelf, which stands on no floor of the design",
    ),
    ("bridge/sse.py", '"""Pure: x."""\nimport os', "a pure module imports os"),
    ("bridge/sse.py", '"""Pure: x."""\nfrom urllib import request', "a pure module imports urllib.request"),
    ("bridge/sse.py", '"""Pure: x."""\nfrom http import client', "a pure module imports http.client"),
    ("bridge/sse.py", '"""Pure: x."""\nfrom time import time', "a pure module imports time"),
    ("bridge/sse.py", '"""Pure: x."""\nprint(1)', "a pure module calls print()"),
    ("bridge/sse.py", '"""Pure: x."""\ndatetime.datetime.now()', "a pure module uses datetime.datetime.now"),
]


@pytest.mark.parametrize(("file", "source", "complaint"), BROKEN)
def test_a_broken_rule_is_found(tmp_path: Path, file: str, source: str, complaint: str) -> None:
    """The checker sees each kind of breach, relative imports and imports inside functions too."""
    found = violations(_package(tmp_path, {file: source}))

    assert len(found) == 1
    assert found[0].endswith(complaint)


def test_impurity_is_found_behind_an_import(tmp_path: Path) -> None:
    """A pure module may not reach I/O through another module of the package."""
    found = violations(
        _package(
            tmp_path,
            {"bridge/sse.py": '"""Pure: x."""\nfrom .clock import now', "bridge/clock.py": "import time"},
        )
    )

    assert found == [
        "flask_aibridge.bridge.clock:1: a pure module imports time (reached from the pure bridge.sse)"
    ]


ALLOWED = [
    ("transport/requests.py", "import requests\nfrom .pipe import Pipe\nfrom ..errors import AIBridgeError"),
    ("services/rpc.py", "from ..transport import pipe"),
    ("services/redis_store.py", "import redis"),
    ("services/redis/records.py", "import redis"),
    ("license/blueprint.py", "import flask"),
    (
        "bridge/app.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..extension import AIBridge",
    ),
    (
        "bridge/sse.py",
        '"""Pure: x."""\nimport io, json, http\nfrom http import HTTPStatus\nfrom urllib import parse',
    ),
    ("__init__.py", "from .extension import AIBridge\nfrom flask_aibridge.transport import Source"),
]


@pytest.mark.parametrize(("file", "source"), ALLOWED)
def test_what_the_design_allows_passes(tmp_path: Path, file: str, source: str) -> None:
    """Downward, sideways, type-only and pure imports are no breach."""
    assert violations(_package(tmp_path, {file: source})) == []


def _package(folder: Path, files: dict[str, str]) -> dict[str, Module]:
    """A package with the design's modules, empty but for the given files."""
    empty = {
        "__init__.py": "",
        "errors.py": "",
        "config.py": "",
        "extension.py": "",
        "cli.py": "",
        "transport/__init__.py": "",
        "transport/pipe.py": "",
        "bridge/__init__.py": "",
        "bridge/app.py": "",
    }
    for name, source in (empty | files).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
    return read_package(folder)
