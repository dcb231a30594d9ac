"""The virtual environment of the gateways that ours is compared with; made when it is asked for, and kept."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements-gateway.txt")
INSTALL_SECONDS = 900.0


def folder() -> Path:
    """Where it is: in the user's cache, under a name that changes with what is in it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    wanted = f"{sys.version_info[:2]} {REQUIREMENTS.read_text()}"
    return cache / "flask-aibridge-benchmarks" / hashlib.sha256(wanted.encode()).hexdigest()[:12]


def python() -> Path | None:
    """Its interpreter, ready to be used; null, having said why, where the peers cannot be installed."""
    venv = folder()
    found, ready = venv / "bin" / "python", venv / "ready"
    if ready.exists():
        return found
    print(f"installing the peers into {venv} …", flush=True)
    try:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)], check=True, capture_output=True)
        subprocess.run(
            [str(found), "-m", "pip", "install", "-q", "-r", str(REQUIREMENTS)],
            check=True,
            capture_output=True,
            timeout=INSTALL_SECONDS,
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or b""
        print(f"without the peers: {error}\n{said[-1000:].decode(errors='replace')}", flush=True)
        return None
    ready.touch()
    return found
