"""Pure: takes a secret out of bytes that pass, whatever pieces they come in."""

from __future__ import annotations

from typing import Final

MIN_REDACTED: Final = 8
"""Characters of the shortest secret that is looked for: a shorter one is none, and would be found in any text."""


class Redactor:
    """Replaces every occurrence of a secret by as many asterisks, so that lengths hold."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()
        self._stars = b"*" * len(self._secret)
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """Return what can go on by now: all but an end that may be the beginning of the secret."""
        data = (self._held + data).replace(self._secret, self._stars)
        held = next(
            (size for size in range(len(self._secret) - 1, 0, -1) if data.endswith(self._secret[:size])), 0
        )
        self._held = data[len(data) - held :]
        return data[: len(data) - held]

    def finish(self) -> bytes:
        """Return the rest."""
        rest, self._held = self._held, b""
        return rest
