"""Installing and removing licences: what the routes and the commands have in common.

Each change is logged and announced (``signals``), with who made it and the licence's id (``jti``), never with its text.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

from flask_aibridge.api.problems import Problem
from flask_aibridge.api.signals import announce

if TYPE_CHECKING:
    from flask_aibridge.license.holder import LicenseHolder
    from flask_aibridge.license.licenses import License

__all__ = ["install_license", "refresh_entitlements", "remove_license"]


def install_license(holder: LicenseHolder, token: str, *, by: str) -> License:
    """Verify a licence and put it in force everywhere.

    :raises LicenseError: for one that cannot be accepted; nothing is changed.
    :raises ConfigError: where there is no store to keep it in.
    :raises ServicesUnavailable: where the store is away.
    """
    installed = holder.install(token)
    announce("installed", "license", installed.id, by=by)
    return installed


def remove_license(holder: LicenseHolder, license_id: str, *, by: str) -> License | None:
    """Remove an installed licence everywhere; what it was, where that is known.

    :raises Problem: 404 ``unknown_license``; 409 ``license_configured`` for one that is not in the store but in the
        configuration.
    :raises ConfigError: where there is no store.
    :raises ServicesUnavailable: where the store is away.
    """
    known = {each.source: each for each in holder.licenses() if each.id == license_id}
    if "config" in known and "installed" not in known:
        raise Problem(
            409,
            "license_configured",
            "This licence is not installed but configured: take it out of AIBRIDGE_LICENSE, or of the file that "
            "AIBRIDGE_LICENSE_FILE names, and restart the application.",
        )
    if not holder.remove(license_id):
        raise Problem(404, "unknown_license", "There is no installed licence with this id.")
    announce("removed", "license", license_id, by=by)
    return known.get("installed")


def refresh_entitlements(holder: LicenseHolder) -> None:
    """Have every process read everything again.

    :raises Problem: 429 ``refreshed_recently``, with how long to wait.
    :raises ConfigError: where there is no store, by which the others could be told.
    :raises ServicesUnavailable: where the store is away.
    """
    wait = ceil(holder.refresh())
    if wait:
        detail = f"The entitlements were refreshed less than a minute ago; they can be again in {wait} s."
        raise Problem(429, "refreshed_recently", detail, headers={"Retry-After": str(wait)})
