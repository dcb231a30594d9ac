"""One in-process contestant, in a process of its own: ``gateway_caller.py <who> <provider's base URL>``.

It reads lines ``<kind> <count>``, makes so many calls, and answers a line of JSON: µs of wall time and of CPU for each,
all threads. It runs in the peers' virtual environment, too, so it imports nothing but what the contestant needs.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

MODEL = "stand-in"
EVENTS = 20
SETTLE_SECONDS = 0.1
MESSAGES = [{"role": "user", "content": "Please look at the failing test and say why it fails. " * 4}]
PATH = "/v1/chat/completions"

Calls: TypeAlias = "dict[str, Callable[[], None]]"
"""By kind: one call, whose answer is taken whole."""


def _by_urllib3(pool: Any, base: str) -> Calls:
    headers = {"Content-Type": "application/json", "Authorization": "Bearer sk-stand-in"}
    question = {"model": MODEL, "messages": MESSAGES}

    def blocking() -> None:
        answer = pool.request("POST", base + PATH, body=json.dumps(question), headers=headers)
        document = json.loads(answer.data)
        assert answer.status == 200, document
        assert document["choices"][0]["message"]["content"]

    def streaming() -> None:
        body = json.dumps({**question, "stream": True})
        answer = pool.request("POST", base + PATH, body=body, headers=headers, preload_content=False)
        received = b"".join(answer.stream())
        answer.release_conn()
        assert received.count(b"data: ") == EVENTS + 1, received[-500:]

    return {"blocking": blocking, "stream": streaming}


@contextmanager
def urllib3_direct(base: str) -> Iterator[Calls]:
    import urllib3

    yield _by_urllib3(urllib3.PoolManager(), base)


@contextmanager
def ours(base: str) -> Iterator[Calls]:
    import gateway_apps

    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {gateway_apps.INSTANCE: folder, gateway_apps.PROVIDER: base}
        app, aibridge = gateway_apps.make_gateway()
        pool = aibridge.transport_for("openai", "agents")
        yield _by_urllib3(pool, "https://api.openai.com")
        if gateway_apps.REDIS in os.environ:
            app.extensions["aibridge"].recording().close()


@contextmanager
def litellm(base: str) -> Iterator[Calls]:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import litellm as library

    options: dict[str, Any] = {
        "model": f"openai/{MODEL}",
        "messages": MESSAGES,
        "api_base": f"{base}/v1",
        "api_key": "sk-stand-in",
    }

    def blocking() -> None:
        assert library.completion(**options).choices[0].message.content

    def streaming() -> None:
        assert sum(1 for _ in library.completion(**options, stream=True)) >= EVENTS - 1

    yield {"blocking": blocking, "stream": streaming}


_TENSORZERO = """
[gateway]
observability.enabled = false
disable_pseudonymous_usage_analytics = true

[models.{model}]
routing = ["canned"]

[models.{model}.providers.canned]
type = "openai"
api_base = "{base}/v1"
model_name = "{model}"
api_key_location = "none"
"""


@contextmanager
def tensorzero(base: str) -> Iterator[Calls]:
    from tensorzero import TensorZeroGateway

    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "tensorzero.toml"
        config.write_text(_TENSORZERO.format(model=MODEL, base=base))
        gateway: Any = TensorZeroGateway.build_embedded(config_file=str(config))
        question = {"messages": MESSAGES}
        with gateway:

            def blocking() -> None:
                assert gateway.inference(model_name=MODEL, input=question).content

            def streaming() -> None:
                chunks = gateway.inference(model_name=MODEL, input=question, stream=True)
                assert sum(1 for _ in chunks) >= EVENTS - 2

            yield {"blocking": blocking, "stream": streaming}


CONTESTANTS = {"ours": ours, "urllib3": urllib3_direct, "litellm": litellm, "tensorzero": tensorzero}


def _timed(call: Callable[[], None], count: int) -> dict[str, float]:
    cpu, began = time.process_time(), time.perf_counter()
    for _ in range(count):
        call()
    took = time.perf_counter() - began
    time.sleep(SETTLE_SECONDS)
    return {"wall": took / count * 1e6, "cpu": (time.process_time() - cpu) / count * 1e6}


def main() -> None:
    """Answer until the pipe is closed."""
    who, base = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")  # libraries print
    os.dup2(2, 1)
    with CONTESTANTS[who](base) as calls:
        for line in sys.stdin:
            kind, count = line.split()
            print(json.dumps(_timed(calls[kind], int(count))), file=answers, flush=True)


if __name__ == "__main__":
    main()
