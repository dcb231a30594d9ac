"""Texts → licences, with the public keys and deny lists of one configuration.

PyJWT, marshmallow and cryptography are loaded with the first text, key or list: 130 ms that a host without a licence
need not pay.
"""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from flask_aibridge.config import LICENSE_FILE
from flask_aibridge.errors import ConfigError, LicenseError

if TYPE_CHECKING:
    from flask_aibridge.license.licenses import License
    from flask_aibridge.license.reading import LicenseReader

__all__ = ["LicenseTexts", "read_license_file"]

#: Bytes read of a licence file: one more than a licence may have, so that a larger one is known to be too
#: large.
MAX_FILE_BYTES: Final = 16 * 1024 + 1


class LicenseTexts:
    """Reads licences; each signature is verified once.

    :raises ConfigError: for a public key or a deny list that cannot be used.
    """

    def __init__(self, public_keys: Mapping[str, str], deny_lists: Sequence[str]) -> None:
        self._public_keys = public_keys
        self._deny_lists = deny_lists
        self._reader: LicenseReader | None = None
        self._revoked: frozenset[str] = frozenset()
        if public_keys or deny_lists:
            self._open()

    def license(
        self,
        token: str,
        *,
        now: float,
        deployment_id: str | None,
        uploaded_at: float | None = None,
        license_id: str | None = None,
    ) -> License:
        """The licence that a text is, refused or not.

        :param uploaded_at: when it was installed; ``None`` for one of the configuration.
        """
        return (self._reader or self._open()).license(
            token,
            source="config" if uploaded_at is None else "installed",
            now=now,
            deployment_id=deployment_id,
            revoked=self._revoked,
            uploaded_at=uploaded_at,
            license_id=license_id,
        )

    def _open(self) -> LicenseReader:
        from flask_aibridge.license.reading import LicenseReader
        from flask_aibridge.license.revocation import revoked_ids
        from flask_aibridge.license.signature import known_keys

        keys = known_keys(self._public_keys)
        try:
            self._revoked = revoked_ids(self._deny_lists, keys)
        except LicenseError as error:
            raise ConfigError(str(error)) from None
        self._reader = LicenseReader(keys)
        return self._reader


def read_license_file(path: Path) -> str:
    """The text of a licence file; no more of it than shows that it is too large.

    :raises ConfigError: for a file that cannot be read, naming it.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(f"{LICENSE_FILE} names {str(path)!r}, which cannot be read: {reason}.") from error
    # Some editors begin a file with a mark of its encoding, which nobody sees. A byte that is not ASCII cannot be part
    # of a licence; the gate then says so.
    return raw.removeprefix(BOM_UTF8).decode("ascii", "replace")
