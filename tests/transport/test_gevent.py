"""The transport in a process patched by gevent: no wait of any kind blocks the hub."""

from __future__ import annotations

import pytest

from tests.transport.calls import run_script

pytestmark = pytest.mark.slow

pytest.importorskip("gevent")


@pytest.mark.parametrize(
    "scenario",
    [
        "waiting_for_the_head",
        "waiting_for_the_body",
        "each_chunk_arrives_at_once",
        "an_app_that_waits_for_room",
        "a_body_that_waits_for_an_app_to_read",
        "waiting_for_a_slot",
        "a_cancellation_that_is_waited_for",
        "timeouts",
        "exceptions",
        "a_caller_that_is_killed",
        "fifty_streams_at_once",
        "calls_nested_forty_deep",
        "nothing_is_left_open",
        "streams_that_are_open_at_exit",
        "calls_from_native_threads",
        "late_after_native_use",
        "late_in_a_forked_worker",
    ],
)
def test_patched_by_gevent(scenario: str) -> None:
    run_script("scenarios_gevent.py", scenario)
