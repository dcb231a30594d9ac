"""``license.sources``: licence files, and texts with the keys and deny lists of one configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from flask_aibridge.errors import ConfigError
from flask_aibridge.license import Gate
from flask_aibridge.license.gate import read_license_file
from flask_aibridge.license.sources import LicenseTexts
from tests.license.signed import KEYS, NOW, licence


class TestTexts:
    def test_where_a_licence_comes_from(self) -> None:
        """What has been installed has a time of that."""
        texts = LicenseTexts(KEYS, ())
        assert texts.license(licence(), now=NOW, deployment_id=None).source == "config"
        installed = texts.license(licence(jti="a"), now=NOW, deployment_id=None, uploaded_at=5.0)
        assert (installed.source, installed.uploaded_at, installed.id) == ("installed", 5.0, "a")

    def test_the_id_that_it_is_kept_under(self) -> None:
        """Also of one whose own cannot be read any more."""
        texts = LicenseTexts(KEYS, ())
        kept = texts.license("x.y.z", now=NOW, deployment_id=None, uploaded_at=5.0, license_id="a")
        assert kept.id == "a"
        assert kept.refused is not None

    def test_without_keys_no_licence_is_known(self) -> None:
        """The built-in ones are all there are then."""
        found = LicenseTexts({}, ()).license(licence(), now=NOW, deployment_id=None)
        assert found.refused is not None
        assert found.refused.code == "license_unknown_key"

    def test_bad_keys_and_lists_are_the_configurations_errors(self) -> None:
        """Found when they are given, not with the first licence."""
        with pytest.raises(ConfigError):
            LicenseTexts({"k1": "nonsense"}, ())
        with pytest.raises(ConfigError):
            LicenseTexts({}, ("nonsense",))


class TestFiles:
    def test_its_text(self, tmp_path: Path) -> None:
        """As it is."""
        path = tmp_path / "license.jwt"
        path.write_text("a.b.c\n")
        assert read_license_file(path) == "a.b.c\n"

    def test_the_mark_of_an_editor_is_left_out(self, tmp_path: Path) -> None:
        """Nobody sees it (a byte order mark in UTF-8)."""
        path = tmp_path / "license.jwt"
        path.write_text("a.b.c\n", encoding="utf-8-sig")
        assert read_license_file(path) == "a.b.c\n"

    @pytest.mark.parametrize("name", ["missing.jwt", "."])
    def test_a_file_that_cannot_be_read_is_named(self, tmp_path: Path, name: str) -> None:
        """With the reason."""
        path = tmp_path / name
        with pytest.raises(ConfigError, match="AIBRIDGE_LICENSE_FILE") as caught:
            read_license_file(path)
        assert str(path) in str(caught.value)

    def test_a_large_file_is_not_read_whole(self, tmp_path: Path) -> None:
        """Enough of it to say that it is too large."""
        path = tmp_path / "license.jwt"
        path.write_bytes(b"x" * 1_000_000)
        text = read_license_file(path)
        assert len(text) < 20_000
        assert Gate(KEYS, text).check().code == "license_too_large"

    def test_a_file_of_something_else(self, tmp_path: Path) -> None:
        """Is malformed, not an exception."""
        path = tmp_path / "license.jwt"
        path.write_bytes(bytes(range(256)))
        assert Gate(KEYS, read_license_file(path)).check().code == "license_malformed"
