"""Starts what is measured by the public door, each in a process of its own, and reads what CPU it uses."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import gateway_apps
from canned_provider import MODELS
from gateway_load import Target

START_SECONDS = 90.0
"""How long a server may take to listen: LiteLLM's imports take most of it."""

STOP_SECONDS = 10.0
HERE = Path(__file__).resolve().parent
GTHREAD = ("--worker-class", "gthread", "--threads", "16")


@dataclass(frozen=True)
class Serving:
    """A server that listens, and the process that answers."""

    name: str
    target: Target
    pid: int

    def cpu(self) -> float:
        """Seconds of CPU that the serving process has used, all threads."""
        return time.clock_gettime((~self.pid << 3) | 2)  # the clock of another process, by Linux' numbering


@contextlib.contextmanager
def gunicorn(
    name: str,
    factory: str,
    target: Target,
    variables: Mapping[str, str],
    worker: Sequence[str] = GTHREAD,
) -> Iterator[Serving]:
    """One worker of gunicorn, of a kind, that serves ``factory`` of ``gateway_apps``."""
    with socket.create_server(("127.0.0.1", 0)) as listener, tempfile.TemporaryDirectory() as folder:
        port, handle = listener.getsockname()[1], listener.fileno()
        command = [sys.executable, "-m", "gunicorn", "--no-control-socket", "--workers", "1", *worker]
        command += ["--bind", f"fd://{handle}", "--keep-alive", "60"]
        command += ["--worker-tmp-dir", folder, "--log-level", "warning", f"gateway_apps:{factory}()"]
        variables = {**variables, gateway_apps.INSTANCE: folder}
        with _running(command, variables, pass_fds=(handle,)) as process:
            listener.close()
            _until_listening(port, process)
            yield Serving(name, target.at(port), _worker_of(process))


@contextlib.contextmanager
def litellm(python: Path, provider: str) -> Iterator[Serving]:
    """LiteLLM's proxy with one worker and one key, no database and nothing recorded."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        models = [
            {
                "model_name": model,
                "litellm_params": {
                    "model": f"openai/{model}",
                    "api_base": f"{provider}/v1",
                    "api_key": gateway_apps.PROVIDER_KEY,
                },
            }
            for model in MODELS
        ]
        # JSON is YAML.
        config.write_text(json.dumps({"model_list": models, "litellm_settings": {"telemetry": False}}))
        port = _free_port()
        command = [str(python.with_name("litellm")), "--config", str(config), "--host", "127.0.0.1"]
        key = f"sk-{secrets.token_hex(16)}"  # it starts with no less
        variables = {
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_LOG": "ERROR",
            "LITELLM_MASTER_KEY": key,
            "NO_PROXY": "127.0.0.1",
        }
        target = Target("127.0.0.1", port, "/v1/chat/completions", {"Authorization": f"Bearer {key}"})
        with _running([*command, "--port", str(port)], variables) as process:
            _until_listening(port, process)
            yield Serving("LiteLLM's proxy", target, process.pid)


@contextlib.contextmanager
def _running(
    command: Sequence[str], variables: Mapping[str, str], pass_fds: Sequence[int] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command,
            cwd=HERE,
            env={**os.environ, **variables},
            pass_fds=pass_fds,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        )
        try:
            yield process
        except BaseException:
            said.seek(0)
            sys.stderr.write(said.read()[-4000:].decode(errors="replace"))
            raise
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _until_listening(port: int, process: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + START_SECONDS
    while time.monotonic() < give_up:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise RuntimeError(f"{process.args!r} does not listen")


def _worker_of(process: subprocess.Popen[bytes]) -> int:
    give_up = time.monotonic() + START_SECONDS
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while time.monotonic() < give_up and process.poll() is None:
        if found := children.read_text().split():
            return int(found[0])
        time.sleep(0.05)
    raise RuntimeError("gunicorn has no worker")
