"""Pure: the claims of a licence: a verified payload → frozen :class:`Claims`, or which claim is wrong.

Times are seconds since the epoch (RFC 7519 "NumericDate", whole numbers only). Unknown claims are allowed, so
a newer vendor can add some.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from marshmallow import EXCLUDE, Schema, ValidationError, fields, post_load, validate, validates_schema

from flask_aibridge.license.licenses import DAY, MAX_TIME
from flask_aibridge.license.refusals import refusal

__all__ = [
    "MAX_GRACE",
    "MAX_TERM",
    "VERSION",
    "Claims",
    "ClaimsSchema",
    "check_term",
    "load_claims",
    "parse_claims",
]

#: The only version of the claims that this release reads.
VERSION: Final = 1
#: How far ahead a paid term may end: five years, with the most leap days that five years can have. Bounds a
#: mistake made when signing.
MAX_TERM: Final = (5 * 365 + 2) * DAY
#: How long the grace after the longest term may be, for the same reason.
MAX_GRACE: Final = 366 * DAY


@dataclass(frozen=True)
class Claims:
    """What a licence says; the names are the claims' own.

    :param iat: issued at. :param nbf: not before.
    :param license_expires: end of the paid term, when grace begins. :param exp: end of grace.
    :param features: feature → number, also of features that this release does not know: see
        :func:`~flask_aibridge.license.features.features_of` for what they mean.
    :param feature_set: a named bundle of features, see
        :data:`~flask_aibridge.license.features.FEATURE_SETS`.
    :param trial: a licence to try the product with.
    :param deployment_ids: the deployments the licence is for; empty for any.
    """

    iss: str
    sub: str
    jti: str
    iat: int
    nbf: int
    license_expires: int
    exp: int
    version: int
    features: Mapping[str, int]
    feature_set: str | None = None
    trial: bool = False
    deployment_ids: tuple[str, ...] = field(default=())


class WholeNumber(fields.Field[int]):
    """A JSON number without a fraction; not a string of digits, not ``true``, which Python calls an int as
    well."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        if type(value) is not int:
            raise ValidationError("must be a whole number")
        return value


class Flag(fields.Field[bool]):
    """A JSON ``true`` or ``false``; marshmallow's own Boolean takes ``"off"`` and ``0`` too."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> bool:
        if type(value) is not bool:
            raise ValidationError("must be true or false")
        return value


def _text() -> fields.String:
    return fields.String(required=True, validate=validate.Length(min=1))


def _time() -> WholeNumber:
    return WholeNumber(required=True, validate=validate.Range(min=0, max=MAX_TIME))


class ClaimsSchema(Schema):
    """The wire form of :class:`Claims`. It has no clock: see :func:`check_term` for what depends on the
    time."""

    class Meta:
        unknown = EXCLUDE

    iss = _text()
    sub = _text()
    # It is part of addresses and key names, so it is made of what needs no quoting there.
    jti = fields.String(
        required=True,
        validate=validate.Regexp(
            r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}\Z",
            error="must be up to 128 letters, digits and . _ : -, such as a UUID",
        ),
    )
    iat = _time()
    nbf = _time()
    license_expires = _time()
    exp = _time()
    version = WholeNumber(required=True)
    features = fields.Dict(keys=fields.String(), values=WholeNumber(), required=True)
    feature_set = fields.String()
    trial = Flag()
    deployment_ids = fields.List(fields.String())

    @validates_schema
    def check_order(self, data: Mapping[str, Any], **kwargs: Any) -> None:
        """Grace does not end before the paid term."""
        if data["exp"] < data["license_expires"]:
            raise ValidationError("must not be before license_expires", "exp")

    @post_load
    def make(self, data: dict[str, Any], **kwargs: Any) -> Claims:
        """Freeze what was loaded."""
        return Claims(**{**data, "deployment_ids": tuple(data.get("deployment_ids", ()))})


# One for all: it holds nothing of what it loads, and making one costs more than loading a licence.
_SCHEMA: Final = ClaimsSchema()


def load_claims(payload: Mapping[str, Any], now: float) -> Claims:
    """The claims of a payload, checked at the time ``now``: :func:`parse_claims`, then :func:`check_term`."""
    claims = parse_claims(payload)
    check_term(claims, now)
    return claims


def parse_claims(payload: Mapping[str, Any]) -> Claims:
    """The claims of a payload, as far as they can be judged without a clock.

    :raises LicenseError: ``license_wrong_version`` for a version that this release does not read;
        ``license_claims``, naming the claim, for one that is missing, of the wrong type or out of range.
    """
    version = payload.get("version")
    if type(version) is int and version != VERSION:
        raise refusal("license_wrong_version")
    try:
        claims: Claims = _SCHEMA.load(payload)
    except ValidationError as error:
        _refuse(error.messages_dict)
    return claims


def check_term(claims: Claims, now: float) -> None:
    """Refuse a licence that ends too far ahead of ``now``.

    :raises LicenseError: ``license_claims``.
    """
    if claims.license_expires > now + MAX_TERM:
        raise refusal("license_claims", "license_expires is more than five years ahead")
    if claims.exp > now + MAX_TERM + MAX_GRACE:
        raise refusal("license_claims", "exp is more than six years ahead")


def _refuse(messages: Mapping[str, Any]) -> NoReturn:
    """Name the first claim that is wrong, and why; never its value."""
    name, reasons = next(iter(messages.items()))
    reason = reasons[0] if isinstance(reasons, list) else "has an entry that cannot be used"
    raise refusal("license_claims", f"{name}: {reason}".rstrip("."))
