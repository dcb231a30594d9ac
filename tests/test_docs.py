"""The tutorial works; the reference names every key and every code that there is."""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path
from typing import Any

import click
import pytest
from flask import Flask

from flask_aibridge import config
from flask_aibridge.bridge.providers.registry import TYPES
from flask_aibridge.cli import aibridge
from flask_aibridge.license.refusals import REFUSALS
from flask_aibridge.services.embedded import server_binary
from flask_aibridge.testing import serve_stand_in

DOCS = Path(__file__).parent.parent / "docs"


@pytest.mark.parametrize("code", REFUSALS)
def test_every_refusal_is_explained(code: str) -> None:
    """Whoever looks up the ``code`` of a 403 finds it."""
    assert f"``{code}``" in (DOCS / "reference" / "errors.rst").read_text(encoding="utf-8")


@pytest.mark.parametrize("key", config.KNOWN_KEYS)
def test_every_key_is_explained(key: str) -> None:
    """The table of keys, which the reference shows, is complete."""
    assert f"``{key}``" in (config.__doc__ or "")


def test_every_route_of_the_bridge_is_listed() -> None:
    """Whoever gets a 404 or a 405 from the bridge finds what it serves."""
    page = (DOCS / "reference" / "bridge.rst").read_text(encoding="utf-8")
    routes = [route for provider in TYPES.values() for route in provider.routes]

    assert [
        route.path for route in routes if f"``{route.path.removesuffix('*').rstrip('/')}" not in page
    ] == []


@pytest.mark.skipif(server_binary() is None, reason="needs the wheel of the [embedded] extra")
def test_the_tutorials_application_streams_an_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The program of the tutorial, with the stand-in that it names, answers with the provider's events."""
    monkeypatch.setattr(Flask, "auto_find_instance_path", lambda app: str(tmp_path))
    namespace: dict[str, Any] = {"__name__": "tutorial"}
    exec(compile(_first_program(DOCS / "tutorial.rst"), "tutorial.rst", "exec"), namespace)
    with serve_stand_in() as provider:
        app = namespace["create_app"](provider.base_url)
        with app.test_client().get("/haiku") as answer:
            text = answer.get_data(as_text=True)
        app.extensions["aibridge"].close()

    assert answer.status_code == 200
    assert "event: message_stop\n" in text


def _first_program(page: Path) -> str:
    lines = page.read_text(encoding="utf-8").split(".. code-block:: python\n", 1)[1].splitlines()
    end = next(i for i, line in enumerate(lines) if line and not line.startswith("   "))
    return textwrap.dedent("\n".join(lines[:end]))


def _commands() -> list[str]:
    """Every ``flask aibridge …`` that the documentation and the README show."""
    pages = [*DOCS.rglob("*.rst"), DOCS.parent / "README.md"]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    found = re.findall(r"flask(?: --app [\w.:]+)? aibridge ([a-z][^`\n|<#]*)", text)
    return sorted({command.strip() for command in found})


@pytest.mark.parametrize("command", _commands())
def test_every_command_that_is_shown_exists(command: str) -> None:
    """With its flags: whoever copies it is not told that there is none."""
    group: Any = aibridge
    words = command.split()
    while words and isinstance(group, click.Group):
        found = group.get_command(click.Context(group), words.pop(0))
        assert found is not None, command
        group = found
    flags = {flag for each in group.params for flag in (*each.opts, *each.secondary_opts)}
    assert {word for word in words if word.startswith("--")} <= flags


def test_every_command_is_in_the_reference() -> None:
    """With each of its flags: ``--help`` is not the only place to look."""
    page = (DOCS / "reference" / "demo.rst").read_text(encoding="utf-8")
    for name in ("interceptions", "key", "mcp", "provider"):
        group = aibridge.get_command(click.Context(aibridge), name)
        assert isinstance(group, click.Group)
        for command, each in group.commands.items():
            assert f"``flask aibridge {name} {command}" in page
            flags = {flag for option in each.params for flag in option.opts if flag.startswith("--")}
            assert [flag for flag in flags if f"``{flag}``" not in page] == []


def _alarms() -> list[str]:
    """Every message of a log record that the page about deployment explains."""
    page = (DOCS / "how-to" / "deploy.rst").read_text(encoding="utf-8")
    section = page.split("\nAlarms\n------\n", 1)[1].split("\nOverload\n", 1)[0]
    cells = [
        cell
        for cell in re.findall(r"^   \* - (.*)$", section, re.MULTILINE)
        if ", ERROR" in cell or ", WARNING" in cell
    ]
    return [message for cell in cells for message in re.findall(r"``([^`]+)``", cell)]


def test_every_alarm_that_is_explained_can_be_raised() -> None:
    """An operator who looks for a message of the page in the log finds it as it stands there."""
    sources = [path.read_text(encoding="utf-8") for path in Path(config.__file__).parent.parent.rglob("*.py")]
    texts = [text for source in sources if "logging" in source for text in _texts(source)]
    alarms = _alarms()

    assert len(alarms) > 15
    assert [alarm for alarm in alarms if not any(_says(text, alarm) for text in texts)] == []


def _texts(source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
        elif isinstance(node, ast.JoinedStr):
            found.append("".join(str(part.value) for part in node.values if isinstance(part, ast.Constant)))
    return found


def _says(text: str, alarm: str) -> bool:
    """Whether a message has all that stands between the gaps, in that order."""
    pieces = [re.escape(piece.strip()) for piece in alarm.split("…")]
    return re.search(".*".join(pieces), text) is not None
