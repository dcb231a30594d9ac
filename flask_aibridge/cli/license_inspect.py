"""``flask aibridge license inspect``: what a licence says and whether it would count, without installing it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click
import jwt
from flask import Flask
from flask.cli import NoAppException, ScriptInfo

from flask_aibridge.api.licenses import document
from flask_aibridge.cli.answers import for_people, print_json
from flask_aibridge.cli.layout import printable
from flask_aibridge.cli.license_texts import REFUSED, read_file, read_license_argument, refusals_exit
from flask_aibridge.license.licenses import License, Standing, day_of
from flask_aibridge.license.sources import LicenseTexts

if TYPE_CHECKING:
    from flask_aibridge.license.claims import Claims
    from flask_aibridge.license.holder import LicenseHolder

__all__ = ["inspect", "named_features", "verdict"]

_EXIT_CODES: Final[Mapping[Standing, int]] = {
    "entitled": 0,
    "refused": REFUSED,
    "expired": REFUSED,
    "grace_period": 4,
    "not_yet_valid": 5,
}


class Verdict(NamedTuple):
    """How a licence stands at a time. ``code`` is null for one that counts."""

    standing: Standing
    code: str | None
    message: str


def verdict(license_: License, now: float) -> Verdict:
    """How a licence stands, and a sentence about it."""
    standing, refusal, claims = license_.standing(now), license_.refusal_at(now), license_.claims
    if refusal is not None or claims is None:
        reason = refusal or license_.refused
        assert reason is not None
        return Verdict(standing, reason.code, reason.message)
    if standing == "grace_period":
        message = (
            f"Its term ended on {day_of(claims.license_expires)}; its grace ends on {day_of(claims.exp)}."
        )
    else:
        message = f"It is in force until {day_of(claims.license_expires)}."
    return Verdict(standing, None, message)


def named_features(claims: Claims) -> str:
    """What a licence grants, for people."""
    own = [name if number == 1 else f"{name}={number}" for name, number in sorted(claims.features.items())]
    return ", ".join([*([f"the set {claims.feature_set}"] if claims.feature_set else []), *own])


@click.command()
@click.argument("license_", metavar="TOKEN|FILE|-")
@click.option(
    "--public-key",
    "public_keys",
    metavar="KID=KEY|KID=FILE",
    multiple=True,
    help="A public key, in base64 or in a PEM file, in place of the application's; may be repeated.",
)
@click.option(
    "--deployment-id", help="The installation that it is to count in, in place of the application's."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@for_people
@refusals_exit
def inspect(license_: str, public_keys: Sequence[str], deployment_id: str | None, as_json: bool) -> None:
    """Show what a licence says and whether it would count, without installing it.

    It is judged as the application would; without an application, or with one of the first two options, by the keys
    that are given and those that come with this release.

    \b
    Exit codes: 0 in its paid term, 4 in its grace period, 5 not valid yet,
    3 refused or over; 1 and 2 as for every command.
    """
    token = read_license_argument(license_)
    holder = None if public_keys or deployment_id else _holder()
    if holder is None:
        judged, now = _judged_here(token, _keys(public_keys), deployment_id), time.time()
    else:
        judged = holder.inspect(token)
        now = holder.in_force.time(holder.clock())
    found, unverified = verdict(judged, now), {} if judged.claims else _unverified(token)
    if as_json:
        shown = {**document(judged), **found._asdict(), "unverified": unverified or None}
        print_json({name: value for name, value in shown.items() if name != "uploaded_at"})
    else:
        _print(judged, found, unverified)
    click.get_current_context().exit(_EXIT_CODES[found.standing])


def _holder() -> LicenseHolder | None:
    """The licences of the application, if there is one with a bridge."""
    info = click.get_current_context().ensure_object(ScriptInfo)
    try:
        app: Flask = info.load_app()
    except NoAppException:
        if info.app_import_path is not None:  # the one that was named has to be there
            raise
        return None
    state = app.extensions.get("aibridge")
    holder: LicenseHolder | None = None if state is None else state.gate.holder
    return holder


def _judged_here(token: str, public_keys: Mapping[str, str], deployment_id: str | None) -> License:
    texts, now = LicenseTexts(public_keys, ()), time.time()
    judged = texts.license(token, now=now, deployment_id=deployment_id)
    if deployment_id is not None or judged.claims is None or not judged.claims.deployment_ids:
        return judged
    click.echo(
        "It is for certain installations only; --deployment-id says whether for one of them.", err=True
    )
    return texts.license(token, now=now, deployment_id=judged.claims.deployment_ids[0])


def _keys(given: Sequence[str]) -> dict[str, str]:
    keys = {}
    for each in given:
        kid, separator, key = each.partition("=")
        if not kid or not separator or not key:
            raise click.UsageError("Write --public-key as KID=KEY, with the base64 of the key or a PEM file.")
        keys[kid] = key if _is_base64_key(key) else read_file(key)
    return keys


def _is_base64_key(text: str) -> bool:
    """Whether it has the length of 32 bytes in base64, and no dot, as the names of files have."""
    return len(text.rstrip("=")) == 43 and "." not in text


def _unverified(token: str) -> dict[str, Any]:
    """What a licence that cannot be verified claims to be; nothing for one that cannot be read."""
    text = "".join(token.split())
    try:
        header = jwt.get_unverified_header(text)
        claims = jwt.decode(text, options={"verify_signature": False})
    except (jwt.InvalidTokenError, ValueError, RecursionError):
        return {}
    return {"header": header, "claims": claims}


def _print(judged: License, found: Verdict, unverified: Mapping[str, Any]) -> None:
    lines = [("id", judged.id)]
    if judged.claims is not None:
        lines += _lines(judged.claims)
    for part, members in unverified.items():
        lines += [(f"{name} (in its {part}, not verified)", str(value)) for name, value in members.items()]
    lines += [("verdict", found.standing.replace("_", " ")), ("note", found.message)]
    lines += [("code", found.code)] if found.code else []
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        click.echo(f"{printable(name).ljust(width)}  {printable(value)}".rstrip())


def _lines(claims: Claims) -> Iterator[tuple[str, str]]:
    yield "vendor", claims.iss
    yield "customer", claims.sub
    yield "issued", day_of(claims.iat)
    yield "begins", day_of(claims.nbf)
    yield "term ends", day_of(claims.license_expires)
    yield "grace ends", day_of(claims.exp)
    yield "features", named_features(claims) or "none"
    yield "trial", "yes" if claims.trial else "no"
    yield "deployments", ", ".join(claims.deployment_ids) or "any"
