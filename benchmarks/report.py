"""Tables for people, and the same figures as JSON for programs."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from measure import Figure, Section, Spread, Timing

PACKAGES = (
    "Flask-AIBridge",
    "urllib3",
    "requests",
    "httpx2",
    "httpx",
    "Werkzeug",
    "requests-wsgi-adapter",
    "gunicorn",
)

_VERDICTS = {True: "met", False: "MISSED", None: ""}


def machine() -> dict[str, str]:
    """Describe what the figures were taken on."""
    return {
        "python": f"{platform.python_implementation()} {sys.version}".replace("\n", " "),
        "machine": f"{_cpu_model()}, {os.cpu_count()} cores, {platform.machine()}",
        "system": f"{platform.system()} {platform.release()}, load {os.getloadavg()[0]:.2f}",
        "packages": ", ".join(f"{name} {_version(name)}" for name in PACKAGES),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else "unknown processor"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def render(section: Section) -> str:
    """Return a section as text: its figures with their targets, then the times they were made of."""
    parts = [f"{section.title}\n{'=' * len(section.title)}", _figures(section.figures)]
    if section.timings:
        parts.append(_timings(section.timings))
    if section.notes:
        parts.append("\n".join(f"* {note}" for note in section.notes))
    return "\n\n".join(parts) + "\n"


def _figures(figures: Sequence[Figure]) -> str:
    rows = [
        (
            figure.label,
            f"{_number(figure.spread.median)} {figure.unit}".rstrip(),
            _quartiles(figure.spread),
            "" if figure.target is None else str(figure.target),
            _VERDICTS[figure.met],
        )
        for figure in figures
    ]
    return _table(("figure", "median", "quartiles", "target", ""), rows)


def _timings(timings: Sequence[Timing]) -> str:
    rows = [
        (
            timing.name,
            _number(timing.microseconds.median),
            _quartiles(timing.microseconds),
            f"{timing.garbage:.1f}",
        )
        for timing in timings
    ]
    return _table(("contestant", "µs each", "quartiles", "garbage"), rows)


def _quartiles(spread: Spread) -> str:
    return f"{_number(spread.lower)} – {_number(spread.upper)}"


def _number(value: float) -> str:
    if value >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 100 else f"{value:.2f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return aligned columns, the first to the left and the others to the right."""
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    texts = [_line(line, widths) for line in lines]
    return "\n".join([texts[0], "  ".join("-" * width for width in widths), *texts[1:]])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first = cells[0].ljust(widths[0])
    others = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
    return "  ".join([first, *others]).rstrip()


def as_json(described: dict[str, str], sections: Iterable[Section]) -> dict[str, Any]:
    """Return everything that the tables show, unrounded."""
    return {"machine": described, "sections": [_section_as_json(section) for section in sections]}


def _section_as_json(section: Section) -> dict[str, Any]:
    figures = [
        {
            "label": figure.label,
            **figure.spread._asdict(),
            "unit": figure.unit,
            "target": str(figure.target) if figure.target else None,
            "met": figure.met,
        }
        for figure in section.figures
    ]
    timings = [
        {**asdict(timing), "microseconds": timing.microseconds._asdict()} for timing in section.timings
    ]
    return {"title": section.title, "figures": figures, "timings": timings, "notes": list(section.notes)}
