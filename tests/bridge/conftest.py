"""What the tests of the bridge share."""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from flask_aibridge.bridge import Bridge
from flask_aibridge.config import ProviderSettings
from flask_aibridge.observability import InterceptionEnded
from flask_aibridge.testing import Served, StandInProvider, serve_stand_in
from tests.bridge.wsgi import DEADLINE


class RecordingHook:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.records: list[InterceptionEnded] = []

    def interception_ended(self, record: InterceptionEnded) -> None:
        self.records.append(record)

    @property
    def record(self) -> InterceptionEnded:
        (record,) = self.records
        return record


class WaitingHook(RecordingHook):
    """Tells when there is a record: a thread of its own may write it after the caller has their answer."""

    def __init__(self) -> None:
        super().__init__()
        self.told = threading.Event()

    def interception_ended(self, record: InterceptionEnded) -> None:
        super().interception_ended(record)
        self.told.set()

    def ended(self) -> InterceptionEnded:
        assert self.told.wait(DEADLINE)
        return self.record


@pytest.fixture
def hook() -> RecordingHook:
    return RecordingHook()


@pytest.fixture
def waiting() -> WaitingHook:
    return WaitingHook()


@pytest.fixture
def stand_in() -> Iterator[Served[StandInProvider]]:
    with serve_stand_in(StandInProvider(answer=["Hel", "lo"], keys=["sk-host"])) as served:
        yield served


MakeBridge = Callable[..., Bridge]


@pytest.fixture
def make_bridge(hook: RecordingHook) -> Iterator[MakeBridge]:
    """Return a function that builds a bridge with the providers ``anthropic`` and ``openai`` at one base URL."""
    bridges: list[Bridge] = []

    def make(base_url: str, *, keys: tuple[str, ...] = ("sk-host",), **options: Any) -> Bridge:
        providers = [
            ProviderSettings("anthropic", "anthropic", base_url, keys),
            ProviderSettings("openai", "openai", f"{base_url}/v1", keys),
        ]
        options = {"api_keys": {"alice": "aib_1_secret"}, "hooks": [hook], **options}
        bridges.append(Bridge(providers, **options))
        return bridges[-1]

    yield make
    for bridge in bridges:
        bridge.close()


@pytest.fixture
def bridge(make_bridge: MakeBridge, stand_in: Served[StandInProvider]) -> Bridge:
    """A bridge in front of the stand-in."""
    return make_bridge(stand_in.base_url)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a throw-away key and a certificate for 127.0.0.1 that it signed itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stand-in")])
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    signed = builder.add_extension(address, critical=False).sign(key, hashes.SHA256())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    path.write_bytes(private + signed.public_bytes(serialization.Encoding.PEM))
    return path
