"""A short soak: everything that goes wrong in the long one, for some seconds; and deploys, with nothing else wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.services.servers import redis_binary, valkey_binary
from tests.soak.report import Report
from tests.soak.soaking import DEPLOYS, EVERYTHING, Plan, soak

pytest.importorskip("gunicorn")
pytestmark = [
    pytest.mark.servers,
    pytest.mark.slow,
    pytest.mark.skipif(valkey_binary() is None and redis_binary() is None, reason="needs a server"),
    pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux's /proc"),
]

SECONDS = float(os.environ.get("SOAK_SECONDS", "30"))
"""Of load; for more there is ``python -m tests.soak``, which also looks at how processes grow."""

FEW = 16
"""Descriptors and threads that a process may have more of than when it was young: connections to the provider and to
Redis that wait for the next request, threads of gunicorn's pool. One that leaked with each request would have more."""


def test_nothing_is_lost_whatever_goes_wrong() -> None:
    """Every request that reached the provider has one record, with one end and the tokens that were served; nothing is
    left in a spool, and processes that were not killed have what they had."""
    report = soak(Plan(SECONDS, EVERYTHING, pause=1.0, quiet=SECONDS / 2))
    print(report)
    assert not report.wrong, report
    _assert_busy(report)
    assert report.done["workers killed"] >= 1
    assert report.done["Redis killed"] >= 2
    assert report.done["reloads"] + report.done["replacements"] >= 2
    for samples in report.samples.values():
        assert len(samples) > 1
        first, last = samples[0], samples[-1]
        assert last.descriptors <= first.descriptors + FEW, report
        assert last.threads <= first.threads + FEW, report


def test_deploys_under_load_break_no_stream() -> None:
    """Reloads and replacements one after the other: each answer that began ends as it should, by both doors."""
    report = soak(
        Plan(
            SECONDS / 3,
            DEPLOYS,
            pause=0.2,
            quiet=SECONDS,
            protect_after=1.0,
            faults={"none": 8, "slow-start": 1, "stall": 1},
            leaving=0,
            tokens=(5, 150),
            patience=60.0,
        )
    )
    print(report)
    assert not report.wrong, report
    _assert_busy(report)
    assert report.done["reloads"] >= 2
    assert report.done["replacements"] >= 1
    assert report.accounts.broken() == []
    assert report.accounts.statuses() == {"completed": len(report.accounts.served)}


def _assert_busy(report: Report) -> None:
    doors = [asked.door for asked in report.accounts.asked if asked.whole]
    assert min(doors.count("public"), doors.count("in process")) >= 10, report
