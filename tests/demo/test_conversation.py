"""``demo.conversation``: the same question by both doors, and every way in which an answer can fail."""

from __future__ import annotations

import pytest
import urllib3

from flask_aibridge.config import ProviderSettings
from flask_aibridge.demo.application import Demonstration, serve
from flask_aibridge.demo.conversation import AnswerFailed, ask_by_http, ask_in_process
from flask_aibridge.demo.providers import Partner
from flask_aibridge.testing import AnswerWith, DropAfter, ErrorAfter, Failure, StandInProvider, serve_stand_in

TOKENS = ["One", " two", " three"]
TYPES = ["anthropic", "openai"]


def partner_at(base_url: str, type_: str) -> Partner:
    url = base_url + ("/v1" if type_ == "openai" else "")
    return Partner(ProviderSettings(type_, type_, url, ("k",)), "m", True)


@pytest.mark.parametrize("type_", TYPES)
def test_an_answer_by_both_doors(type_: str) -> None:
    """Piece by piece, with the time of the first."""
    with serve_stand_in(StandInProvider(answer=TOKENS)) as served:
        shown = Demonstration([partner_at(served.base_url, type_)])
        shown.install_license()
        with ask_in_process(shown.aibridge, shown.agent, "Count.") as answer:
            assert answer.time_to_first_token is None
            assert list(answer.text()) == TOKENS
            assert answer.time_to_first_token is not None
        with serve(shown.app, 0) as base_url, urllib3.PoolManager() as http:
            url = base_url + shown.path_of(shown.client)
            with ask_by_http(http, url, shown.api_key, shown.client, "Count.") as answer:
                assert list(answer.text()) == TOKENS
        doors = [record.in_process for record in shown.records.take(2)]
        shown.close()
    assert doors == [True, False]


@pytest.mark.parametrize("type_", TYPES)
@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (AnswerWith(529), "529: Overloaded"),
        (ErrorAfter(1, "Too busy"), "Too busy"),
        (AnswerWith(500, b"<p>"), "500: no"),
    ],
)
def test_an_answer_that_is_an_error(type_: str, failure: Failure, message: str) -> None:
    """At its head or in its middle: the provider's own sentence."""
    with serve_stand_in(StandInProvider(answer=TOKENS, failures=[failure])) as served:
        shown = Demonstration([partner_at(served.base_url, type_)])
        with (
            ask_in_process(shown.aibridge, shown.agent, "x") as answer,
            pytest.raises(AnswerFailed, match=message),
        ):
            list(answer.text())


@pytest.mark.parametrize("type_", TYPES)
def test_an_answer_that_breaks_off(type_: str) -> None:
    """After the pieces that came."""
    with serve_stand_in(StandInProvider(answer=TOKENS, failures=[DropAfter(2)])) as served:
        shown = Demonstration([partner_at(served.base_url, type_)])
        pieces: list[str] = []
        with (
            ask_in_process(shown.aibridge, shown.agent, "x") as answer,
            pytest.raises((urllib3.exceptions.HTTPError, AnswerFailed)),
        ):
            pieces.extend(answer.text())


def test_a_provider_that_is_not_there() -> None:
    """The bridge's own error has the provider's form."""
    shown = Demonstration([partner_at("http://127.0.0.1:9", "openai")])
    with (
        ask_in_process(shown.aibridge, shown.agent, "x") as answer,
        pytest.raises(AnswerFailed, match="502: .*could not be reached"),
    ):
        list(answer.text())
