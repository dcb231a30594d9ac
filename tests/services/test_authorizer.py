"""``services.authorizer``: static keys, the host's callback, stored keys; in this order."""

from __future__ import annotations

import hmac
import logging
import traceback
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_aibridge.errors import ConfigError, ServicesUnavailable, Unauthorized
from flask_aibridge.services import api_keys
from flask_aibridge.services.authorizer import HostAuthorizer, StaticKeys
from flask_aibridge.services.interfaces import Authorization, Credential, Scopes
from flask_aibridge.services.memory.store import MemoryStore
from flask_aibridge.services.storage import Store

STORED_ID, STORED_SECRET = api_keys.generate(b"s" * api_keys.RANDOM_BYTES)
STORED = api_keys.spell(STORED_ID, STORED_SECRET)
UNKNOWN = api_keys.spell(*api_keys.generate(b"u" * api_keys.RANDOM_BYTES))
STATIC = {"ada": "aib_adas_letmein", "bob": "aib_whatever he likes"}


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    store.put_api_key(api_keys.new_row(STORED_ID, STORED_SECRET, owner="eve", now=datetime.now(UTC)))
    return store


def no_store() -> Store:
    raise AssertionError("the store must not be needed")


def make(store: MemoryStore | None = None, key_loader: Any = None) -> HostAuthorizer:
    return HostAuthorizer(STATIC, no_store if store is None else lambda: store, lambda: key_loader)


def reason_of(authorizer: HostAuthorizer, credential: Credential) -> str:
    with pytest.raises(Unauthorized) as refused:
        authorizer.authorize(credential)
    return refused.value.reason


class TestStaticKeys:
    def test_the_id_is_the_one_in_the_key(self) -> None:
        found = StaticKeys(STATIC).find(Credential(key="aib_adas_letmein"))
        assert found == Authorization("ada", "adas")

    def test_a_key_of_another_form_has_an_id_made_of_the_user(self) -> None:
        """And the same whatever the key is, so that it stays when the key is changed and says nothing of it."""
        one = StaticKeys({"bob": "aib_x"}).find(Credential(key="aib_x"))
        other = StaticKeys({"bob": "aib_y"}).find(Credential(key="aib_y"))
        assert one is not None
        assert one == other
        assert one.key_id is not None
        assert len(one.key_id) == api_keys.ID_LENGTH

    def test_two_keys_never_share_an_id(self) -> None:
        keys = StaticKeys({"ada": "aib_dev_1", "bob": "aib_dev_2"})
        ada, bob = keys.find(Credential(key="aib_dev_1")), keys.find(Credential(key="aib_dev_2"))
        assert ada is not None
        assert bob is not None
        assert ada.key_id != bob.key_id
        assert keys.find(Credential(key_id="dev")) is None
        assert keys.find(Credential(key_id=bob.key_id)) == bob

    @pytest.mark.parametrize("key", ["", " ", "\t"])
    def test_an_empty_key_is_refused(self, key: str) -> None:
        with pytest.raises(ConfigError, match="'ada'"):
            StaticKeys({"ada": key})

    def test_it_shows_no_key(self) -> None:
        keys = StaticKeys(STATIC)
        assert "letmein" not in repr(keys) + repr(vars(keys))

    @given(st.text())
    def test_nothing_else_is_accepted(self, text: str) -> None:
        assert StaticKeys(STATIC).find(Credential(key=f"{text}x")) is None
        assert StaticKeys(STATIC).find(Credential(key_id=f"{text}-")) is None

    def test_every_key_is_compared_in_constant_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        compared = []
        real = hmac.compare_digest

        def spy(one: bytes, other: bytes) -> bool:
            compared.append(len(one))
            return real(one, other)

        monkeypatch.setattr(hmac, "compare_digest", spy)
        for key in (*STATIC.values(), "neither"):
            compared.clear()
            StaticKeys(STATIC).find(Credential(key=key))
            assert compared == [32, 32]


class TestOrder:
    def test_static_keys_need_no_store_and_no_callback(self) -> None:
        def loader(_key: str) -> str:
            raise AssertionError("the callback must not be asked")

        host = make(key_loader=loader)
        assert host.authorize(Credential(key="aib_adas_letmein")).user == "ada"
        assert host.authorize(Credential(key_id="adas")).user == "ada"

    def test_the_callback_is_asked_before_the_store(self) -> None:
        host = make(key_loader=lambda key: "carol" if key == STORED else None)
        assert host.authorize(Credential(key=STORED)) == Authorization("carol")

    def test_the_store_is_asked_last(self, store: MemoryStore) -> None:
        host = make(store, lambda _key: None)
        assert host.authorize(Credential(key=STORED)) == Authorization("eve", STORED_ID)
        assert host.authorize(Credential(key_id=STORED_ID)).user == "eve"

    def test_an_unknown_key_is_refused(self, store: MemoryStore) -> None:
        assert reason_of(make(store), Credential(key=UNKNOWN)) == "unknown"
        assert reason_of(make(store), Credential(key_id="nobody")) == "unknown"

    def test_a_malformed_key_is_refused_without_the_store(self) -> None:
        assert reason_of(make(), Credential(key="sk-ant-123")) == "malformed"

    def test_the_callback_is_not_asked_for_ids(self, store: MemoryStore) -> None:
        """It knows keys: what it would make of an id is anybody's guess."""
        asked: list[str] = []
        host = make(store, asked.append)
        assert reason_of(host, Credential(key_id="someone")) == "unknown"
        assert asked == []

    def test_locally_means_without_the_store(self) -> None:
        host = make()
        assert host.authorize_locally(Credential(key="aib_adas_letmein")) == Authorization("ada", "adas")
        assert host.authorize_locally(Credential(key=STORED)) is None
        assert host.authorize_locally(Credential(key_id=STORED_ID)) is None

    def test_a_callback_may_be_set_later(self, store: MemoryStore) -> None:
        loaders: list[Any] = [None]
        host = HostAuthorizer({}, lambda: store, lambda: loaders[0])
        assert reason_of(host, Credential(key=UNKNOWN)) == "unknown"
        loaders[0] = lambda _key: "dora"
        assert host.authorize(Credential(key=UNKNOWN)).user == "dora"

    def test_without_a_callback_there_is_none(self, store: MemoryStore) -> None:
        assert HostAuthorizer({}, lambda: store).authorize(Credential(key=STORED)).user == "eve"


class TestCallback:
    def test_it_gets_the_key_as_it_was_sent(self) -> None:
        """In whatever form the host's own keys have."""
        asked: list[str] = []

        def loader(key: str) -> str:
            asked.append(key)
            return "ada"

        assert make(key_loader=loader).authorize(Credential(key="sk-mine")).user == "ada"
        assert asked == ["sk-mine"]

    def test_it_may_answer_with_an_authorization(self) -> None:
        answer = Authorization("ada", "k1", "laptop", Scopes(models=("gpt-*",)))
        assert make(key_loader=lambda _key: answer).authorize(Credential(key="x")) is answer

    def test_it_may_refuse(self) -> None:
        def loader(_key: str) -> str:
            raise Unauthorized("revoked")

        assert reason_of(make(key_loader=loader), Credential(key="x")) == "revoked"

    def test_it_may_be_unavailable(self) -> None:
        def loader(_key: str) -> str:
            raise ServicesUnavailable("The directory is away.", 7)

        with pytest.raises(ServicesUnavailable, match="directory") as caught:
            make(key_loader=loader).authorize(Credential(key="x"))
        assert caught.value.retry_after == 7

    @pytest.mark.parametrize("answer", [True, 1, "", b"ada", ["ada"], object()])
    def test_any_other_answer_is_not_accepted(self, answer: Any, caplog: pytest.LogCaptureFixture) -> None:
        with pytest.raises(ServicesUnavailable):
            make(key_loader=lambda _key: answer).authorize(Credential(key="x"))
        assert f"a value of type {type(answer).__name__}" in caplog.text

    def test_an_exception_accepts_nobody(self, store: MemoryStore, caplog: pytest.LogCaptureFixture) -> None:
        """Not even a key that the store knows: the host's answer may have been no."""

        def loader(_key: str) -> str:
            raise RuntimeError("the directory is on fire")

        with caplog.at_level(logging.ERROR), pytest.raises(ServicesUnavailable):
            make(store, loader).authorize(Credential(key=STORED))
        assert "builtins.RuntimeError" in caplog.text
        assert "in loader" in caplog.text

    @pytest.mark.parametrize("shown", ["{0}", "{0!r}", "secret {1}"])
    @pytest.mark.parametrize("key", [STORED, 'it\'s "mine"\\\n', "eyJhbGciOi.eyJzdWIiOiJh.c2lnbmF0dXJlIQ"])
    def test_its_exception_does_not_give_the_key_away(
        self, shown: str, key: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """``users[key]`` is a ``KeyError`` that shows the key: neither the log nor the answer does."""
        secret = key.replace(".", "_").rpartition("_")[2]

        def loader(key: str) -> str:
            raise KeyError(shown.format(key, secret))

        with pytest.raises(ServicesUnavailable) as caught:
            make(key_loader=loader).authorize(Credential(key=key))
        told = "".join(traceback.format_exception(caught.value)) + caplog.text
        assert caught.value.__context__ is None
        assert secret not in told
        assert repr(secret)[1:-1] not in told
        assert "KeyError" in caplog.text
