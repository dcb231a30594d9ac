"""``license.gate``: verified once, asked per request, replaced while it is in use."""

from __future__ import annotations

import logging
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

import flask_aibridge
from flask_aibridge.errors import ConfigError, LicenseError
from flask_aibridge.license import Gate
from flask_aibridge.license.gate import GRACE_WARNING_INTERVAL
from flask_aibridge.license.holder import LicenseHolder
from flask_aibridge.license.issuing import SigningKey, issue_license, sign
from tests.license.signed import KEY as SIGNED
from tests.license.signed import NOW, Installation, licence

KEY = SigningKey.generate("k1")
KEYS = {"k1": KEY.public_pem}
DAY = 24 * 60 * 60


def records(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "flask_aibridge.license"]


@pytest.mark.parametrize("token", [None, "", " \n"])
def test_no_licence_closes_the_door_quietly(token: str | None, caplog: pytest.LogCaptureFixture) -> None:
    """A development machine has none, and needs no warning."""
    decision = Gate(KEYS, token).check()
    assert (decision.open, decision.code) == (False, "license_required")
    assert decision.message.startswith("AI Bridge is a licensed feature. ")
    assert records(caplog) == []


def test_a_licence_opens_the_door(caplog: pytest.LogCaptureFixture) -> None:
    """Open, with no code and no word."""
    decision = Gate(KEYS, issue_license(KEY)).check()
    assert (decision.open, decision.code, decision.grace) == (True, None, False)
    assert records(caplog) == []


def test_a_bad_licence_closes_the_door_and_says_why(caplog: pytest.LogCaptureFixture) -> None:
    """The host app starts all the same; the log names the code and never shows the licence."""
    token = issue_license(SigningKey.generate("k1"))
    gate = Gate(KEYS, token)
    assert gate.check().code == "license_bad_signature"
    assert gate.check().message.startswith("AI Bridge is a licensed feature. ")
    [warning] = records(caplog)
    assert "license_bad_signature" in warning
    assert token.split(".")[2] not in warning


def test_an_expired_licence_says_so_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    """Genuine, and over."""
    gate = Gate(KEYS, issue_license(KEY, nbf=1_000_000_000))
    assert gate.check().code == "license_expired"
    assert "license_expired" in records(caplog)[0]


def test_time_is_all_that_is_asked() -> None:
    """One gate, one verification, every standing of a licence's life."""
    now = 1_800_000_000
    payload = {
        "iss": "v",
        "sub": "c",
        "jti": "1",
        "version": 1,
        "features": {"aibridge": 1},
        "iat": now,
        "nbf": now,
    }
    gate = Gate(KEYS, sign(KEY, {**payload, "license_expires": now + 10, "exp": now + 20}), clock=lambda: now)
    standings = [gate.check(now + seconds) for seconds in (-1000, 0, 10, 20)]
    assert [decision.code for decision in standings] == [
        "license_not_yet_valid",
        None,
        None,
        "license_expired",
    ]
    assert [decision.grace for decision in standings] == [False, False, True, False]


def test_grace_is_open_and_warned_about_once_a_day(caplog: pytest.LogCaptureFixture) -> None:
    """However many requests there are."""
    token = issue_license(KEY, nbf=1_700_000_000, license_expires=1_700_000_000 + DAY)
    gate = Gate(KEYS, token, clock=lambda: 1_700_000_000 + 2.0 * DAY)
    decisions = [gate.check() for _ in range(100)]
    assert all(decision.open and decision.grace for decision in decisions)
    [warning] = records(caplog)
    assert "grace period" in warning
    assert "2023-11-29" in warning

    gate.check(1_700_000_000 + 2.0 * DAY + GRACE_WARNING_INTERVAL - 1)
    assert len(records(caplog)) == 1
    gate.check(1_700_000_000 + 2.0 * DAY + GRACE_WARNING_INTERVAL)
    assert len(records(caplog)) == 2


class Grace:
    """A gate in grace whose warning is due, and what another request does at the same moment."""

    def __init__(self) -> None:
        token = issue_license(KEY, nbf=1_700_000_000, license_expires=1_700_000_000 + DAY)
        self.gate = Gate(KEYS, token, clock=lambda: 1_700_000_000 + 2.0 * DAY)
        self.due = 1_700_000_000 + 2.0 * DAY + GRACE_WARNING_INTERVAL


def test_a_request_never_waits_for_another_ones_warning(caplog: pytest.LogCaptureFixture) -> None:
    """While one is writing it, the next goes on."""
    grace = Grace()
    caplog.clear()
    with grace.gate._warning:
        assert grace.gate.check(grace.due).open
    assert records(caplog) == []


def test_two_requests_at_once_warn_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second finds it done as soon as it may."""
    grace = Grace()
    caplog.clear()

    class Late:
        def acquire(self, blocking: bool) -> bool:
            grace.gate._next_warning = grace.due + 1
            return True

        def release(self) -> None:
            """Nothing was held."""

    monkeypatch.setattr(grace.gate, "_warning", Late())
    assert grace.gate.check(grace.due).grace
    assert records(caplog) == []


def test_grace_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """Where people look."""
    Gate(
        KEYS,
        issue_license(KEY, nbf=1_700_000_000, license_expires=1_700_000_001),
        clock=lambda: 1_700_000_002,
    )
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


class TestInstalling:
    def test_it_opens_the_door_at_once(self) -> None:
        """For the next request of this process."""
        gate = Gate(KEYS)
        assert gate.install(issue_license(KEY)).open
        assert gate.check().open

    def test_what_cannot_be_accepted_changes_nothing(self) -> None:
        """A slip while pasting does not close an open door."""
        gate = Gate(KEYS, issue_license(KEY))
        with pytest.raises(LicenseError) as caught:
            gate.install("x.y.z")
        assert caught.value.code == "license_malformed"
        assert gate.check().open

    def test_a_genuine_licence_is_installed_even_if_it_opens_nothing(self) -> None:
        """One for next month can be installed today."""
        gate = Gate(KEYS, issue_license(KEY))
        assert gate.install(issue_license(KEY, features={})).code == "license_feature_missing"
        assert gate.check().code == "license_feature_missing"

    def test_without_public_keys_no_licence_is_known(self) -> None:
        """The built-in keys are all there is then."""
        with pytest.raises(LicenseError) as caught:
            Gate().install(issue_license(KEY))
        assert caught.value.code == "license_unknown_key"


def test_its_repr_tells_its_state() -> None:
    """And nothing of the licence."""
    assert repr(Gate()) == "<Gate license_required>"
    assert repr(Gate(KEYS, issue_license(KEY))) == "<Gate open>"


def test_a_bad_public_key_stops_the_app() -> None:
    """That is the operator's to mend, not the customer's."""
    with pytest.raises(ConfigError, match="k1"):
        Gate({"k1": "nonsense"})


def test_without_a_licence_nothing_is_imported_to_read_one() -> None:
    """PyJWT and cryptography cost 100 ms that such a process need not pay."""
    code = (
        "import sys; from flask_aibridge.license import Gate; Gate().check(); "
        "print(sorted({'jwt', 'cryptography'} & set(sys.modules)))"
    )
    root = str(Path(flask_aibridge.__path__[0]).parent)
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {root!r}); {code}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == "[]\n"


class TestWithAHolder:
    """The form that an app uses: the gate asks, a holder knows."""

    def test_it_sees_what_changes(self) -> None:
        """With its next question."""
        installation = Installation()
        with closing(installation.holder()) as holder:
            gate = Gate(holder=holder)
            assert gate.check().code == "license_required"
            holder.install(licence())
            assert gate.check().open

    def test_nothing_is_asked_before_the_first_request(self) -> None:
        """Making a gate is no request."""
        installation = Installation()
        holder = installation.holder(licence())
        Gate(holder=holder)
        assert installation.store.opened == 0
        assert not holder.refresher.is_running

    def test_it_can_be_of_any_feature(self) -> None:
        """One for each, of one holder."""
        holder = LicenseHolder(
            {"k1": SIGNED.public_pem}, [licence(features={"reports": 1})], clock=lambda: NOW
        )
        assert Gate(holder=holder, feature="reports").check().open
        assert Gate(holder=holder).check().code == "license_feature_missing"
        assert repr(Gate(holder=holder, feature="exports")) == "<Gate of exports>"


class TestNotice:
    """What every response says in grace."""

    def gate(self, *tokens: str) -> Gate:
        return Gate(holder=LicenseHolder({"k1": SIGNED.public_pem}, tokens, clock=lambda: NOW))

    def test_it_tells_the_end_of_the_grace(self) -> None:
        """In one line of ASCII, which fits a header."""
        notice = self.gate(licence(license_expires=NOW - 1, exp=NOW + DAY)).notice()
        assert notice is not None
        assert "the door closes on 2027-01-16" in notice
        assert notice.isascii()
        assert notice.isprintable()

    def test_it_knows_of_the_next_licence(self) -> None:
        """Then nothing closes."""
        notice = self.gate(
            licence(license_expires=NOW - 1, exp=NOW + 10 * DAY), licence(nbf=NOW + 2 * DAY, iat=NOW)
        ).notice()
        assert notice is not None
        assert "another takes over on 2027-01-17" in notice

    def test_otherwise_there_is_none(self) -> None:
        """Neither in the term, nor with no licence at all."""
        assert self.gate(licence()).notice() is None
        assert self.gate().notice() is None
