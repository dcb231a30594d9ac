"""``cli`` and ``demo.command``: ``flask aibridge demo``, run for real."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import urllib3
from click.testing import CliRunner, Result
from flask.cli import FlaskGroup

import flask_aibridge
from flask_aibridge.cli import aibridge
from flask_aibridge.testing import AnswerWith, StandInProvider, serve_stand_in

pytestmark = pytest.mark.slow

ROOT = str(Path(flask_aibridge.__path__[0]).parent)
PROVIDER_VARIABLES = ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "OPENAI_API_KEY", "OPENAI_BASE_URL")
ORDER = [
    r"Flask-AIBridge",
    r"app +http://127\.0\.0\.1:\d+",
    r"STAND-IN in this process",
    r"1\. The app's own agent asks: in process",
    r"This is the stand-in provider",
    r"2\. An external client asks: over HTTP",
    r"403 license_required",
    r"AI Bridge is a licensed feature",
    r"3\. A licence is installed",
    r"4\. The same call again",
    r"This is the stand-in provider",
    r"5\. What was seen",
    r"door +source +provider +model +tokens +first token",
    r"in process +agents +anthropic \(stand-in\) +stand-in-large +\d+ \+ \d+ +\d+ ms",
    r"HTTP +- +openai \(stand-in\) +stand-in-large +\d+ \+ \d+ +\d+ ms",
]


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in's pauses are for people; a process of its own keeps them."""
    monkeypatch.setattr("flask_aibridge.demo.providers.TOKEN_INTERVAL", 0.0)


def assert_in_order(output: str, expected: list[str]) -> None:
    position = 0
    for pattern in expected:
        found = re.search(pattern, output[position:])
        assert found, f"{pattern!r} does not come after what comes before it, in:\n{output}"
        position += found.end()


def run(*arguments: str, env: dict[str, str] | None = None) -> Result:
    cleared: dict[str, str | None] = dict.fromkeys(PROVIDER_VARIABLES)
    return CliRunner().invoke(aibridge, arguments, env=cleared | (env or {}), catch_exceptions=False)


def command(*arguments: str) -> list[str]:
    """The command line of a fresh process, whether the package is installed or not."""
    code = "from flask_aibridge.cli import aibridge; aibridge()"
    return [sys.executable, "-c", f"import sys; sys.path.insert(0, {ROOT!r}); {code}", *arguments]


def clean_environment() -> dict[str, str]:
    kept = {
        name: value for name, value in os.environ.items() if name not in (*PROVIDER_VARIABLES, "FLASK_APP")
    }
    return {**kept, "PYTHONWARNINGS": "error", "PYTHONDEVMODE": "1"}


@pytest.mark.usefixtures("no_leaks")
def test_it_shows_everything_in_order() -> None:
    """The agent, the refusal, the licence, the same call, the table; and it leaves nothing behind."""
    result = run("demo", "--once", "--port", "0")
    assert result.exit_code == 0
    assert_in_order(result.output, ORDER)
    assert "curl" not in result.output
    assert "\x1b" not in result.output


def test_in_a_process_of_its_own(tmp_path: Path, deadline: float) -> None:
    """In an empty folder, with no application and no warning."""
    done = subprocess.run(
        command("demo", "--once"),
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        encoding="utf-8",
        timeout=deadline,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert_in_order(done.stdout, ORDER)


def test_an_old_encoding_is_no_reason_to_fail(tmp_path: Path, deadline: float) -> None:
    """What it cannot show is a question mark."""
    done = subprocess.run(
        command("demo", "--once", "--port", "0"),
        cwd=tmp_path,
        env={**clean_environment(), "PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        encoding="latin-1",
        timeout=deadline,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "You wrote: ?In one sentence" in done.stdout


def test_flask_finds_it_without_an_application(tmp_path: Path, deadline: float) -> None:
    """``flask aibridge demo`` is what the README says."""
    if not any(entry.name == "aibridge" for entry in entry_points(group="flask.commands")):
        pytest.skip("the package is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "flask", "aibridge", "demo", "--once", "--port", "0"],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        encoding="utf-8",
        timeout=deadline,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert_in_order(done.stdout, ORDER)


def test_flask_can_hold_it() -> None:
    """As a command of the ``flask`` group, without loading an application."""
    group = FlaskGroup(add_default_commands=False)
    group.add_command(aibridge)
    result = CliRunner().invoke(group, ["aibridge", "--help"])
    assert result.exit_code == 0
    assert re.search(r"demo +Show an LLM answer stream", result.output)


class Running:
    """A demo that goes on serving, and what it has printed."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            command("demo", *arguments),
            cwd=folder,
            env=clean_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.output = b""
        self.reads: list[bytes] = []

    def read_until(self, text: str) -> None:
        assert self.process.stdout is not None
        while text.encode() not in self.output:
            piece = os.read(self.process.stdout.fileno(), 65536)
            assert piece, f"it ended before {text!r}:\n{self.output.decode()}"
            self.reads.append(piece)
            self.output += piece

    def interrupt(self, seconds: float) -> tuple[int, str, str]:
        self.process.send_signal(signal.SIGINT)
        rest, errors = self.process.communicate(timeout=seconds)
        return self.process.returncode, rest.decode(), errors.decode()


def test_it_goes_on_serving_until_ctrl_c(tmp_path: Path, deadline: float) -> None:
    """Its curl lines work as they stand; Ctrl-C is a clean end."""
    demo = Running(tmp_path, "--port", "0")
    try:
        demo.read_until("/agent?ask=Hello'\n")
        answers = [request(line) for line in curl_lines(demo.output.decode())]
        code, rest, errors = demo.interrupt(deadline)
    finally:
        demo.process.kill()
        demo.process.communicate()
    assert [status for status, _ in answers] == [200, 200, 200]
    assert all("stand-in" in text for _, text in answers)
    assert (code, errors) == (0, "")
    assert rest.endswith("Stopped.\n")


def test_tokens_are_printed_as_they_arrive(tmp_path: Path, deadline: float) -> None:
    """One by one, not as a whole; and Ctrl-C in the middle is a clean end too."""
    demo = Running(tmp_path, "--port", "0")
    try:
        demo.read_until("Nobody has")
        code, _, errors = demo.interrupt(deadline)
    finally:
        demo.process.kill()
        demo.process.communicate()
    assert len([piece for piece in demo.reads if len(piece.split()) == 1]) > 5
    assert (code, errors) == (0, "")


def curl_lines(output: str) -> list[list[str]]:
    """The arguments of each curl command, as a shell would split them."""
    joined = output.replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in joined if line.startswith("curl ")]


def request(arguments: list[str]) -> tuple[int, str]:
    """What curl would do."""
    assert arguments[0] == "-N"
    options = dict(zip(arguments[2::2], arguments[3::2], strict=True))
    headers = dict(
        value.split(": ", 1)
        for name, value in zip(arguments[2::2], arguments[3::2], strict=True)
        if name == "-H"
    )
    with urllib3.PoolManager() as http:
        method = "POST" if "-d" in options else "GET"
        response = http.request(method, arguments[1], body=options.get("-d"), headers=headers)
    return response.status, response.data.decode()


def test_a_port_that_is_taken_says_what_to_do() -> None:
    """The next sentence names the option."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("demo", "--once", "--port", str(port))
    assert result.exit_code == 1
    assert f"Port {port} cannot be used" in result.output
    assert "--port" in result.output


def test_a_real_provider_is_used_where_there_is_a_key() -> None:
    """By its own URL, with its own key, and without the word stand-in."""
    stand_in = StandInProvider(answer=["Real", " enough."], keys=["sk-1"])
    with serve_stand_in(stand_in) as served:
        env = {"OPENAI_API_KEY": "sk-1", "OPENAI_BASE_URL": f"{served.base_url}/v1"}
        result = run("demo", "--once", "--port", "0", "--model", "gpt-x", env=env)
    assert result.exit_code == 0
    assert "STAND-IN" not in result.output
    assert f"openai at {served.base_url}/v1, model gpt-x" in result.output
    assert result.output.count("Real enough.") == 2
    assert "sk-1" not in result.output


def test_a_provider_that_refuses_the_key_is_said() -> None:
    """As callers of a gateway are told; everything else is still shown, and the exit status tells."""
    with serve_stand_in(StandInProvider(failures=[AnswerWith(401), AnswerWith(401)])) as served:
        env = {"ANTHROPIC_API_KEY": "sk-1", "ANTHROPIC_BASE_URL": served.base_url}
        result = run("demo", "--once", "--port", "0", env=env)
    assert result.exit_code == 1
    assert_in_order(
        result.output, ["failed: 502", "ANTHROPIC_API_KEY", "403 license_required", "failed: 502", "5. What"]
    )


def test_a_bad_base_url_says_what_to_do() -> None:
    """By the name of its variable."""
    result = run("demo", "--once", env={"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "nonsense"})
    assert result.exit_code == 1
    assert "OPENAI_BASE_URL" in result.output


def test_an_unknown_command_is_a_usage_error() -> None:
    """As everywhere."""
    assert run("no-such-command").exit_code == 2


def test_the_module_is_light() -> None:
    """Flask loads it for every command of every application: what a command needs is imported when it is called."""
    show = (
        "print([name for name in ('flask_aibridge.demo', 'flask_aibridge.testing') if name in sys.modules])"
    )
    code = f"import sys; sys.path.insert(0, {ROOT!r}); import flask_aibridge.cli; {show}"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n"
