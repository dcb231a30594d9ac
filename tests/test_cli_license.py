"""``cli.license``: licences from the terminal, the customer's side and the vendor's."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import jwt
import pytest
from click.testing import CliRunner, Result
from flask import Flask

from flask_aibridge.api.signals import configuration_changed
from flask_aibridge.cli import aibridge
from flask_aibridge.cli.license import license_group
from flask_aibridge.errors import ConfigError, ServicesUnavailable
from flask_aibridge.license.gate import Gate
from flask_aibridge.license.holder import LicenseHolder
from flask_aibridge.license.issuing import SigningKey, issue_license
from flask_aibridge.license.store import LicenseStore, MemoryLicenseStore

KEY = SigningKey.generate("k1")
OTHER = SigningKey.generate("k2")
DAY = 24 * 60 * 60
NOW = int(time.time())


ANY_TIME: Any = {"verify_iat": False, "verify_nbf": False, "verify_exp": False}


class Installation:
    """An application and its store of licences."""

    def __init__(self) -> None:
        self.store = MemoryLicenseStore()
        self.error: Exception | None = None
        self.holders: list[LicenseHolder] = []

    def open(self) -> LicenseStore:
        if self.error is not None:
            raise self.error
        return self.store

    def run(self, *arguments: str, stdin: str | None = None, tokens: Sequence[str] = ()) -> Result:
        """A command in a process of its own, as it were: it holds what the store says."""
        app = Flask("host")
        holder = LicenseHolder({"k1": KEY.public_pem}, tokens, store=self.open)
        self.holders.append(holder)
        app.extensions["aibridge"] = SimpleNamespace(gate=Gate(holder=holder))
        runner = app.test_cli_runner()
        return runner.invoke(license_group, arguments, input=stdin, catch_exceptions=False)

    @property
    def ids(self) -> list[str]:
        return [each.id for each in self.store.installed()]


@pytest.fixture
def installation() -> Iterator[Installation]:
    made = Installation()
    yield made
    for each in made.holders:
        each.close()


def run(*arguments: str, stdin: str | None = None) -> Result:
    """A command where there is no application."""
    return CliRunner().invoke(license_group, arguments, input=stdin, catch_exceptions=False)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLASK_APP", raising=False)


def lasting(standing: str, **claims: Any) -> str:
    """A licence that stands so today."""
    times = {
        "entitled": {},
        "grace_period": {"nbf": NOW - 9 * DAY, "license_expires": NOW - DAY},
        "not_yet_valid": {"nbf": NOW + 9 * DAY},
        "expired": {"nbf": NOW - 900 * DAY, "license_expires": NOW - 500 * DAY},
    }
    return issue_license(KEY, **{**times[standing], **claims})


class TestInstall:
    @pytest.mark.parametrize("way", ["text", "file", "standard input"])
    def test_in_three_ways(self, installation: Installation, way: str, tmp_path: Path) -> None:
        """As text, as a file, and through a pipe."""
        token = issue_license(KEY, jti="one", sub="Ada")
        (tmp_path / "a.jwt").write_text(f"\n{token}\n")
        argument = {"text": token, "file": "a.jwt", "standard input": "-"}[way]
        result = installation.run("install", argument, stdin=token if argument == "-" else None)
        assert result.exit_code == 0, result.output
        assert result.stdout.startswith("The licence one is installed. It is in force until ")
        assert installation.ids == ["one"]
        assert token not in result.output

    def test_as_json(self, installation: Installation) -> None:
        """As the API answers it."""
        result = installation.run("install", issue_license(KEY, jti="one", sub="Ada"), "--json")
        document = json.loads(result.stdout)
        assert set(document) == {"id", "uploaded_at", "claims"}
        assert (document["id"], document["claims"]["sub"]) == ("one", "Ada")

    @pytest.mark.parametrize(
        ("token", "code"),
        [
            ("eyJ.nonsense", "license_malformed"),
            (issue_license(OTHER), "license_unknown_key"),
            (lasting("expired"), "license_expired"),
            (issue_license(KEY, deployment_ids=["another"]), "license_wrong_deployment"),
            ("eyJ" * 30_000, "license_too_large"),
        ],
    )
    def test_one_that_is_refused(self, installation: Installation, token: str, code: str) -> None:
        """Exit code 3, with the code in the sentence."""
        result = installation.run("install", "-", stdin=token)
        assert result.exit_code == 3
        assert result.stderr.startswith("Error: ")
        assert result.stderr.endswith(f"({code})\n")
        assert installation.ids == []

    @pytest.mark.parametrize(
        ("argument", "stdin", "words"),
        [
            ("missing.jwt", None, "'missing.jwt' cannot be read: No such file"),
            (".", None, "cannot be read: Is a directory"),
            ("", None, "cannot be read"),
            ("a\0b", None, "cannot be read"),
            ("x" * 5000, None, "cannot be read: File name too long"),
            ("-", " \n", "empty"),
        ],
    )
    def test_nothing_to_read(
        self, installation: Installation, argument: str, stdin: str | None, words: str
    ) -> None:
        """Exit code 1, and the name."""
        result = installation.run("install", argument, stdin=stdin)
        assert result.exit_code == 1
        assert words in result.stderr

    def test_without_a_store(self, installation: Installation) -> None:
        """Away, or not there at all: exit code 1 and what to do."""
        for error in (ServicesUnavailable("Redis is away."), ConfigError("Set AIBRIDGE_REDIS_URL.")):
            installation.error = error
            result = installation.run("install", issue_license(KEY))
            assert (result.exit_code, result.stderr) == (1, f"Error: {error}\n")

    def test_it_is_announced(self, installation: Installation) -> None:
        """By the command line."""
        seen: list[Any] = []

        def receive(_sender: Flask, **change: Any) -> None:
            seen.append(change)

        with configuration_changed.connected_to(receive):
            installation.run("install", issue_license(KEY, jti="one"))
            installation.run("remove", "one")
        assert [(each["action"], each["name"], each["by"]) for each in seen] == [
            ("installed", "one", "the command line"),
            ("removed", "one", "the command line"),
        ]

    def test_warnings_are_beside_the_output(self, installation: Installation) -> None:
        """A pipe does not get them."""
        result = installation.run("install", lasting("grace_period"), "--json")
        assert json.loads(result.stdout)
        assert result.stderr.startswith("Warning: The licence for the AI gateway has expired")


class TestList:
    def test_a_table(self, installation: Installation) -> None:
        """Those that do not count, too, with why."""
        installation.store.install("odd", "nonsense", NOW - 5.0)
        installation.run("install", issue_license(KEY, jti="one", sub="Ada\x1b[2J & Sons"))
        configured = lasting("expired", jti="old", features={"user_limit": 7}, feature_set="aibridge")
        result = installation.run("list", tokens=[configured])
        header, *rows = result.stdout.splitlines()
        assert result.exit_code == 0
        assert re.split(r" {2,}", header) == [
            *("id", "customer", "source", "standing", "term ends", "grace ends", "features", "why not"),
        ]
        old, odd, one = (re.split(r" {2,}", row.rstrip()) for row in rows)
        assert old[:4] == ["old", "customer", "config", "expired"]
        assert old[-2:] == ["the set aibridge, user_limit=7", "license_expired"]
        assert odd == ["odd", "-", "installed", "refused", "-", "-", "-", "license_malformed"]
        assert one[:4] == ["one", "Ada\N{REPLACEMENT CHARACTER}[2J & Sons", "installed", "entitled"]
        assert one[-2:] == ["aibridge", "-"]

    def test_as_json(self, installation: Installation) -> None:
        """What the API shows, and what it means."""
        installation.run("install", lasting("not_yet_valid", jti="next"))
        (document,) = json.loads(installation.run("list", "--json").stdout)
        assert (document["id"], document["source"]) == ("next", "installed")
        assert (document["standing"], document["code"]) == ("not_yet_valid", "license_not_yet_valid")
        assert document["claims"]["jti"] == "next"
        assert document["uploaded_at"]

    def test_none(self, installation: Installation) -> None:
        """And how to change that."""
        result = installation.run("list")
        assert (result.exit_code, "license install" in result.stdout) == (0, True)
        assert json.loads(installation.run("list", "--json").stdout) == []

    def test_while_the_store_is_away(self, installation: Installation) -> None:
        """Those of the configuration, and a warning."""
        installation.error = ServicesUnavailable("Redis is away.")
        result = installation.run("list", tokens=[issue_license(KEY, jti="one")])
        assert result.exit_code == 0
        assert "one" in result.stdout
        assert "Warning: The store of the installed licences has been away since" in result.stderr


class TestRemove:
    def test_one(self, installation: Installation) -> None:
        """By its id."""
        installation.run("install", issue_license(KEY, jti="one"))
        result = installation.run("remove", "one")
        assert (result.exit_code, result.stdout) == (0, "The licence one is removed.\n")
        assert installation.ids == []

    def test_an_unknown_one(self, installation: Installation) -> None:
        """Is exit code 1."""
        result = installation.run("remove", "one")
        assert (result.exit_code, "no installed licence" in result.stderr) == (1, True)

    def test_a_configured_one(self, installation: Installation) -> None:
        """Is elsewhere."""
        result = installation.run("remove", "one", tokens=[issue_license(KEY, jti="one")])
        assert (result.exit_code, "AIBRIDGE_LICENSE" in result.stderr) == (1, True)


class TestDeploymentId:
    def test_it_is_printed(self, installation: Installation) -> None:
        """Alone, for pipes; or as JSON."""
        expected = installation.store.deployment_id()
        assert installation.run("deployment-id").stdout == f"{expected}\n"
        assert json.loads(installation.run("deployment-id", "--json").stdout) == {"deployment_id": expected}

    def test_without_a_store_there_is_none(self, installation: Installation) -> None:
        """Exit code 1."""
        installation.error = ConfigError("Set AIBRIDGE_REDIS_URL.")
        assert installation.run("deployment-id").exit_code == 1

    def test_an_app_without_the_extension(self) -> None:
        """Says what is missing."""
        result = Flask("host").test_cli_runner().invoke(license_group, ["deployment-id"])
        assert (result.exit_code, "init_app" in result.stderr) == (1, True)


EXIT_CODES = [("entitled", 0), ("grace_period", 4), ("not_yet_valid", 5), ("expired", 3)]


class TestInspect:
    @pytest.mark.parametrize(("standing", "code"), EXIT_CODES)
    def test_with_the_application(self, installation: Installation, standing: str, code: int) -> None:
        """By its keys; nothing is installed."""
        result = installation.run("inspect", lasting(standing, jti="one", sub="Ada"))
        assert result.exit_code == code
        assert re.search(r"^customer +Ada$", result.stdout, re.MULTILINE)
        assert re.search(rf"^verdict +{standing.replace('_', ' ')}$", result.stdout, re.MULTILINE)
        assert installation.ids == []

    @pytest.mark.parametrize(("standing", "code"), EXIT_CODES)
    def test_without_one(self, standing: str, code: int) -> None:
        """By the key that is given."""
        given = ["--public-key", f"k1={KEY.public_base64}"]
        result = run("inspect", lasting(standing, jti="one"), *given, "--json")
        document = json.loads(result.stdout)
        assert (result.exit_code, document["id"], document["standing"]) == (code, "one", standing)
        assert document["claims"]["jti"] == "one"
        assert document["unverified"] is None

    def test_a_key_in_a_file(self, tmp_path: Path) -> None:
        """In PEM."""
        (tmp_path / "k1.pem").write_text(KEY.public_pem)
        assert run("inspect", issue_license(KEY), "--public-key", "k1=k1.pem").exit_code == 0

    @pytest.mark.parametrize(
        ("given", "code"), [("k1", 2), ("k1=", 2), ("=x", 2), ("k1=missing.pem", 1), ("k1=" + "!" * 43, 1)]
    )
    def test_a_key_that_is_none(self, given: str, code: int) -> None:
        """Wrong usage, or a file that is not there."""
        assert run("inspect", issue_license(KEY), "--public-key", given).exit_code == code

    def test_one_that_cannot_be_verified(self) -> None:
        """Is refused; what it claims is shown as that."""
        result = run("inspect", issue_license(KEY, sub="Ada\x1b[2J", jti="one"))
        assert result.exit_code == 3
        assert re.search(r"^kid \(in its header, not verified\) +k1$", result.stdout, re.MULTILINE)
        assert re.search(r"^sub \(in its claims, not verified\) +Ada.\[2J$", result.stdout, re.MULTILINE)
        assert re.search(r"^code +license_unknown_key$", result.stdout, re.MULTILINE)
        assert "\x1b" not in result.stdout

    def test_and_as_json(self) -> None:
        """Apart from the verified claims."""
        document = json.loads(run("inspect", issue_license(KEY, jti="one"), "--json").stdout)
        assert (document["claims"], document["code"]) == (None, "license_unknown_key")
        assert document["unverified"]["header"]["kid"] == "k1"
        assert document["unverified"]["claims"]["jti"] == "one"

    @pytest.mark.parametrize(
        "text", ["nonsense", "eyJ.eyJ.x", "eyJ" * 30_000, "\x00", "é" * 9, f"eyJhIjoi.{'W1tb' * 3000}.x"]
    )
    def test_one_that_cannot_be_read(self, text: str) -> None:
        """Is refused as well, whatever it is."""
        result = run("inspect", "-", "--json", stdin=text)
        assert result.exit_code == 3
        assert json.loads(result.stdout)["claims"] is None

    def test_for_one_deployment(self) -> None:
        """It counts there; where it is not said which this is, that is left open."""
        token = issue_license(KEY, deployment_ids=["d1"])
        given = ["--public-key", f"k1={KEY.public_base64}"]
        assert run("inspect", token, *given, "--deployment-id", "d1").exit_code == 0
        assert run("inspect", token, *given, "--deployment-id", "d2").exit_code == 3
        open_ = run("inspect", token, *given)
        assert (open_.exit_code, "--deployment-id" in open_.stderr) == (0, True)


def secret_of(text: str) -> str:
    """The line of a private key in PEM."""
    return text.splitlines()[-2]


class TestKeygen:
    def test_the_private_key_is_its_owners_alone(self, tmp_path: Path) -> None:
        """In a new file; the public one is printed as the configuration has it."""
        result = run("keygen", "--kid", "2026-a")
        path = tmp_path / "aibridge-license-2026-a.pem"
        assert result.exit_code == 0
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert secret_of(path.read_text()) not in result.output
        name, _, value = result.stdout.partition(" = ")
        assert name == "AIBRIDGE_LICENSE_PUBLIC_KEYS"
        token = run("issue", "--key", str(path), "--sub", "Ada").stdout.strip()
        (given,) = json.loads(value).items()
        assert run("inspect", token, "--public-key", "=".join(given)).exit_code == 0

    def test_as_json(self, tmp_path: Path) -> None:
        """With the PEM, and a name of its own."""
        document = json.loads(run("keygen", "--out", "own.pem", "--json").stdout)
        assert set(document) == {"kid", "public_key", "public_key_pem", "private_key_file"}
        assert document["private_key_file"] == "own.pem"
        assert len(document["kid"]) == 32
        assert document["public_key_pem"].startswith("-----BEGIN PUBLIC KEY-----")

    def test_a_file_is_never_replaced(self, tmp_path: Path) -> None:
        """It may be the only copy of a key; nor is a link followed."""
        (tmp_path / "a.pem").write_text("precious")
        (tmp_path / "link.pem").symlink_to(tmp_path / "elsewhere")
        for name in ("a.pem", "link.pem"):
            result = run("keygen", "--out", name)
            assert (result.exit_code, "not replaced" in result.stderr) == (1, True)
            assert result.stdout == ""
        assert (tmp_path / "a.pem").read_text() == "precious"
        assert not (tmp_path / "elsewhere").exists()

    def test_a_folder_that_is_not_there(self) -> None:
        """Is named."""
        result = run("keygen", "--out", "missing/a.pem")
        assert (result.exit_code, "'missing/a.pem' cannot be written: No such file" in result.stderr) == (
            1,
            True,
        )

    @pytest.mark.parametrize("kid", ["", "../x", "a b", "-x", "x" * 65, "k=1", "é"])
    def test_a_kid_is_a_word(self, kid: str) -> None:
        """It is part of file names and options."""
        assert run("keygen", f"--kid={kid}").exit_code == 2


Issue = Callable[..., Result]


class TestIssue:
    @pytest.fixture
    def issue(self, tmp_path: Path) -> Issue:
        path = tmp_path / "key.pem"
        path.write_text(f"kid: k1\n{KEY.private_pem}")

        def issue(*arguments: str) -> Result:
            return run("issue", "--key", str(path), *arguments)

        return issue

    @staticmethod
    def claims(result: Result) -> dict[str, Any]:
        assert result.exit_code == 0, result.output
        token = result.stdout.removesuffix("\n")
        key = KEY.private_key.public_key()
        claims: dict[str, Any] = jwt.decode(token, key, algorithms=["EdDSA"], options=ANY_TIME)
        return claims

    def test_the_token_alone_is_printed(self, issue: Issue) -> None:
        """A year, and two weeks of grace, for the public door; what it is goes to the terminal."""
        result = issue("--sub", "Ada & Sons")
        claims = self.claims(result)
        assert (claims["sub"], claims["iss"], claims["version"]) == ("Ada & Sons", "vendor", 1)
        assert claims["features"] == {"aibridge": 1}
        assert claims["license_expires"] - claims["nbf"] == 365 * DAY
        assert claims["exp"] - claims["license_expires"] == 14 * DAY
        assert abs(claims["nbf"] - time.time()) < 60
        assert claims["jti"] in result.stderr
        assert jwt.get_unverified_header(result.stdout.strip())["kid"] == "k1"

    def test_every_claim_is_an_option(self, issue: Issue) -> None:
        """By its own name."""
        year = time.gmtime().tm_year
        result = issue(
            *("--iss", "Vendor Inc.", "--sub", "Ada", "--jti", "one", "--iat", f"{year}-01-01"),
            *("--nbf", f"{year + 1}-01-01", "--license-expires", f"{year + 2}-01-01T12:00:00+02:00"),
            *("--exp", f"{year + 2}-02-01", "--feature", "aibridge", "--feature", "user_limit=50"),
            *("--feature-set", "aibridge", "--trial", "--deployment-id", "d1", "--deployment-id", "d2"),
            *("--claims-version", "1"),
        )
        expires = time.strptime(f"{year + 2}-01-01 10:00:00 UTC", "%Y-%m-%d %H:%M:%S %Z")
        claims = self.claims(result)
        assert set(claims) == {
            *("iss", "sub", "jti", "iat", "nbf", "license_expires", "exp", "features", "feature_set"),
            *("trial", "deployment_ids", "version"),
        }
        assert (claims["iss"], claims["sub"], claims["jti"]) == ("Vendor Inc.", "Ada", "one")
        assert time.gmtime(claims["iat"])[:6] == (year, 1, 1, 0, 0, 0)
        assert time.gmtime(claims["nbf"])[:6] == (year + 1, 1, 1, 0, 0, 0)
        assert time.gmtime(claims["license_expires"])[:6] == expires[:6]
        assert time.gmtime(claims["exp"])[:6] == (year + 2, 2, 1, 0, 0, 0)
        assert claims["features"] == {"aibridge": 1, "user_limit": 50}
        assert (claims["feature_set"], claims["trial"]) == ("aibridge", True)
        assert claims["deployment_ids"] == ["d1", "d2"]

    def test_times_may_be_lengths(self, issue: Issue) -> None:
        """Each from where it begins."""
        claims = self.claims(issue("--sub", "Ada", "--begins", "10d", "--term", "30d", "--grace", "36h"))
        assert abs(claims["nbf"] - time.time() - 10 * DAY) < 60
        assert claims["iat"] <= claims["nbf"]
        assert claims["license_expires"] - claims["nbf"] == 30 * DAY
        assert claims["exp"] - claims["license_expires"] == 36 * 3600

    def test_a_feature_set_may_stand_alone(self, issue: Issue) -> None:
        """One that this release does not know is warned of: it may be newer."""
        assert self.claims(issue("--sub", "Ada", "--feature-set", "aibridge"))["features"] == {}
        result = issue("--sub", "Ada", "--feature-set", "plus")
        assert self.claims(result)["feature_set"] == "plus"
        assert "knows no feature set 'plus'" in result.stderr

    def test_as_json(self, issue: Issue) -> None:
        """With the id to note down."""
        document = json.loads(issue("--sub", "Ada", "--json").stdout)
        claims = jwt.decode(document["license"], options={"verify_signature": False})
        assert (document["id"], document["kid"]) == (claims["jti"], "k1")

    @pytest.mark.parametrize(
        "arguments",
        [
            ("--term", "2500d"),
            ("--term", "999999999d"),
            ("--term", "2020-01-01", "--grace", "2019-01-01"),
            ("--claims-version", "2"),
            ("--jti", "a/b"),
            ("--sub", ""),
            ("--iat", "1960-01-01"),
        ],
    )
    def test_one_that_no_installation_would_accept(self, issue: Issue, arguments: Sequence[str]) -> None:
        """Exit code 3; no token is printed."""
        result = issue("--sub", "Ada", *arguments)
        assert (result.exit_code, result.stdout) == (3, "")
        assert "license_" in result.stderr

    @pytest.mark.parametrize(
        "arguments",
        [
            ("--term", "soon"),
            ("--term", "2030-13-01"),
            ("--term", "999999999w"),
            ("--feature", ""),
            ("--feature", "user_limit=many"),
            ("--feature", "user_limit=-1"),
            ("--feature", "a=b=c"),
            ("--claims-version", "one"),
            ("--kid", "a b"),
        ],
    )
    def test_wrong_usage(self, issue: Issue, arguments: Sequence[str]) -> None:
        """Exit code 2."""
        result = issue("--sub", "Ada", *arguments)
        assert (result.exit_code, result.stdout) == (2, "")

    def test_a_customer_is_needed(self, issue: Issue) -> None:
        """A licence is for somebody."""
        assert issue().exit_code == 2

    @pytest.mark.parametrize("text", ["", "nonsense", f"kid: k1\n{KEY.public_pem}", "kid: k1\n-----BEGIN"])
    def test_a_key_that_is_none(self, text: str) -> None:
        """Is not shown."""
        result = run("issue", "--key", "-", "--kid", "k1", "--sub", "Ada", stdin=text)
        assert result.exit_code == 1
        assert "Ed25519 private key" in result.stderr

    def test_a_key_without_a_name(self) -> None:
        """From standard input, without the line that keygen writes: --kid says it."""
        result = run("issue", "--key", "-", "--sub", "Ada", stdin=KEY.private_pem)
        assert (result.exit_code, "--kid" in result.stderr) == (2, True)
        named = run("issue", "--key", "-", "--sub", "Ada", "--kid", "k1", stdin=KEY.private_pem)
        assert self.claims(named)["sub"] == "Ada"


def test_the_exit_codes_are_documented() -> None:
    """In the help of the group, and of the command that has most."""
    group = run("--help").stdout
    for code in range(6):
        assert re.search(rf"^ +{code}  \S", group, re.MULTILINE), code
    assert "4 in its grace period" in run("inspect", "--help").stdout


APP = """
from flask import Flask
from flask_aibridge import AIBridge

app = Flask(__name__)
app.config.update(
    AIBRIDGE_REDIS_URL="memory://",
    AIBRIDGE_LICENSE_FILE="license.jwt",
    AIBRIDGE_LICENSE_PUBLIC_KEYS={public_keys},
)
AIBridge(app)
"""


@pytest.mark.skipif(
    not any(entry.name == "aibridge" for entry in entry_points(group="flask.commands")),
    reason="the package is not installed",
)
def test_a_real_flask(tmp_path: Path, deadline: float) -> None:
    """From a key pair to an application that lists the licence; the vendor's side needs no application."""
    assert aibridge.get_command(click.Context(aibridge), "license") is license_group

    def flask(*arguments: str) -> subprocess.CompletedProcess[str]:
        environ = {name: value for name, value in os.environ.items() if name != "FLASK_APP"}
        return subprocess.run(
            [sys.executable, "-m", "flask", *arguments],
            cwd=tmp_path,
            env={**environ, "PYTHONWARNINGS": "error", "PYTHONDEVMODE": "1"},
            capture_output=True,
            encoding="utf-8",
            timeout=deadline,
            check=False,
        )

    made = flask("aibridge", "license", "keygen", "--kid", "k", "--out", "key.pem")
    assert made.returncode == 0, made.stderr
    issued = flask("aibridge", "license", "issue", "--key", "key.pem", "--sub", "Ada", "--jti", "one")
    assert (issued.returncode, issued.stdout.count(".")) == (0, 2), issued.stderr
    (tmp_path / "license.jwt").write_text(issued.stdout)
    unknown = flask("aibridge", "license", "inspect", "license.jwt")
    assert unknown.returncode == 3, unknown.stderr

    (tmp_path / "host.py").write_text(APP.format(public_keys=made.stdout.partition(" = ")[2]))
    known = flask("--app", "host", "aibridge", "license", "inspect", "license.jwt")
    assert known.returncode == 0, known.stdout + known.stderr
    listed = flask("--app", "host", "aibridge", "license", "list", "--json")
    assert listed.returncode == 0, listed.stderr
    (shown,) = json.loads(listed.stdout)
    assert (shown["id"], shown["source"], shown["standing"]) == ("one", "config", "entitled")
    missing = flask("--app", "missing", "aibridge", "license", "inspect", "license.jwt")
    assert missing.returncode == 2
