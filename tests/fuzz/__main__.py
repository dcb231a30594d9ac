"""Searches for bytes that break a turn machine, with atheris (``pip install atheris``), until it is stopped:
``python -m tests.fuzz -max_total_time=600 <folder>``.

The arguments are libFuzzer's. The folder keeps what was worth keeping; where it is empty, it is filled with the
recordings.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["flask_aibridge.bridge"]):
    from tests.fuzz.fuzz_turns import one_input, seeds


def main(arguments: list[str]) -> None:
    for folder in (Path(each) for each in arguments[1:] if not each.startswith("-")):
        folder.mkdir(exist_ok=True)
        if not any(folder.iterdir()):
            for name, data in seeds():
                (folder / name).write_bytes(data)
    atheris.Setup(arguments, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
