"""``python tests/security/audit.py``: whether anything that the package brings has a vulnerability that is known.

pip-audit asks the package index what is known of everything that is installed; of that, what the package and its extras
require is looked at, not the tools that test it. A vulnerability is a failure. No answer is none, since the checks have
to run without a network too; it is said, and ``tox -e audit`` is the command that insists.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, metadata, requires
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PACKAGE = "flask-aibridge"
SECONDS = 120.0
"""One question for each of some hundred packages; a network that answers takes a second or two for all of them."""


def main() -> int:
    """Ask, print what was answered, and return the status to exit with."""
    try:
        report = answered()
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        print(
            f"Nothing was audited: pip-audit had no answer ({error}). Run `tox -e audit` where there is a network."
        )
        return 0
    ours = [each for each in report if canonicalize_name(each["name"]) in closure(PACKAGE)]
    known = vulnerabilities(ours)
    for line in summary(ours), *known:
        print(line)
    return 1 if known else 0


def answered() -> list[Mapping[str, Any]]:
    """What pip-audit found out of each installed package.

    :raises OSError, ValueError, subprocess.SubprocessError: it could not be run, or found nothing out.
    """
    command = [sys.executable, "-m", "pip_audit", "--local", "--progress-spinner", "off", "--format", "json"]
    ended = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
    if not ended.stdout:
        raise OSError(ended.stderr.decode(errors="replace").strip().rpartition("\n")[2] or "it said nothing")
    dependencies: list[Mapping[str, Any]] = json.loads(ended.stdout)["dependencies"]
    return dependencies


def closure(package: str) -> frozenset[str]:
    """The names of what a package requires, with all of its own extras, as far as it is installed."""
    found: set[Requirement] = set()
    left = [Requirement(f"{package}[{','.join(metadata(package).get_all('Provides-Extra') or ())}]")]
    while left:
        requirement = left.pop()
        if requirement not in found:
            found.add(requirement)
            left += _required_by(requirement)
    return frozenset(canonicalize_name(each.name) for each in found)


def _required_by(requirement: Requirement) -> list[Requirement]:
    try:
        needed = [Requirement(text) for text in requires(requirement.name) or ()]
    except PackageNotFoundError:
        return []
    extras = requirement.extras or {""}
    return [
        each
        for each in needed
        if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in extras)
    ]


def vulnerabilities(report: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each that is known of these packages."""
    return [
        f"{each['name']} {each['version']}: {known['id']}; mended in {_versions(known['fix_versions'])}"
        for each in report
        for known in each.get("vulns", ())
    ]


def _versions(mended: Sequence[str]) -> str:
    return ", ".join(mended) or "no version yet"


def summary(report: Sequence[Mapping[str, Any]]) -> str:
    """Of how many packages something could be found out."""
    silent = sum("skip_reason" in each for each in report)
    audited = f"Of {len(report)} packages that {PACKAGE} brings, {len(report) - silent} were audited"
    return f"{audited}; of {silent} the index knows nothing."


if __name__ == "__main__":
    sys.exit(main())
