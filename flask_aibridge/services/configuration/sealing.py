"""Secrets at rest: AES-256-GCM under ``AIBRIDGE_SECRET_KEY``.

A sealed value is text: ``v1.<key id>.<base64url of nonce, ciphertext and tag>``. It is bound to what it is for, so one
that is moved to another row, or whose row says something else than when it was sealed, does not open.

Each secret key gives, by HKDF-SHA256 (RFC 5869), one key to encrypt with, one to make digests with and a short id that
tells which of several a value was sealed under. HKDF adds no strength to a weak secret: the secret has to be random,
and ``config.MIN_SECRET`` characters at least.
"""

from __future__ import annotations

import hmac
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from flask_aibridge.config import MIN_SECRET, SECRET_KEY
from flask_aibridge.errors import ConfigError, SecretKeyMissing, Unsealable

VERSION: Final = "v1"

NONCE_BYTES: Final = 12
"""96 random bits, the size that GCM is made for (NIST SP 800-38D, 8.2.2): good for 2³² values under one key."""

TAG_BYTES: Final = 16

HOW_TO_MAKE_ONE: Final = 'python -c "import secrets; print(secrets.token_urlsafe(32))"'

_KEY_ID_BYTES: Final = 4

_ENCRYPTION: Final = b"flask-aibridge: encryption, v1"
_DIGEST: Final = b"flask-aibridge: digest, v1"
_KEY_ID: Final = b"flask-aibridge: key id, v1"


def secret_key_missing(wanted: str) -> SecretKeyMissing:
    """The error for ``wanted``, something that cannot be done without a secret key."""
    return SecretKeyMissing(
        f"{SECRET_KEY} is not set, so {wanted}. Set it, the same in every process and for good, to a random text: "
        f"{HOW_TO_MAKE_ONE}"
    )


@dataclass(frozen=True, slots=True)
class _Key:
    """What is made of one secret key."""

    id: str
    cipher: AESGCM = field(repr=False)
    digest: bytes = field(repr=False)


class Sealer:
    """Seals texts and opens them again. Any number of threads may use one.

    :param secret_keys: the first seals, all of them open: after a rotation the old one stays behind the new one for
        as long as there are values that were sealed under it.
    :raises SecretKeyMissing: without any.
    :raises ConfigError: for one that is too short.
    """

    __slots__ = ("_keys",)

    def __init__(self, secret_keys: Sequence[str]) -> None:
        if isinstance(secret_keys, str):
            raise TypeError("secret_keys is a sequence of keys, not a single one.")
        if not secret_keys:
            raise secret_key_missing("nothing can be encrypted")
        self._keys = tuple(_key(secret) for secret in secret_keys)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} with {len(self._keys)} key(s)>"

    def seal(self, text: str, *purpose: str) -> str:
        """The text encrypted, differently each time. Only ``open`` with the same ``purpose`` gives it back."""
        key = self._keys[0]
        head = f"{VERSION}.{key.id}"
        nonce = secrets.token_bytes(NONCE_BYTES)
        sealed = nonce + key.cipher.encrypt(nonce, _encoded(text), _associated(head, purpose))
        return f"{head}.{urlsafe_b64encode(sealed).decode('ascii')}"

    def open(self, sealed: str, *purpose: str) -> str:
        """What was sealed for this purpose.

        :raises Unsealable: for anything else. Which key is missing can be told, but not a damaged value from one that
            was sealed for another purpose.
        """
        head, nonce, encrypted = _parts(sealed)
        key = self._key_of(head)
        try:
            text = key.cipher.decrypt(nonce, encrypted, _associated(head, purpose))
        except InvalidTag:
            raise Unsealable(
                f"The value does not open with {SECRET_KEY}: it was changed, or sealed for something else."
            ) from None
        return text.decode("utf-8", "surrogatepass")

    def is_current(self, sealed: str) -> bool:
        """Whether the value was sealed under the first key; false where it should be sealed again."""
        return sealed.startswith(f"{VERSION}.{self._keys[0].id}.")

    def digest(self, text: str, *purpose: str) -> str:
        """A keyed digest (HMAC-SHA256): two texts can be told to be the same, and neither can be guessed without the
        key."""
        return _digest(self._keys[0], text, purpose)

    def digest_fits(self, digest: str, text: str, *purpose: str) -> bool:
        """Whether the digest is that of the text, under any of the keys."""
        found = [
            hmac.compare_digest(_encoded(digest), _encoded(_digest(key, text, purpose))) for key in self._keys
        ]
        return any(found)

    def _key_of(self, head: str) -> _Key:
        for key in self._keys:
            if head == f"{VERSION}.{key.id}":
                return key
        raise Unsealable(
            f"The value was sealed under a key that is not in {SECRET_KEY}. Add that key to the list, behind the "
            "present one, or store the value anew."
        )


def _key(secret: str) -> _Key:
    if not isinstance(secret, str) or len(secret) < MIN_SECRET:
        raise ConfigError(
            f"A key in {SECRET_KEY} is too short: it must be a random text of {MIN_SECRET} characters or more. "
            f"Make one with: {HOW_TO_MAKE_ONE}"
        )
    return _Key(
        _derived(secret, _KEY_ID, _KEY_ID_BYTES).hex(),
        AESGCM(_derived(secret, _ENCRYPTION, 32)),
        _derived(secret, _DIGEST, 32),
    )


def _derived(secret: str, info: bytes, length: int) -> bytes:
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=info).derive(_encoded(secret))


def _digest(key: _Key, text: str, purpose: Sequence[str]) -> str:
    return f"{key.id}.{hmac.digest(key.digest, _associated(text, purpose), 'sha256').hex()}"


def _parts(sealed: str) -> tuple[str, bytes, bytes]:
    """Head, nonce and ciphertext. One value has one spelling: what base64 would forgive is not forgiven here."""
    head, _, body = sealed.rpartition(".")
    try:
        raw = urlsafe_b64decode(body.encode("ascii"))
    except ValueError:
        raw = b""
    if len(raw) < NONCE_BYTES + TAG_BYTES or urlsafe_b64encode(raw).decode("ascii") != body:
        raise Unsealable(f"The value is not one that was sealed with {SECRET_KEY}, or it was cut short.")
    return head, raw[:NONCE_BYTES], raw[NONCE_BYTES:]


def _associated(first: str, purpose: Sequence[str]) -> bytes:
    """The associated data: each part behind its length, so that parts cannot run into one another."""
    parts = [_encoded(part) for part in (first, *purpose)]
    return b"".join(len(part).to_bytes(8) + part for part in parts)


def _encoded(text: str) -> bytes:
    # Tokens come from outside, and JSON can spell a lone surrogate.
    return text.encode("utf-8", "surrogatepass")
