"""``demo.application``: one app, throw-away secrets, and a port."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing

import pytest
import urllib3

from flask_aibridge.demo.application import MAX_RECORDS, Demonstration, PortInUse, Records, serve
from flask_aibridge.demo.providers import partners


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Iterator[Demonstration]:
    monkeypatch.setattr("flask_aibridge.demo.providers.TOKEN_INTERVAL", 0.0)
    with partners({}) as found, closing(Demonstration(found)) as shown:
        yield shown


def test_the_door_is_closed_until_the_licence_is_installed(shown: Demonstration) -> None:
    """Then it is open for a day, to the holder of the key alone."""
    client = shown.app.test_client()
    path = shown.path_of(shown.client)
    assert client.post(path).status_code == 403
    assert shown.install_license().open
    assert client.post(path).status_code == 401
    assert client.post(path, headers={"X-Api-Key": shown.api_key}, data=b"{").status_code != 401


def test_secrets_are_made_on_the_spot() -> None:
    """Two demonstrations share none."""
    with partners({}) as found:
        one, two = Demonstration(found), Demonstration(found)
    assert one.api_key != two.api_key
    assert one.api_key.startswith("aib_")


def test_a_page_of_the_app_streams_its_agents_answer(shown: Demonstration) -> None:
    """In process: without a key, and with no licence."""
    response = shown.app.test_client().get("/agent?ask=Hello+there")
    assert response.status_code == 200
    assert "stand-in provider" in response.text
    assert "“Hello there”" in response.text
    [record] = shown.records.take(1)
    assert (record.in_process, record.source) == (True, "agents")


def test_records_are_bounded(shown: Demonstration) -> None:
    """Whoever calls all day fills no memory."""
    shown.app.test_client().get("/agent").close()
    [record] = shown.records.take(1)
    records = Records()
    for _ in range(MAX_RECORDS + 10):
        records.interception_ended(record)
    assert len(records.take(MAX_RECORDS)) == MAX_RECORDS


class TestServing:
    def test_a_port_that_is_taken_is_named(self, shown: Demonstration) -> None:
        """If it was asked for."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(PortInUse, match=f"Port {port} cannot be used"), serve(shown.app, port):
                raise AssertionError("never reached")

    def test_without_a_port_any_will_do(self, shown: Demonstration) -> None:
        """The usual one may be taken, by another demo for instance."""
        with serve(shown.app) as one, serve(shown.app) as two:
            assert one != two
            for base_url in (one, two):
                with urllib3.PoolManager() as http:
                    assert http.request("GET", f"{base_url}/agent").status == 200

    def test_nothing_is_logged_to_the_terminal(
        self, shown: Demonstration, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """It belongs to the demo."""
        with serve(shown.app, 0) as base_url, urllib3.PoolManager() as http:
            http.request("GET", f"{base_url}/nothing-here")
        assert capfd.readouterr() == ("", "")
