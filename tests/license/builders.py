"""Licences for the tests of the pure part, made without a signature."""

from __future__ import annotations

from typing import Any

from flask_aibridge.license.claims import Claims
from flask_aibridge.license.licenses import NOT_BEFORE_LEEWAY, License
from flask_aibridge.license.refusals import Refusal

START = 1_800_000_000
"""The first second at which :func:`license_` counts."""


def claims(**changes: Any) -> Claims:
    base: dict[str, Any] = {
        "iss": "vendor",
        "sub": "customer",
        "jti": "1",
        "version": 1,
        "features": {"aibridge": 1},
        "iat": 1000,
        "nbf": 1000,
        "license_expires": 2000,
        "exp": 3000,
    }
    return Claims(**{**base, **changes})


def license_(starts: int = 0, term_ends: int = 1000, grace_ends: int = 2000, **changes: Any) -> License:
    """A licence for the gateway with its times relative to :data:`START`, as they count: the leeway is in."""
    nbf = START + starts + NOT_BEFORE_LEEWAY
    made = claims(
        **{
            "nbf": nbf,
            "iat": nbf,
            "license_expires": START + term_ends,
            "exp": START + grace_ends,
            **changes,
        }
    )
    return License(made.jti, "a.b.c", "installed", claims=made)


def refused(code: str = "license_bad_signature", license_id: str = "bad") -> License:
    return License(license_id, "x.y.z", "config", refused=Refusal(code, "A sentence."))
