"""``tests.security.audit``: what it makes of pip-audit's answers."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("packaging")
try:
    metadata("flask-aibridge")
except PackageNotFoundError:
    pytest.skip("looks at what the installed package requires", allow_module_level=True)

from tests.security import audit

REPORT: list[dict[str, Any]] = [
    {"name": "Flask", "version": "3.1.0", "vulns": []},
    {
        "name": "pyjwt",
        "version": "2.4.0",
        "vulns": [
            {"id": "PYSEC-1", "fix_versions": ["2.4.1", "2.5.0"], "description": "", "aliases": []},
            {"id": "PYSEC-2", "fix_versions": [], "description": "", "aliases": []},
        ],
    },
    {"name": "redis", "skip_reason": "Dependency not found on PyPI and could not be audited: redis (8.1.0)"},
    {"name": "pytest", "version": "9.0", "vulns": [{"id": "PYSEC-3", "fix_versions": [], "aliases": []}]},
]


def test_what_is_known_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """But not of a tool that is only here for the tests."""
    monkeypatch.setattr(audit, "answered", lambda: REPORT)
    assert audit.main() == 1
    assert capsys.readouterr().out.splitlines() == [
        "Of 3 packages that flask-aibridge brings, 2 were audited; of 1 the index knows nothing.",
        "pyjwt 2.4.0: PYSEC-1; mended in 2.4.1, 2.5.0",
        "pyjwt 2.4.0: PYSEC-2; mended in no version yet",
    ]


def test_nothing_known_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "answered", lambda: [REPORT[0], REPORT[2], REPORT[3]])
    assert audit.main() == 0


@pytest.mark.parametrize(
    ("program", "seconds", "why"),
    [
        (
            "import sys; print('...\\nno route to the index', file=sys.stderr); sys.exit(1)",
            60.0,
            "no route to the index",
        ),
        ("print('no JSON')", 60.0, "Expecting value"),
        ("import threading; threading.Event().wait(60)", 0.2, "timed out"),
    ],
)
def test_no_answer_is_no_failure(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    program: str,
    seconds: float,
    why: str,
) -> None:
    """A network is not a thing that the checks may need; but it is said."""
    (tmp_path / "pip_audit.py").write_text(program)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(audit, "SECONDS", seconds)
    assert audit.main() == 0
    said = capsys.readouterr().out
    assert said.startswith("Nothing was audited")
    assert why in said


def test_what_the_package_brings_is_found() -> None:
    """Through extras of its own, and those that it asks others for."""
    brought = audit.closure("flask-aibridge")
    assert {"flask", "werkzeug", "pyjwt", "cryptography", "urllib3", "requests", "redis"} <= brought
    assert "pytest" not in brought
    assert "pip-audit" not in brought
