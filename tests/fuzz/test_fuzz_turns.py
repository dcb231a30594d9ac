"""The promises of the turn machines hold for any bytes: those of the recordings, those near them, and rubbish."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_aibridge.bridge.intercept.vocabulary import Ended, Item, Relay, Usage
from flask_aibridge.observability import TokenUsage
from tests.fuzz import fuzz_turns
from tests.fuzz.fuzz_turns import CODINGS, HEADER, case_of, check, is_rest_of, one_input

SEEDS = dict(fuzz_turns.seeds())
SHORT = [seed for seed in SEEDS.values() if len(seed) < 5000]
PLACES = st.integers(0, 5000)


@st.composite
def inputs(draw: st.DrawFn) -> bytes:
    """A recording, fed to any machine, after a few accidents."""
    body = draw(st.sampled_from(SHORT))[HEADER:]
    for _ in range(draw(st.integers(0, 4))):
        start, end = sorted((draw(PLACES) % (len(body) + 1), draw(PLACES) % (len(body) + 1)))
        match draw(st.integers(0, 4)):
            case 0:  # lost
                body = body[:start] + body[end:]
            case 1:  # said again
                body = body[:end] + body[start:]
            case 2:  # from elsewhere
                body = body[:start] + draw(st.sampled_from(SHORT))[HEADER:] + body[start:]
            case 3:  # damaged
                body = body[:start] + draw(st.binary(max_size=5)) + body[start + 1 :]
            case _:  # never ended
                body = body[:end]
    header = draw(st.binary(min_size=HEADER, max_size=HEADER))
    return header + body


@given(inputs())
def test_near_a_recording(data: bytes) -> None:
    """Answers that went wrong on the way, and answers of another API than was asked."""
    one_input(data)


@given(st.binary(max_size=300))
def test_rubbish(data: bytes) -> None:
    """It is relayed as it is."""
    one_input(data)


@pytest.mark.parametrize("name", SEEDS)
def test_a_seed(name: str) -> None:
    """The fuzzer begins with inputs that pass, each read by the machine that it was recorded for."""
    one_input(SEEDS[name])


def test_a_choice_is_made_of_every_input() -> None:
    """Three bytes reach every machine, format, coding and end; fewer are no input."""
    cases = [case_of(bytes((which, how, 0))) for which, how in itertools.product(range(12), range(256))]
    assert len({case[:6] for case in cases}) == 4 * 3 * len(CODINGS) * 2**3
    assert {case.coding for case in cases if case.is_sound} == {"identity", "gzip", "deflate"}
    for data in (b"", b"1", b"12", b"123"):
        one_input(data)


def test_a_broken_promise_is_noticed() -> None:
    """Usage or an end that is said twice, bytes that are lost or change places."""
    usage, relay = Usage(TokenUsage(1)), Relay(b"ab")
    case = case_of(b"\x00\x00\x00ab")
    check(case, [relay, usage, Ended()])
    broken: list[list[Item]] = [
        [relay, usage, usage],
        [relay, Ended(), Ended()],
        [Relay(b"a")],
        [Relay(b"ba")],
        [],
    ]
    for items in broken:
        with pytest.raises(AssertionError):
            check(case, items)
    assert is_rest_of(b"ac", b"abc")
    assert not is_rest_of(b"ca", b"abc")
