"""``license.holder``: what is in force follows the configuration and the store, and survives the store."""

from __future__ import annotations

import logging
import os
import threading
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_aibridge.errors import ConfigError, LicenseError, ServicesUnavailable
from flask_aibridge.license.gate import Gate
from flask_aibridge.license.holder import REFRESH_SECONDS, LicenseHolder
from flask_aibridge.license.issuing import SigningKey, issue_license
from flask_aibridge.license.store import MAX_INSTALLED, MemoryLicenseStore
from tests.license.signed import DAY, KEY, KEYS, NOW, Installation, code_of, licence
from tests.services.servers import wait_until

LOGGER = "flask_aibridge.license"


@pytest.fixture
def installation() -> Installation:
    return Installation()


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == LOGGER]


class TestConfiguration:
    def test_a_licence_of_the_configuration_is_in_force_at_once(self, installation: Installation) -> None:
        """Without a look at the store."""
        assert code_of(installation.holder(licence())) is None
        assert installation.store.opened == 0

    def test_several_count_together(self, installation: Installation) -> None:
        """A bad one takes nothing from a good one."""
        holder = installation.holder("x.y.z", licence(), " ")
        assert code_of(holder) is None
        assert [each.code for each in holder.in_force.entitlements.errors] == ["license_malformed"]

    def test_without_a_store_there_is_nothing_to_say(
        self, installation: Installation, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A host with a licence in its configuration needs none, and is not told to get one."""
        installation.store.missing = True
        holder = installation.holder(licence())
        holder.look()
        holder.look()
        assert code_of(holder) is None
        assert holder.away_since is None
        assert installation.store.opened == 1
        assert messages(caplog) == []

    def test_a_store_that_cannot_have_anything_is_not_opened(self, installation: Installation) -> None:
        """Until it can."""
        exists = False
        holder = installation.holder(has_store=lambda: exists)
        holder.look()
        assert installation.store.opened == 0
        installation.store.install("a", licence(jti="a"), NOW)
        exists = True
        holder.look()
        assert code_of(holder) is None

    def test_a_bad_public_key_stops_the_app(self) -> None:
        """That is the operator's to mend."""
        with pytest.raises(ConfigError, match="k1"):
            LicenseHolder({"k1": "nonsense"})

    def test_a_bad_deny_list_stops_the_app(self) -> None:
        """For the same reason."""
        with pytest.raises(ConfigError, match="deny list"):
            LicenseHolder(KEYS, deny_lists=["nonsense"])


class TestInstalling:
    def test_it_is_in_force_here_at_once(self, installation: Installation) -> None:
        """For the next request of this process."""
        holder = installation.holder()
        license_ = holder.install(licence(jti="a"))
        assert (license_.id, license_.source, license_.uploaded_at) == ("a", "installed", NOW)
        assert code_of(holder) is None
        assert [each.id for each in holder.licenses()] == ["a"]

    def test_others_have_it_with_their_next_look(self, installation: Installation) -> None:
        """And lose it likewise."""
        one, two = installation.holder(), installation.holder()
        one.install(licence(jti="a"))
        two.look()
        assert code_of(two) is None
        assert one.remove("a")
        two.look()
        assert code_of(two) == "license_required"

    def test_what_cannot_be_accepted_changes_nothing(self, installation: Installation) -> None:
        """Each with its own reason."""
        holder = installation.holder()
        other_key = SigningKey.generate("k1")
        for token, code in (
            ("x.y.z", "license_malformed"),
            (issue_license(other_key), "license_bad_signature"),
            (licence(deployment_ids=["someone-else"]), "license_wrong_deployment"),
            (licence(nbf=NOW - 900 * DAY, iat=NOW - 900 * DAY), "license_expired"),
        ):
            with pytest.raises(LicenseError) as caught:
                holder.install(token)
            assert caught.value.code == code
        assert installation.store.installed() == ()

    def test_one_for_later_can_be_installed_today(self, installation: Installation) -> None:
        """A renewal comes before it is needed."""
        holder = installation.holder()
        holder.install(licence(nbf=NOW + 10 * DAY, iat=NOW))
        assert code_of(holder) == "license_not_yet_valid"
        installation.clock.now += 10 * DAY
        assert code_of(holder) is None

    def test_one_for_this_deployment_is_accepted(self, installation: Installation) -> None:
        """Its id is what the store says."""
        holder = installation.holder()
        holder.install(licence(deployment_ids=[holder.deployment_id()]))
        assert code_of(holder) is None

    def test_white_space_of_a_mail_is_not_kept(self, installation: Installation) -> None:
        """Everybody keeps the same text."""
        token = licence()
        installation.holder().install(f"{token[:50]}\r\n  {token[50:]}\n")
        [kept] = installation.store.installed()
        assert kept.token == token

    def test_there_is_a_bound(self, installation: Installation) -> None:
        """With a code of its own."""
        for number in range(MAX_INSTALLED):
            installation.store.install(f"id-{number}", "x.y.z", NOW)
        with pytest.raises(LicenseError) as caught:
            installation.holder().install(licence())
        assert caught.value.code == "license_too_many"

    def test_removing_what_is_not_there(self, installation: Installation) -> None:
        """Is said."""
        assert installation.holder().remove("unknown") is False

    def test_without_a_store_nothing_can_be_installed(self, installation: Installation) -> None:
        """And the error is the store's own, which names the remedies."""
        installation.store.missing = True
        with pytest.raises(ConfigError, match="AIBRIDGE_REDIS_URL"):
            installation.holder().install(licence())
        with pytest.raises(ConfigError):
            LicenseHolder(KEYS).install(licence())

    def test_a_store_that_comes_later_is_used(self, installation: Installation) -> None:
        """Somebody installs something where there was nothing to look at before."""
        installation.store.missing = True
        holder = installation.holder()
        holder.look()
        installation.store.missing = False
        holder.install(licence())
        assert code_of(holder) is None

    def test_inspecting_installs_nothing(self, installation: Installation) -> None:
        """It tells what would be."""
        holder = installation.holder()
        assert holder.inspect(licence(deployment_ids=["other"])).refused is not None
        assert holder.inspect(licence()).refused is None
        assert code_of(holder) == "license_required"


class TestRefreshing:
    def test_everybody_reads_again(self, installation: Installation) -> None:
        """What changed without a version, too."""
        one, two = installation.holder(), installation.holder()
        one.look()
        two.look()
        before = two.in_force
        assert one.refresh() == 0
        two.look()
        assert two.in_force is not before

    def test_once_a_minute(self, installation: Installation) -> None:
        """For all processes together."""
        assert installation.holder().refresh() == 0
        assert installation.holder().refresh() == REFRESH_SECONDS
        installation.clock.now += REFRESH_SECONDS
        assert installation.holder().refresh() == 0


class TestOutage:
    def test_what_was_in_force_goes_on(
        self, installation: Installation, caplog: pytest.LogCaptureFixture
    ) -> None:
        """One warning says since when, one that it is over."""
        holder = installation.holder()
        holder.install(licence())
        caplog.clear()
        installation.store.away = True
        for _ in range(5):
            installation.clock.now += 1
            holder.look()
        assert code_of(holder) is None
        assert holder.away_since == NOW + 1
        [warning] = messages(caplog)
        assert "away since 2027-01-15" in warning
        [shown] = holder.entitlements().warnings
        assert shown.code == "license_store_away"
        assert "2027-01-15" in shown.message

        installation.store.away = False
        holder.look()
        assert holder.away_since is None
        assert holder.entitlements().warnings == ()
        assert messages(caplog)[1:] == ["The store of the installed licences is back."]

    def test_what_changed_meanwhile_is_found(self, installation: Installation) -> None:
        """Also where a store came back with other data and the same version."""
        holder = installation.holder()
        holder.install(licence())
        installation.store.away = True
        holder.look()
        installation.store.store = MemoryLicenseStore(installation.clock)
        installation.store.store.bump()
        installation.store.away = False
        holder.look()
        assert code_of(holder) == "license_required"

    def test_a_process_that_starts_meanwhile_has_its_configuration(
        self, installation: Installation, caplog: pytest.LogCaptureFixture
    ) -> None:
        """And says that it knows no more."""
        installation.store.away = True
        holder = installation.holder(licence())
        holder.look()
        assert code_of(holder) is None
        [warning] = messages(caplog)
        assert "only those of the configuration" in warning

    def test_a_licence_for_a_deployment_counts_until_the_store_can_be_asked(
        self, installation: Installation
    ) -> None:
        """Its customer did not cause the outage. Then it counts or not, as it is."""
        installation.store.away = True
        bound = licence(deployment_ids=["someone-else"])
        holder = installation.holder(bound)
        assert code_of(holder) == "license_wrong_deployment"
        holder.look()
        assert code_of(holder) is None
        installation.store.away = False
        holder.look()
        assert code_of(holder) == "license_wrong_deployment"
        installation.store.away = True
        holder.look()
        assert code_of(holder) == "license_wrong_deployment"

    def test_changes_have_to_wait(self, installation: Installation) -> None:
        """Who makes them is told."""
        holder = installation.holder()
        installation.store.away = True
        with pytest.raises(ServicesUnavailable):
            holder.install(licence())
        with pytest.raises(ServicesUnavailable):
            holder.remove("a")
        with pytest.raises(ServicesUnavailable):
            holder.refresh()
        with pytest.raises(ServicesUnavailable):
            holder.deployment_id()

    def test_any_other_failure_is_survived_too(
        self, installation: Installation, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A row that somebody else wrote, say. It is logged once, with its traceback."""
        holder = installation.holder(licence())
        installation.store.failure = KeyError("token")
        holder.look()
        holder.look()
        assert code_of(holder) is None
        [record] = [record for record in caplog.records if record.name == LOGGER]
        assert record.exc_info is not None

    def test_a_store_that_does_not_open_is_not_opened_all_the_time(self, installation: Installation) -> None:
        """Starting a server is work."""
        opened = 0

        def fails() -> MemoryLicenseStore:
            nonlocal opened
            opened += 1
            raise ServicesUnavailable("The server does not start.")

        holder = LicenseHolder(KEYS, store=fails, clock=installation.clock)
        for _ in range(10):
            holder.look()
        assert opened == 1
        assert holder.away_since == NOW


class TestTime:
    def test_a_clock_turned_back_revives_nothing(self, installation: Installation) -> None:
        """In no process of the installation."""
        holder = installation.holder(licence(license_expires=NOW + DAY, exp=NOW + DAY))
        installation.clock.now = NOW + 3 * DAY
        holder.look()
        assert code_of(holder) == "license_expired"
        installation.clock.now = NOW
        other = installation.holder(licence(license_expires=NOW + DAY, exp=NOW + DAY))
        assert code_of(holder) == "license_expired"
        other.look()
        assert code_of(other) == "license_expired"
        assert "license_clock_behind" in [each.code for each in other.entitlements().warnings]

    def test_a_correction_kills_nothing(self, installation: Installation) -> None:
        """Within a day, the clock is believed."""
        holder = installation.holder(licence(license_expires=NOW + DAY, exp=NOW + DAY))
        installation.clock.now = NOW + DAY + 10
        holder.look()
        installation.clock.now = NOW + DAY - 10
        assert code_of(holder) is None

    def test_what_was_seen_during_an_outage_counts(self, installation: Installation) -> None:
        """It is told to the store afterwards."""
        holder = installation.holder()
        holder.look()
        installation.store.away = True
        installation.clock.now = NOW + 3 * DAY
        holder.look()
        installation.store.away = False
        holder.look()
        assert installation.store.highest_time(NOW) == NOW + 3 * DAY


class TestMany:
    def test_each_signature_is_verified_once(self, installation: Installation) -> None:
        """However often a thousand licences are evaluated."""
        for number in range(1000):
            token = issue_license(
                KEY, jti=f"many-{number}", nbf=NOW, license_expires=NOW + DAY * (number + 1)
            )
            installation.store.install(f"many-{number}", token, NOW)
        holder = installation.holder()
        for _ in range(3):
            assert holder.entitlements().has_license
        assert len(holder.licenses()) == 1000
        reader = holder._texts._reader
        assert reader is not None
        assert reader._remembered.cache_info().misses == 1000


class TestUsers:
    def test_they_are_counted_for_who_asks(self, installation: Installation) -> None:
        """Not for requests, and not each time."""
        counted: list[int] = []

        def count() -> int:
            counted.append(1)
            return 12

        holder = installation.holder(licence(features={"aibridge": 1, "user_limit": 10}), count_users=count)
        holder.look()
        assert counted == []
        limit = holder.entitlements().features["user_limit"]
        assert (limit.limit, limit.actual, limit.enabled) == (10, 12, True)
        assert [each.code for each in holder.entitlements().warnings] == ["license_limit_exceeded"]
        assert counted == [1]


class TestFeatures:
    def test_a_feature_of_the_hosts_own(self, installation: Installation) -> None:
        """It is licensed like any other, and listed."""
        holder = installation.holder(licence(features={"reports": 1}))
        holder.declare("reports", "exports")
        assert code_of(holder, "reports") is None
        assert code_of(holder, "exports") == "license_feature_missing"
        assert set(holder.entitlements().features) >= {"aibridge", "reports", "exports"}

    def test_it_declares_itself_when_it_is_asked_for(self) -> None:
        """With the first request."""
        holder = LicenseHolder(KEYS, [licence(features={"reports": 1})], clock=lambda: NOW)
        assert Gate(holder=holder, feature="reports").check().open


class TestLog:
    def test_a_change_of_the_public_door_is_logged(
        self, installation: Installation, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Once each way; a development machine without a licence hears nothing."""
        caplog.set_level(logging.INFO, LOGGER)
        holder = installation.holder()
        holder.look()
        assert messages(caplog) == []
        holder.install(licence(jti="a"))
        holder.look()
        holder.remove("a")
        assert [text.split(".")[0] for text in messages(caplog)] == [
            "The public door is open",
            "The public door is closed (license_required)",
        ]

    def test_no_licence_is_ever_shown(self, installation: Installation) -> None:
        """Neither by the holder nor by what it holds."""
        token = licence()
        holder = installation.holder(token)
        holder.install(token)
        assert token not in repr(holder) + repr(holder.in_force)


@pytest.mark.usefixtures("no_leaks")
class TestThread:
    def test_nothing_starts_by_itself(self, installation: Installation) -> None:
        """Not with the holder, nor with what administers it."""
        before = threading.active_count()
        holder = installation.holder()
        holder.install(licence(jti="a"))
        holder.entitlements()
        holder.remove("a")
        assert threading.active_count() == before

    def test_the_first_request_knows_what_is_installed(self, installation: Installation) -> None:
        """A worker that has just been started does not turn away who has a licence."""
        installation.store.install("a", licence(jti="a"), NOW)
        with closing(installation.holder()) as holder:
            assert Gate(holder=holder).check().open
            assert holder.refresher.is_running

    def test_changes_come_by_themselves(self, installation: Installation, deadline: float) -> None:
        """In force is what the store has."""
        with closing(installation.holder()) as holder:
            assert Gate(holder=holder).check().code == "license_required"
            installation.store.install("a", licence(jti="a"), NOW)
            wait_until(lambda: Gate(holder=holder).check().open, "the licence", deadline)
            installation.store.remove("a")
            wait_until(lambda: not Gate(holder=holder).check().open, "its removal", deadline)

    def test_a_request_never_waits_for_a_refresh(self, installation: Installation, deadline: float) -> None:
        """Not even for one that hangs."""
        reading, go_on = threading.Event(), threading.Event()

        class Hanging(MemoryLicenseStore):
            def version(self) -> int:
                reading.set()
                assert go_on.wait(deadline)
                return super().version()

        with closing(installation.holder(licence())) as holder:
            assert Gate(holder=holder).check().open
            installation.store.store = Hanging(installation.clock)
            assert reading.wait(deadline)
            assert Gate(holder=holder).check().open
            assert not go_on.is_set()
            go_on.set()

    def test_after_close_the_next_request_starts_it_again(self, installation: Installation) -> None:
        """Closing is no end."""
        holder = installation.holder(licence())
        Gate(holder=holder).check()
        holder.close()
        assert not holder.refresher.is_running
        assert Gate(holder=holder).check().open
        assert holder.refresher.is_running
        holder.close()

    def test_a_child_has_a_thread_of_its_own(self, installation: Installation) -> None:
        """What the parent's held at the fork does not hold it up."""
        with closing(installation.holder(licence())) as holder:
            Gate(holder=holder).check()
            holder._changing.acquire()
            child = os.fork()
            if not child:
                code = 1
                try:
                    running_before = holder.refresher.is_running
                    holder.install(licence())
                    is_open = Gate(holder=holder).check().open
                    code = 0 if is_open and not running_before and holder.refresher.is_running else 2
                finally:
                    os._exit(code)
            holder._changing.release()
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    def test_the_thread_does_not_keep_a_holder(self, installation: Installation) -> None:
        """An app that is dropped takes its thread along: see the fixture."""
        Gate(holder=installation.holder(licence())).check()


STEPS = st.lists(
    st.tuples(st.sampled_from(["install", "remove", "away", "back", "look", "lose"]), st.integers(0, 2)),
    max_size=25,
)
TOKENS = [licence(jti=f"l{number}", features={f"f{number}": 1}) for number in range(3)]
FEATURES = [f"f{number}" for number in range(3)]


@given(STEPS)
def test_any_interleaving_ends_the_same_for_all(steps: list[tuple[str, int]]) -> None:
    """Whatever two processes did and missed, one look after the store is back, both have what the store has."""
    installation = Installation()
    holders = [installation.holder(), installation.holder()]
    for index, (step, number) in enumerate(steps):
        holder = holders[index % 2]
        if step in {"away", "back"}:
            installation.store.away = step == "away"
        elif step == "lose":
            installation.store.store = MemoryLicenseStore(installation.clock)
            for each in holders:  # a store that loses its data was away meanwhile
                installation.store.away = True
                each.look()
            installation.store.away = False
        elif step == "look":
            holder.look()
        else:
            _try_to_change(holder, step, number)
    installation.store.away = False
    for holder in holders:
        holder.declare(*FEATURES)
        holder.look()
    kept = {each.id for each in installation.store.installed()}
    for holder in holders:
        allowed = {name for name in FEATURES if code_of(holder, name) is None}
        assert allowed == {f"f{each[1:]}" for each in kept}
        assert holder.away_since is None


def _try_to_change(holder: LicenseHolder, step: str, number: int) -> None:
    try:
        if step == "install":
            holder.install(TOKENS[number])
        else:
            holder.remove(f"l{number}")
    except ServicesUnavailable:
        pass


def test_the_key_of_the_tests_is_not_built_in() -> None:
    """Or the tests of unknown keys would prove nothing."""
    assert KEY.kid not in LicenseHolder()._texts._public_keys


def test_a_clock_that_was_turned_back_does_not_make_an_old_licence_new(installation: Installation) -> None:
    """Also for a process that has just begun, as a command has."""
    installation.holder().look()
    old = licence(nbf=NOW - 30 * DAY, iat=NOW - 30 * DAY, license_expires=NOW - 5 * DAY, exp=NOW - 5 * DAY)
    installation.clock.now = NOW - 10 * DAY
    with pytest.raises(LicenseError) as caught:
        installation.holder().install(old)
    assert caught.value.code == "license_expired"


def test_without_a_store_a_running_process_is_not_fooled_by_its_clock(installation: Installation) -> None:
    """It remembers the time by itself."""
    installation.store.missing = True
    holder = installation.holder(licence(license_expires=NOW + DAY, exp=NOW + DAY))
    installation.clock.now = NOW + 5 * DAY
    holder.look()
    installation.clock.now = NOW
    assert [each.code for each in holder.entitlements().warnings] == ["license_clock_behind"]
    assert code_of(holder) == "license_expired"


def test_who_has_never_reached_the_store_says_so(installation: Installation) -> None:
    """And not that there is no licence, of which nothing is known."""
    installation.store.install("a", licence(jti="a"), NOW)
    installation.store.away = True
    holder = installation.holder()
    holder.look()
    assert code_of(holder) == "license_store_away"
    installation.store.away = False
    holder.look()
    assert code_of(holder) is None
