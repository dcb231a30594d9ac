"""``flask aibridge license keygen`` and ``issue``: the vendor's side. Neither needs an application."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeAlias

import click

from flask_aibridge.cli.answers import for_people, print_json
from flask_aibridge.cli.keys import read_span
from flask_aibridge.cli.license_texts import MAX_INPUT, read_file, refusals_exit
from flask_aibridge.license.claims import VERSION
from flask_aibridge.license.features import FEATURE_SETS, GATEWAY
from flask_aibridge.license.issuing import DEFAULT_GRACE, DEFAULT_TERM, SigningKey, issue_license
from flask_aibridge.license.licenses import DAY, day_of
from flask_aibridge.license.reading import read_claims

__all__ = ["issue", "keygen"]

Moment: TypeAlias = timedelta | datetime

_KID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_KID_LINE: Final = re.compile(r"\Akid: (\S+)$", re.MULTILINE)
"""What the file of a private key begins with: text before the PEM, which readers of PEM skip (RFC 7468, section 2)."""

_FEATURE: Final = re.compile(r"([^=\s]+)(?:=([0-9]{1,15}))?")


def _kid(_ctx: click.Context, _parameter: click.Parameter, text: str | None) -> str | None:
    if text is not None and not _KID.fullmatch(text):
        raise click.BadParameter(
            "must be 1 to 64 letters, digits and . _ -, and begin with one of the first two."
        )
    return text


def _moment(_ctx: click.Context, _parameter: click.Parameter, text: str | None) -> Moment | None:
    if text is None:
        return None
    span = read_span(text)
    if span is not None:
        return span
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (OverflowError, ValueError):
        raise click.BadParameter(
            f"{text!r} is neither a length of time such as 365d nor a date such as 2030-12-31."
        ) from None


def _features(
    _ctx: click.Context, _parameter: click.Parameter, texts: Sequence[str]
) -> dict[str, int] | None:
    found = {}
    for text in texts:
        match = _FEATURE.fullmatch(text)
        if match is None:
            raise click.BadParameter(f"{text!r} is not written as NAME, or as NAME=NUMBER.")
        found[match[1]] = 1 if match[2] is None else int(match[2])
    return found or None


@click.command()
@click.option(
    "--kid", callback=_kid, help="The name that licences refer to the key by; by default a random one."
)
@click.option(
    "--out",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="Where the private key goes; by default to aibridge-license-<kid>.pem in this folder.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@for_people
def keygen(kid: str | None, out: str | None, as_json: bool) -> None:
    """Make a key pair to sign licences with.

    The private key is written to a new file that only its owner can read; the public key is printed, as customers
    need it in AIBRIDGE_LICENSE_PUBLIC_KEYS.
    """
    key = SigningKey.generate(kid)
    path = Path(out or f"aibridge-license-{key.kid}.pem")
    _write_private(path, f"kid: {key.kid}\n{key.private_pem}")
    if as_json:
        print_json(
            {
                "kid": key.kid,
                "public_key": key.public_base64,
                "public_key_pem": key.public_pem,
                "private_key_file": str(path),
            }
        )
        return
    click.echo(
        f"The private key is in {str(path)!r}. Keep it secret: who has it can issue licences.", err=True
    )
    click.echo(f'AIBRIDGE_LICENSE_PUBLIC_KEYS = {{"{key.kid}": "{key.public_base64}"}}')


@click.command()
@click.option(
    "--key", "key_file", metavar="FILE|-", required=True, help="The private key, as keygen wrote it."
)
@click.option("--kid", callback=_kid, help="The name of the key; by default what its file says.")
@click.option("--iss", "--vendor", "iss", help="Who issues it.", default="vendor", show_default=True)
@click.option("--sub", "--customer", "sub", required=True, help="Whom it is for.")
@click.option("--jti", "--id", "jti", help="Its id; by default a new UUID.")
@click.option("--iat", "--issued", "iat", callback=_moment, metavar="DATE", help="By default now.")
@click.option(
    "--nbf", "--begins", "nbf", callback=_moment, metavar="30d|DATE", help="When it begins; by default now."
)
@click.option(
    "--license-expires",
    "--term",
    "license_expires",
    callback=_moment,
    metavar="365d|DATE",
    help=f"The end of the paid term, or how long that lasts from the beginning; by default {DEFAULT_TERM // DAY}d.",
)
@click.option(
    "--exp",
    "--grace",
    "exp",
    callback=_moment,
    metavar="14d|DATE",
    help=f"The end of the grace, or how long that lasts after the term; by default {DEFAULT_GRACE // DAY}d.",
)
@click.option(
    "--feature",
    "features",
    callback=_features,
    metavar="NAME[=NUMBER]",
    multiple=True,
    help=f"A feature, or a limit; may be repeated. By default {GATEWAY}, unless there is a feature set.",
)
@click.option(
    "--feature-set", metavar="NAME", help=f"A bundle of features: {', '.join(sorted(FEATURE_SETS))}."
)
@click.option("--trial", is_flag=True, help="It is for trying the product.")
@click.option(
    "--deployment-id",
    "deployment_ids",
    multiple=True,
    help="An installation that it is for; may be repeated. By default it is for any.",
)
@click.option(
    "--claims-version", "version", type=int, default=VERSION, show_default=True, help="Of the claims."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@for_people
@refusals_exit
def issue(key_file: str, kid: str | None, as_json: bool, **claims: Any) -> None:
    """Issue a licence and print it, a compact JWT.

    Dates are UTC, and mean their first second. Exits with 3 for a licence that no installation would accept.
    """
    key = _signing_key(key_file, kid)
    token = issue_license(key, **_payload(claims, int(time.time())))
    issued = read_claims(token, {key.kid: key.private_key.public_key()})
    if issued.feature_set and issued.feature_set not in FEATURE_SETS:
        click.echo(f"Warning: this release knows no feature set {issued.feature_set!r}.", err=True)
    if as_json:
        print_json({"license": token, "id": issued.jti, "kid": key.kid})
        return
    click.echo(
        f"The licence {issued.jti} for {issued.sub!r}: from {day_of(issued.nbf)} to "
        f"{day_of(issued.license_expires)}, grace until {day_of(issued.exp)}.",
        err=True,
    )
    click.echo(token)


def _payload(given: Mapping[str, Any], now: int) -> dict[str, Any]:
    """The claims that were given, their times in seconds since the epoch; the rest is left to its defaults."""
    begins = _seconds(given["nbf"], now, now)
    expires = _seconds(given["license_expires"], begins, begins + DEFAULT_TERM)
    features = given["features"]
    if features is None and given["feature_set"] is not None:
        features = {}
    claims = {
        **given,
        "iat": _seconds(given["iat"], now, min(now, begins)),
        "nbf": begins,
        "license_expires": expires,
        "exp": _seconds(given["exp"], expires, expires + DEFAULT_GRACE),
        "features": features,
        "trial": given["trial"] or None,
        "deployment_ids": list(given["deployment_ids"]) or None,
    }
    return {name: value for name, value in claims.items() if value is not None}


def _seconds(moment: Moment | None, start: int, default: int) -> int:
    if moment is None:
        return default
    if isinstance(moment, timedelta):
        return start + int(moment.total_seconds())
    return int(moment.timestamp())


def _signing_key(key_file: str, kid: str | None) -> SigningKey:
    text = sys.stdin.read(MAX_INPUT) if key_file == "-" else read_file(key_file)
    named = _KID_LINE.search(text)
    kid = kid or (named and named[1])
    if not kid:
        raise click.UsageError("The file of the key does not say its name; give it with --kid.")
    begins = max(text.find("-----BEGIN"), 0)
    return SigningKey.from_pem(kid, text[begins:])


def _write_private(path: Path, text: str) -> None:
    """Write a file that is new, and its owner's alone from the beginning."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text)
    except FileExistsError:
        raise click.ClickException(
            f"There is a file {str(path)!r} already, which is not replaced: it may hold a key. Name another "
            "with --out."
        ) from None
    except OSError as error:
        raise click.ClickException(f"The file {str(path)!r} cannot be written: {error.strerror}.") from None
