"""``refusal_forms``: the closed gate in the words of the provider that the caller meant."""

from __future__ import annotations

import pytest

from flask_aibridge.config import DEFAULT_BASE_URLS, ProviderSettings
from flask_aibridge.license.refusal_forms import provider_types, refusal_document


class TestTheDocument:
    def test_anthropics(self) -> None:
        """https://platform.claude.com/docs/en/api/errors"""
        assert refusal_document("anthropic", 403, "No.", "license_expired") == {
            "type": "error",
            "error": {"type": "permission_error", "message": "No."},
            "message": "No.",
            "code": "license_expired",
        }

    def test_anthropics_error_for_402_is_its_own(self) -> None:
        """Billing."""
        assert refusal_document("anthropic", 402, "No.", "c")["error"]["type"] == "billing_error"

    @pytest.mark.parametrize("status", [402, 403])
    def test_openais(self, status: int) -> None:
        """Four members, one of them null; the code is the gate's."""
        document = refusal_document("openai", status, "No.", "license_expired")
        error = document.pop("error")
        assert set(error) == {"message", "type", "param", "code"}
        assert (error["message"], error["param"], error["code"]) == ("No.", None, "license_expired")
        assert document == {"message": "No.", "code": "license_expired"}

    @pytest.mark.parametrize("type_", [None, "", "gemini"])
    def test_for_nobody_in_particular(self, type_: str | None) -> None:
        """The two members, in this order, and nothing else."""
        document = refusal_document(type_, 403, "No.", "license_expired")
        assert list(document.items()) == [("message", "No."), ("code", "license_expired")]

    @pytest.mark.parametrize("type_", DEFAULT_BASE_URLS)
    def test_every_provider_type_has_a_form(self, type_: str) -> None:
        """A new type needs one."""
        assert "error" in refusal_document(type_, 403, "No.", "c")


class TestWhichTypeItIs:
    def test_a_name_of_the_settings(self) -> None:
        """Whatever it is called."""
        types = provider_types([ProviderSettings("claude-eu", "anthropic", "https://eu.example")])
        assert types.get("claude-eu") == "anthropic"

    @pytest.mark.parametrize("type_", DEFAULT_BASE_URLS)
    def test_a_name_that_is_a_type(self, type_: str) -> None:
        """Stored providers are not asked for."""
        assert provider_types().get(type_) == type_

    def test_the_settings_win(self) -> None:
        """Somebody may call a server of their own so."""
        types = provider_types([ProviderSettings("anthropic", "openai", "https://own.example")])
        assert types.get("anthropic") == "openai"

    @pytest.mark.parametrize("name", ["", "other", "Anthropic"])
    def test_any_other_is_unknown(self, name: str) -> None:
        """No guess is made."""
        assert provider_types().get(name) is None
