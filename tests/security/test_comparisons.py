"""Keys and tokens are compared by digest and in constant time: how long a refusal takes tells nothing about them."""

from __future__ import annotations

import ast
import hmac
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import flask_aibridge
from flask_aibridge.errors import Unauthorized
from flask_aibridge.services import api_keys
from flask_aibridge.services.authorizer import StaticKeys
from flask_aibridge.services.configuration.sealing import Sealer
from flask_aibridge.services.interfaces import Credential
from flask_aibridge.services.rpc.request import Refused, check_caller, digest_of
from tests.security.gateways import ADMIN, AS_ADMIN, PREFIX, gateway

PACKAGE = Path(flask_aibridge.__file__).parent
SECRET_WORDS = (
    "secret",
    "token",
    "digest",
    "signature",
    "password",
    "hash",
    "api_key",
    "shared_key",
    "admin",
    "presented",
)
ALLOWED = {
    "bridge/credentials.py: word == token",  # two headers of one request: whoever sent them knows both
}


def comparisons(source: str | bytes) -> Iterator[tuple[int, str]]:
    """Every ``==`` and ``!=`` one of whose sides is named like a secret."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Eq | ast.NotEq):
            sides = [node.left, *node.comparators]
            if any(_is_secret(side) for side in sides) and not any(_is_plain(side) for side in sides):
                yield node.lineno, ast.unparse(node)


def _is_secret(node: ast.expr) -> bool:
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    return any(word in name.lower() for word in SECRET_WORDS)


def _is_plain(node: ast.expr) -> bool:
    """A constant, a length or a type: comparing with it says nothing about a secret's characters."""
    return isinstance(node, ast.Constant) or (
        isinstance(node, ast.Call) and ast.unparse(node.func) in ("len", "type")
    )


def test_no_secret_is_compared_with_an_operator() -> None:
    """Nowhere in the package."""
    found = {
        f"{path.relative_to(PACKAGE)}: {text}"
        for path in PACKAGE.rglob("*.py")
        for _, text in comparisons(path.read_bytes())
    }
    assert found - ALLOWED == set()


@pytest.mark.parametrize(
    "source", ["row.secret_hash == digest", "a != token", "if key.secret == given.text: pass"]
)
def test_such_a_comparison_would_be_found(source: str) -> None:
    """In an expression or a statement."""
    assert len(list(comparisons(source))) == 1


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any]]:
    """What was compared in constant time."""
    seen: list[tuple[Any, Any]] = []
    real: Callable[[Any, Any], bool] = hmac.compare_digest

    def compare(a: Any, b: Any) -> bool:
        seen.append((a, b))
        return real(a, b)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    return seen


def is_all_digests(compared: list[tuple[Any, Any]], *secrets: str) -> bool:
    """Whether digests of one length were compared, and no secret itself."""
    sides = [side for pair in compared for side in pair]
    shown = [side if isinstance(side, str) else side.decode("latin-1") for side in sides]
    return len({len(side) for side in sides if side}) == 1 and not any(
        secret in side for side in shown for secret in secrets
    )


@pytest.mark.parametrize("sent", [ADMIN, "wrong", ADMIN[:-1], ADMIN + "x", "é", "x" * 10_000])
def test_the_administrators_token(compared: list[tuple[Any, Any]], sent: str) -> None:
    """By digests, which have one length, whatever was sent."""
    with gateway("http://127.0.0.1:1") as app:
        app.test_client().get(f"{PREFIX}/keys", headers={"X-Api-Key": sent.encode().decode("latin-1")})
    assert compared
    assert is_all_digests(compared[:1], ADMIN, sent)


@pytest.mark.parametrize("sent", ["aib_a_one", "aib_b_two", "aib_c_three", "", "é"])
def test_static_keys(compared: list[tuple[Any, Any]], sent: str) -> None:
    """Every one of them, whichever fits and whether one does."""
    StaticKeys({"a": "aib_a_one", "b": "aib_b_two"}).find(Credential(key=sent))
    assert len(compared) == 2
    assert is_all_digests(compared, "one", "two")


@pytest.mark.parametrize("good", [True, False])
def test_stored_keys(compared: list[tuple[Any, Any]], good: bool) -> None:
    """The present secret and the former one, in any case."""
    key_id, secret = api_keys.generate(bytes(range(api_keys.RANDOM_BYTES)))
    now = datetime.now(UTC)
    row = api_keys.new_row(key_id, secret, owner="alice", now=now)
    row = api_keys.rotated(row, "n" * 43, now.replace(year=now.year + 1))
    assert (api_keys.check(row, secret if good else "x" * 43, now) is None) is good
    assert len(compared) == 2
    assert is_all_digests(compared, secret)


@pytest.mark.parametrize("sent", ["Bearer shared", "Bearer wrong", "Bearer ", "Basic shared", ""])
def test_the_shared_key_of_the_rpc(compared: list[tuple[Any, Any]], sent: str) -> None:
    """By digests."""
    with nullcontext() if sent == "Bearer shared" else pytest.raises(Refused):
        check_caller({"HTTP_AUTHORIZATION": sent}, digest_of("shared"))
    assert not compared or is_all_digests(compared, "shared")
    assert bool(compared) is sent.startswith("Bearer")


def test_digests_of_what_is_sealed(compared: list[tuple[Any, Any]]) -> None:
    """Whether a seed is the one that was stored."""
    sealer = Sealer(["k" * 43])
    assert sealer.digest_fits(sealer.digest("seed", "p"), "seed", "p")
    assert is_all_digests(compared, "seed")


def test_refusals_look_alike() -> None:
    """An unknown key, a malformed one, an expired one and a wrong secret get one answer."""
    answers = set()
    with gateway("http://127.0.0.1:1") as app:
        client = app.test_client()
        issued: Any = client.post(f"{PREFIX}/keys", json={"owner": "bob"}, headers=AS_ADMIN).get_json()
        revoked: Any = client.post(f"{PREFIX}/keys", json={"owner": "eve"}, headers=AS_ADMIN).get_json()
        client.delete(f"{PREFIX}/keys/{revoked['id']}", headers=AS_ADMIN)
        for key in (
            "x",
            f"aib_aaaaaaaaaaaa_{'x' * 43}",
            f"aib_{issued['id']}_{'x' * 43}",
            revoked["key"],
            issued["key"][:-1],
        ):
            answer = client.post(f"{PREFIX}/anthropic/v1/messages", json={}, headers={"X-Api-Key": key})
            document: Any = answer.get_json()
            answers.add((answer.status, answer.headers["WWW-Authenticate"], str(document["error"])))
    assert len(answers) == 1


def test_a_wrong_key_is_refused_before_anything_is_read() -> None:
    """``Unauthorized`` names a reason for the log, and nothing of the key."""
    with pytest.raises(Unauthorized) as refused:
        api_keys.parse("aib_short_geheim")
    assert "geheim" not in str(refused.value)
