"""Pure: the public keys, and a compact JWT → its verified payload, or the reason why not.

The rules (RFC 7515, RFC 8725 "JWT Best Current Practices"):

* one algorithm, ``EdDSA``, with one curve, Ed25519 (section 3.1 there); whatever else the header names is
  refused before any key is looked at, so a public key can never be used as an HMAC secret;
* the key comes from a table of known public keys, by ``kid``; a key or an URL inside the token is never read
  (3.10);
* every kind of token has its ``typ``, so no other JWT of the same issuer passes for a licence (3.11);
* a ``crit`` header is refused: no extension is understood here (RFC 7515, section 4.1.11).
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from flask_aibridge.errors import ConfigError
from flask_aibridge.license.refusals import refusal

__all__ = [
    "ALGORITHM",
    "BUILT_IN_KEYS",
    "MAX_LICENSE_BYTES",
    "TYPE",
    "PublicKeys",
    "compact",
    "known_keys",
    "load_public_keys",
    "verify",
]

ALGORITHM: Final = "EdDSA"
TYPE: Final = "aibridge-license+jwt"

#: A licence with every claim is about 1 KiB; the limit keeps a wrong file from being parsed at all.
MAX_LICENSE_BYTES: Final = 16 * 1024

#: The vendor's own keys, ``{kid: key}``, oldest to newest, in the form of ``AIBRIDGE_LICENSE_PUBLIC_KEYS``.
#: Empty: no vendor key has been published yet, so every key comes from the config. A rotation adds the new
#: key here and keeps the old one.
BUILT_IN_KEYS: Final[Mapping[str, str]] = MappingProxyType({})

#: ``{kid: key}``, oldest to newest.
PublicKeys: TypeAlias = Mapping[str, Ed25519PublicKey]

_COMPACT_JWT = re.compile(r"([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*")
_RAW_KEY_BYTES = 32
# RFC 8032, section 5.1: the prime of the field, and the y coordinates of the eight points whose order divides 8. With
# one of them as the public key anybody can make signatures that are right, and OpenSSL takes them as keys.
_PRIME = 2**255 - 19
_ORDER_8 = 2707385501144840649318225287225658788936804267575313519463743609750303402022
_SMALL_ORDER: Final = frozenset({0, 1, _PRIME - 1, _ORDER_8, _PRIME - _ORDER_8})
_SIGNATURE_BYTES = 64  # RFC 8032, section 5.1.6


def known_keys(configured: Mapping[str, str]) -> PublicKeys:
    """The built-in public keys and then those of the configuration.

    :raises ConfigError: for one that cannot be used, or that has the ``kid`` of a built-in key and is another.
    """
    built_in = load_public_keys(BUILT_IN_KEYS)
    added = load_public_keys(configured)
    for kid in built_in.keys() & added.keys():
        if built_in[kid] != added[kid]:
            raise ConfigError(
                f"AIBRIDGE_LICENSE_PUBLIC_KEYS[{kid!r}] is not the built-in key of that name: leave it out, or "
                "give yours another kid."
            )
    return MappingProxyType({**built_in, **added})


def load_public_keys(keys: Mapping[str, str]) -> PublicKeys:
    """The public keys of a mapping ``{kid: PEM, or base64 (either alphabet) of 32 bytes}``.

    :raises ConfigError: for a key that is anything else, naming its ``kid`` and never showing the key.
    """
    return {kid: _load_public_key(kid, text.strip()) for kid, text in keys.items()}


def _load_public_key(kid: str, text: str) -> Ed25519PublicKey:
    if "PRIVATE KEY" in text:
        raise _wrong_key(
            kid, "a private key; keep that secret, replace it if it was shared, and use its public key"
        )
    try:
        key = _load_pem(text) if text.startswith("-----") else _load_raw(text)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _wrong_key(kid, "not a public key") from error
    if not isinstance(key, Ed25519PublicKey):
        raise _wrong_key(kid, f"a public key of another kind ({type(key).__name__.strip('_')})")
    if _is_weak(key):
        raise _wrong_key(kid, "a point of small order, such as 32 zero bytes, by which anything is signed")
    return key


def _is_weak(key: Ed25519PublicKey) -> bool:
    y = int.from_bytes(key.public_bytes_raw(), "little") & ~(1 << 255)  # without the sign of x
    return y % _PRIME in _SMALL_ORDER


def _wrong_key(kid: str, what: str) -> ConfigError:
    form = "give an Ed25519 public key in PEM, or as base64 of its 32 bytes"
    return ConfigError(f"AIBRIDGE_LICENSE_PUBLIC_KEYS[{kid!r}] is {what}: {form}.")


def _load_pem(text: str) -> object:
    return load_pem_public_key(text.encode())


def _load_raw(text: str) -> Ed25519PublicKey:
    raw = _decode(text.rstrip("=").replace("+", "-").replace("/", "_"))
    if len(raw) != _RAW_KEY_BYTES:
        raise ValueError("wrong length")
    return Ed25519PublicKey.from_public_bytes(raw)


def verify(
    token: str, keys: PublicKeys, *, typ: str = TYPE, max_bytes: int = MAX_LICENSE_BYTES
) -> dict[str, Any]:
    """The payload of a token, its signature verified and its claims not yet looked at.

    White space anywhere in the token (a licence wrapped by a mail program) is left out.

    :param typ: the kind of token that is expected.
    :raises LicenseError: with the code for the first rule that the token breaks.
    """
    token = compact(token, max_bytes)
    kid = _check_header(_header(token), typ)
    key = keys.get(kid)
    if key is None:
        raise refusal("license_unknown_key")
    return _object(_verified(token, key), "its payload is not a JSON object")


def compact(token: str, max_bytes: int = MAX_LICENSE_BYTES) -> str:
    """The token without white space.

    :raises LicenseError: ``license_too_large``.
    """
    if len(token) > max_bytes:
        raise refusal("license_too_large", f"{max_bytes} bytes")
    return "".join(token.split())


def _header(token: str) -> dict[str, Any]:
    match = _COMPACT_JWT.fullmatch(token)
    if match is None:
        raise refusal("license_malformed", "it is not a compact JWT")
    try:
        header = _decode(match[1])
    except ValueError:
        raise refusal("license_malformed", "its header is not base64url") from None
    return _object(header, "its header is not a JSON object")


def _check_header(header: Mapping[str, Any], typ: str) -> str:
    """The ``kid``, if everything in the header is as it must be."""
    if header.get("alg") != ALGORITHM:
        raise refusal("license_algorithm")
    if "crit" in header:
        raise refusal("license_malformed", "its header has a crit parameter")
    if header.get("typ") != typ:
        raise refusal("license_malformed", f"its header does not have typ {typ}")
    kid = header.get("kid")
    if not isinstance(kid, str):
        raise refusal("license_unknown_key")
    return kid


def _check_signature_text(text: str) -> None:
    """One signature, one spelling: base64 has spare bits at its end, which not every PyJWT looks at."""
    try:
        signature = _decode(text)
    except ValueError:
        raise refusal("license_malformed", "its signature is not base64url") from None
    if len(signature) != _SIGNATURE_BYTES:
        raise refusal("license_bad_signature")
    if base64.urlsafe_b64encode(signature).rstrip(b"=").decode() != text:
        raise refusal("license_malformed", "its signature is not canonical base64url")


def _verified(token: str, key: Ed25519PublicKey) -> bytes:
    _check_signature_text(token.rpartition(".")[2])
    try:
        payload: bytes = jwt.PyJWS(algorithms=[ALGORITHM]).decode(token, key, algorithms=[ALGORITHM])
    except jwt.InvalidSignatureError:
        raise refusal("license_bad_signature") from None
    except jwt.InvalidTokenError:
        raise refusal("license_malformed", "it is not a compact JWT") from None
    return payload


def _decode(text: str) -> bytes:
    """The bytes of unpadded base64url text.

    :raises ValueError: for anything else.
    """
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None


def _object(raw: bytes, otherwise: str) -> dict[str, Any]:
    """The JSON object in ``raw``: standard JSON only (no ``NaN``), however deep it is nested."""
    try:
        value = json.loads(raw, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise refusal("license_malformed", otherwise)
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
