"""Recordings through the two drivers, in any pieces: what a server is handed, and what is recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace

import pytest

from flask_aibridge.bridge.intercept.blocking import held_body
from flask_aibridge.bridge.intercept.streaming import StreamedBody
from flask_aibridge.bridge.interception import Interception
from flask_aibridge.bridge.upstream import UpstreamBroken
from flask_aibridge.services.records import Record
from tests import recordings
from tests.bridge.intercept.test_drivers import FakeAnswer
from tests.bridge.test_recordings import check, singly, turn_of
from tests.recordings import Recording

BEGINNING = 512
"""How far into an answer it comes byte by byte: the machines have been fed all of it so; what is tried here is how they
are driven."""

Driver = Callable[[FakeAnswer, Recording, Interception], Iterable[bytes]]


def streaming(answer: FakeAnswer, recording: Recording, interception: Interception) -> Iterable[bytes]:
    return StreamedBody(answer, turn_of(recording), interception)  # type: ignore[arg-type]


def blocking(answer: FakeAnswer, recording: Recording, interception: Interception) -> Iterable[bytes]:
    return held_body(answer, turn_of(recording), interception)  # type: ignore[arg-type]


def holding_little(answer: FakeAnswer, recording: Recording, interception: Interception) -> Iterable[bytes]:
    """The blocking driver, of an answer that is longer than what it holds back."""
    return held_body(answer, turn_of(recording), interception, 10)  # type: ignore[arg-type]


def driven(recording: Recording, driver: Driver, pieces: Iterable[bytes]) -> tuple[bytes, list[Record]]:
    """The bytes that a server gets for an answer that comes in these pieces, and the records."""
    records: list[Record] = []
    interception = Interception([], record=records.append)
    interception.admitted(None, recorded=True)
    interception.status = recording.status
    interception.request_id = next(
        (value for name, value in recording.headers if name.lower() in ("request-id", "x-request-id")), None
    )
    broken = [UpstreamBroken("reset")] if recording.is_cut else []
    answer = FakeAnswer(*(piece for piece in pieces if piece), *broken)
    given = b""
    try:
        body = driver(answer, recording, interception)
    except (
        UpstreamBroken
    ) as error:  # nothing has been given yet: the bridge puts an answer of its own in its place
        interception.finish("upstream_truncated", str(error))
        return recording.relayed, records
    with suppress(UpstreamBroken):
        for piece in body:
            assert piece or isinstance(body, list)
            given += piece
    if isinstance(body, StreamedBody):
        body.close()
    assert answer.closed == 1
    return given, records


PAIRS = [
    pytest.param(recording, driver, id=f"{recording}-{driver.__name__}")
    for recording in recordings.ALL
    for driver in (
        (streaming,) if recording.media_type == "text/event-stream" else (streaming, blocking, holding_little)
    )
]


@pytest.mark.slow
@pytest.mark.parametrize(("recording", "driver"), PAIRS)
def test_by_each_driver(recording: Recording, driver: Driver) -> None:
    """Whole and byte by byte, a document by any driver: the same bytes, records and end."""
    short = replace(recording, body=recording.abridged)
    slowly = [*singly(short.body[:BEGINNING]), short.body[BEGINNING:]]
    for each, pieces in ((recording, [recording.body]), (short, slowly)):
        given, records = driven(each, driver, pieces)
        assert given == each.relayed
        check(each, records)
