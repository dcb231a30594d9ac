"""The threat model: each of its claims names tests, and there are such tests."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "explanation" / "security.rst").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"``(tests/[\w/]+\.py)::(\w+)``", PAGE)))


@cache
def functions(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_bytes())
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_a_test_that_is_named_exists(path: str, name: str) -> None:
    """In the file that is named."""
    assert name in functions(path)


def test_every_claim_names_a_test() -> None:
    """No row of the tables of promises is without one."""
    promised = PAGE.split("What is promised\n")[1].split("What is not promised\n")[0]
    rows = re.split(r"^   \* - ", promised, flags=re.MULTILINE)[1:]
    claims = [row for row in rows if not row.startswith("claim\n")]
    assert len(claims) > 20
    assert [
        row for row in claims if not re.search(r"^     - ``tests/[\w/]+\.py::\w+``", row, re.MULTILINE)
    ] == []


def test_every_test_that_is_meant_is_named() -> None:
    """A test of this folder is there for a claim: its file is named on the page."""
    files = {path.name for path in Path(__file__).parent.glob("test_*.py")} - {Path(__file__).name}
    assert [name for name in sorted(files) if f"tests/security/{name}::" not in PAGE] == []
