"""Every recording, told to the SDKs by both doors: what the provider said is what they say, and what is recorded."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests import recordings
from tests.bridge.test_recordings import check
from tests.integration.replaying import ABOUT_A_KEY
from tests.recordings import Recording

httpx2 = pytest.importorskip("httpx2")
openai = pytest.importorskip("openai", minversion="3")
anthropic = pytest.importorskip("anthropic", minversion="2")

from tests.integration.sdks import DOORS, SDKs, sdks_at_a_host  # noqa: E402

pytestmark = pytest.mark.slow

SENDABLE = [
    recording
    for recording in recordings.ALL
    if "model" in recording.document
    and not recording.name.startswith("messages_request_")
    and recording.status not in ABOUT_A_KEY
]
"""Those whose request an SDK can make."""

UNREADABLE = {"messages_unknown_encoding"}
"""Answers that are whole, and that no SDK can read."""

BY_DOOR = [
    pytest.param(recording, door, id=f"{recording}-{door.replace(' ', '_')}")
    for recording, door in zip(SENDABLE, itertools.cycle(DOORS))
]
"""By the doors in turn: that the bytes of each recording are the same by both of them is tested without an SDK."""


@pytest.fixture(scope="module")
def sdks() -> Iterator[SDKs]:
    with sdks_at_a_host() as sdks:
        yield sdks


@pytest.mark.parametrize(("recording", "door"), BY_DOOR)
def test_an_sdk_gets_what_was_recorded(sdks: SDKs, recording: Recording, door: str) -> None:
    """A whole answer is no error; one that breaks off, and one with the status of an error, is."""
    host = sdks.host
    host.forget()
    host.provider.play(recording)
    error = None
    try:
        sdks.ask(recording, door)
    except (openai.APIError, anthropic.APIError, httpx2.HTTPError, ValueError) as raised:
        error = raised

    (told,) = host.witness.ended(1)
    check(recording, told.records)
    if recording.is_cut or recording.status >= 400:
        assert error is not None
    if recording.expected["status"] == "completed" and recording.name not in UNREADABLE:
        assert error is None
    assert told.start.initiator == ("alice" if door == "public" else "application")
    assert told.start.source == (None if door == "public" else "agents")
    assert told.start.model == recording.expected.get("model", recording.document["model"])
    assert len(host.provider.requests) == 1
