"""``demo.providers``: a real provider for each key, a stand-in for none, and both wire formats."""

from __future__ import annotations

import json

import pytest

from flask_aibridge.demo.providers import DIALECTS, STAND_IN_MODEL, partners
from flask_aibridge.errors import ConfigError


def test_without_keys_there_is_a_stand_in_for_both() -> None:
    """Always called one."""
    with partners({"OPENAI_API_KEY": " ", "ANTHROPIC_BASE_URL": "http://localhost"}) as found:
        assert [partner.label for partner in found] == ["anthropic (stand-in)", "openai (stand-in)"]
        assert {partner.model for partner in found} == {STAND_IN_MODEL}
        assert all("127.0.0.1" in partner.settings.base_url for partner in found)


@pytest.mark.parametrize("name", DIALECTS)
def test_a_key_brings_the_real_provider(name: str) -> None:
    """Only that one, with a model of its own."""
    with partners({f"{name.upper()}_API_KEY": "sk-1"}) as [partner]:
        assert (partner.label, partner.is_stand_in, partner.model) == (name, False, DIALECTS[name].model)


def test_a_model_can_be_chosen() -> None:
    """For every provider."""
    with partners({"OPENAI_API_KEY": "k"}, "gpt-x") as [partner]:
        assert json.loads(partner.body("Hi"))["model"] == "gpt-x"


def test_a_bad_base_url_is_named() -> None:
    """Before anything starts."""
    with (
        pytest.raises(ConfigError, match="OPENAI_BASE_URL"),
        partners({"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "x"}),
    ):
        raise AssertionError("never reached")


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize(
    "document",
    [
        {},
        {"type": "ping"},
        {"choices": []},
        {"choices": [{}]},
        {"choices": [{"delta": None}]},
        {"delta": None},
        {"type": "content_block_delta"},
        {"type": "content_block_delta", "delta": {"partial_json": "x"}},
    ],
)
def test_an_event_without_text(name: str, document: dict[str, object]) -> None:
    """Is passed over."""
    assert DIALECTS[name].text_of(document) == ""
