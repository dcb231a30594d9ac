"""What every part's tests may ask for: a deadline, and the promise that a test left nothing behind."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.leaks import Snapshot

ENVIRONMENT = os.environ.get("FLASK_AIBRIDGE_TOX_ENV")
EVERYTHING = ENVIRONMENT in (None, "servers", "coverage", "security")
"""Whether this run is the one that has every kind of server and the slow tests: outside tox, and in its environment
``servers``. The others have one kind: what they are for are the versions of Python and of the libraries."""

BRIEF = ("base", "min", "py312")
"""The runs without the slow tests, which are about threads, signals and descriptors, not about a library's version."""

DEADLINE_SECONDS = 20.0
"""How long a test waits for an event that must come: far beyond a slow machine's need, well below a hang."""

# How long an example takes says something about the machine; in a fresh environment the first draw of text builds the
# tables of Unicode, which takes seconds. A failure prints what reproduces it, so no database is kept.
settings.register_profile(
    "project",
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
    # Examples are about the code, so one Python with all of them is enough; the other runs look for what differs there.
    max_examples=100 if EVERYTHING or ENVIRONMENT == "py313" else 20,
)
settings.load_profile("project")


def pytest_configure() -> None:
    """Have Ctrl-C work in what the tests start: a shell that runs them in the background makes it nothing, and that is
    inherited."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def deadline() -> float:
    """Seconds to wait for an event that must come."""
    return DEADLINE_SECONDS


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """After the test, every descriptor and every thread it opened is gone (cached idle workers aside)."""
    before = Snapshot()
    yield
    left = before.still_left_behind(DEADLINE_SECONDS)
    assert not left, f"left behind by the test: {', '.join(left)}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what other environments run: the whole of ``tox`` has to be done in the time of a cup of coffee."""
    left_out = (
        {} if EVERYTHING else {name: f"in the environment `{name}`" for name in ("servers", "security")}
    )
    if ENVIRONMENT in BRIEF:
        left_out["slow"] = "slow: on the oldest and the newest Python"
    for item in items:
        for marker, reason in left_out.items():
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(tryfirst=True)
def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """In a log file there is no dot for a test that passed or was skipped: ten environments have 70,000 of them."""
    if report.failed or sys.stdout.isatty() or hasattr(report, "wasxfail"):
        return None
    counted = report.skipped or report.when == "call"
    return (report.outcome if counted else "", "", "")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many tests were skipped for which reason: a line for each would bury what failed under thousands."""
    reasons: Counter[str] = Counter()
    for report in terminalreporter.getreports("skipped"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reasons[reason.removeprefix("Skipped: ")] += 1
    if reasons:
        terminalreporter.section("skipped", sep="-")
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"{count:6} {reason}")
