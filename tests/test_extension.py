"""``extension``: one ``AIBridge``, several apps, and what each member says when it cannot know which is meant."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
import urllib3
from flask import Flask, current_app, g, has_app_context, has_request_context, session
from hypothesis import given, settings
from hypothesis import strategies as st

import flask_aibridge
from flask_aibridge import AIBridge, Source
from flask_aibridge.bridge import Bridge
from flask_aibridge.errors import ConfigError, ConfigWarning
from flask_aibridge.extension import AppState
from flask_aibridge.license.issuing import SigningKey, issue_license
from flask_aibridge.transport import TransportFactory

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

ROOT = str(Path(flask_aibridge.__path__[0]).parent)


class Named:
    """A bridge that answers its name and where it was called."""

    def __init__(self, name: str = "named") -> None:
        self.name = name

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        seen = {key: environ.get(key) for key in ("SCRIPT_NAME", "PATH_INFO", "flask_aibridge.source")}
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps({"bridge": self.name, "app": current_app.name, **seen}).encode()]


named = Named()


ALIVE: list[Flask] = []
"""The apps of the test that runs: the extension itself keeps none alive."""


@pytest.fixture(autouse=True)
def _forget_the_apps() -> Iterator[None]:
    yield
    ALIVE.clear()


def make_app(name: str = "host", **config: Any) -> Flask:
    app = Flask(name)
    app.config.update(config)
    ALIVE.append(app)
    return app


def ask(bridge: AIBridge, path: str = "/v1/messages") -> dict[str, Any]:
    response = bridge.transport_for("anthropic", Source.AGENTS).request(
        "GET", f"https://api.anthropic.com{path}"
    )
    return cast("dict[str, Any]", response.json())


def state_of(app: Flask) -> AppState:
    state = app.extensions["aibridge"]
    assert isinstance(state, AppState)
    return state


class TestInitialising:
    def test_the_built_in_bridge_is_the_default(self) -> None:
        """It is mounted from the start, with its transport."""
        bridge = AIBridge(make_app(AIBRIDGE_PROVIDERS={}))
        assert isinstance(bridge.wsgi_app, Bridge)
        assert isinstance(bridge.transport_factory, TransportFactory)

    def test_a_given_bridge_is_mounted(self) -> None:
        """In the constructor with an app, or in ``init_app``."""
        assert AIBridge(make_app(), named).wsgi_app is named
        bridge = AIBridge()
        bridge.init_app(make_app(), wsgi_app=named)
        assert bridge.wsgi_app is named

    def test_the_constructors_bridge_is_the_default_of_init_app(self) -> None:
        """The factory pattern loses nothing; what init_app is given comes first."""
        bridge, other = AIBridge(wsgi_app=named), Named("other")
        app1, app2 = make_app(), make_app()
        bridge.init_app(app1)
        bridge.init_app(app2, other)
        assert (state_of(app1).mounted.wsgi_app, state_of(app2).mounted.wsgi_app) == (named, other)

    def test_init_is_default_config_overrides(self) -> None:
        """Precedence: the argument, then the config."""
        app = make_app(AIBRIDGE_BRIDGE=Named("from config"))
        AIBridge(app, named)
        assert repr(state_of(app).mounted.wsgi_app) != repr(named)
        with app.app_context():
            assert app.config["AIBRIDGE_BRIDGE"].name == "from config"
            assert state_of(app).mounted.wsgi_app is app.config["AIBRIDGE_BRIDGE"]

    def test_an_import_string_is_mounted(self) -> None:
        """What it names is imported in ``init_app``."""
        found = AIBridge(make_app(AIBRIDGE_BRIDGE="json:dumps")).wsgi_app
        assert found is cast("Any", json.dumps)

    @pytest.mark.parametrize("name", ["no_such_module:app", "json:no_such_name"])
    def test_an_import_string_of_nothing(self, name: str) -> None:
        """The error names the key and the value."""
        with pytest.raises(
            ConfigError, match=f"^AIBRIDGE_BRIDGE is '{name}', which cannot be imported"
        ) as caught:
            AIBridge(make_app(AIBRIDGE_BRIDGE=name))
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("name", ["json:JSONDecoder", "json:__name__"])
    def test_an_import_string_of_something_else(self, name: str) -> None:
        """A class is called with (environ, start_response) by mistake only."""
        with pytest.raises(ConfigError, match="which is not a WSGI app"):
            AIBridge(make_app(AIBRIDGE_BRIDGE=name))

    def test_none_mounts_nothing(self) -> None:
        """No bridge, no transport, and a sentence that says what to do."""
        bridge = AIBridge(make_app(AIBRIDGE_BRIDGE=None))
        assert bridge.wsgi_app is None
        assert bridge.transport_factory is None
        with pytest.raises(RuntimeError, match=r"No bridge is mounted.*AIBridge\.register"):
            bridge.transport_for("anthropic", Source.AGENTS)

    def test_twice_on_one_app(self) -> None:
        """By the same instance or by another: it was configured already."""
        app = make_app()
        bridge = AIBridge(app, named)
        for again in (bridge, AIBridge()):
            with pytest.raises(RuntimeError, match="already been registered"):
                again.init_app(app)

    @pytest.mark.parametrize("wrong", [1, "bridge", object()])
    def test_what_is_no_wsgi_app(self, wrong: Any) -> None:
        """Wherever it is given."""
        with pytest.raises(TypeError, match="a callable"):
            AIBridge(wsgi_app=wrong)
        with pytest.raises(TypeError, match="a callable"):
            AIBridge().init_app(make_app(), wrong)

    def test_a_bridge_in_the_place_of_the_app(self) -> None:
        """The order of the arguments is easily mistaken."""
        with pytest.raises(TypeError, match="the Flask app first"):
            AIBridge(cast("Any", named))

    def test_a_wrong_config_leaves_the_app_as_it_was(self) -> None:
        """It can be mended and tried again."""
        app = make_app(AIBRIDGE_URL_PREFIX="ai")
        with pytest.raises(ConfigError):
            AIBridge(app, named)
        assert "aibridge" not in app.extensions
        app.config["AIBRIDGE_URL_PREFIX"] = "/ai"
        assert AIBridge(app, named).wsgi_app is named

    def test_a_misspelt_key_warns(self) -> None:
        """At the line that initialises the extension."""
        with pytest.warns(ConfigWarning, match="AIBRIDGE_LICENSE") as late:
            AIBridge().init_app(make_app(AIBRIDGE_LICENCE="x"))
        with pytest.warns(ConfigWarning, match="AIBRIDGE_LICENSE") as at_once:
            AIBridge(make_app(AIBRIDGE_LICENCE="x"))
        assert [late[0].filename, at_once[0].filename] == [__file__, __file__]

    def test_the_config_is_read_once(self) -> None:
        """Later changes have no effect."""
        app = make_app()
        bridge = AIBridge(app, named)
        app.config["AIBRIDGE_URL_PREFIX"] = "/elsewhere"
        assert ask(bridge)["SCRIPT_NAME"] == "/api/v2/aibridge"

    def test_nothing_starts(self) -> None:
        """Importing and initialising start no thread; importing reads no environment variable of ours."""
        code = (
            "import os, threading; env = type(os.environ)\n"
            "asked = []; get = env.__getitem__\n"
            "env.__getitem__ = lambda self, key: (asked.append(key), get(self, key))[1]\n"
            "import flask_aibridge\n"
            "ours = [key for key in asked if 'AIBRIDGE' in key or key.endswith(('_API_KEY', '_BASE_URL'))]\n"
            "import flask; flask_aibridge.AIBridge(flask.Flask('x'))\n"
            "print(ours, threading.active_count())"
        )
        assert run_python(code) == "[] 1\n"


def run_python(code: str) -> str:
    code = f"import sys; sys.path.insert(0, {ROOT!r})\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


class TestLicence:
    def test_from_a_file_beside_the_app(self, tmp_path: Path) -> None:
        """A relative path starts at the app's root."""
        key = SigningKey.generate("k")
        (tmp_path / "license.jwt").write_text(issue_license(key))
        app = Flask("host", root_path=str(tmp_path))
        app.config.update(
            AIBRIDGE_LICENSE_FILE="license.jwt", AIBRIDGE_LICENSE_PUBLIC_KEYS={"k": key.public_pem}
        )
        AIBridge(app, named)
        assert state_of(app).gate.check().open

    def test_the_text_wins_over_the_file(self) -> None:
        """The file is not even read."""
        key = SigningKey.generate("k")
        app = make_app(
            AIBRIDGE_LICENSE=issue_license(key),
            AIBRIDGE_LICENSE_FILE="/no/such/file",
            AIBRIDGE_LICENSE_PUBLIC_KEYS={"k": key.public_base64},
        )
        AIBridge(app, named)
        assert state_of(app).gate.check().open

    def test_a_missing_file_stops_the_app(self) -> None:
        """Somebody meant it to be there."""
        with pytest.raises(ConfigError, match="AIBRIDGE_LICENSE_FILE names '/no/such/file'"):
            AIBridge(make_app(AIBRIDGE_LICENSE_FILE="/no/such/file"))

    def test_a_bad_licence_does_not_stop_the_app(self, caplog: pytest.LogCaptureFixture) -> None:
        """It closes the public door; the agents go on."""
        bridge = AIBridge(make_app(AIBRIDGE_LICENSE="nonsense"), named)
        assert ask(bridge)["bridge"] == "named"
        assert "license_malformed" in caplog.text


class TestWhichApp:
    def test_the_only_app_outside_any_context(self) -> None:
        """A script needs no ceremony."""
        assert ask(AIBridge(make_app("alone"), named))["app"] == "alone"

    def test_the_current_app(self) -> None:
        """One instance, two apps, each with its own bridge."""
        bridge = AIBridge()
        for name in ("one", "two"):
            app = make_app(name)
            bridge.init_app(app, Named(name))
            with app.app_context():
                answer = ask(bridge)
            assert (answer["bridge"], answer["app"]) == (name, name)

    def test_two_apps_and_no_context(self) -> None:
        """It does not guess."""
        bridge = AIBridge()
        apps = [make_app("one"), make_app("two")]
        for app in apps:
            bridge.init_app(app, named)
        with pytest.raises(RuntimeError, match="serves 2 Flask apps.*app.app_context"):
            _ = bridge.wsgi_app

    def test_no_app_at_all(self) -> None:
        """The likely mistakes are listed."""
        with pytest.raises(RuntimeError, match="forget to call 'init_app'.*multiple 'AIBridge' instances"):
            AIBridge().transport_for("anthropic", Source.AGENTS)

    def test_a_current_app_that_is_not_registered(self) -> None:
        """Even where another one is."""
        bridge = AIBridge(make_app(), named)
        with (
            make_app("stranger").app_context(),
            pytest.raises(RuntimeError, match="current Flask app is not"),
        ):
            _ = bridge.transport_factory

    def test_a_current_app_of_another_instance(self) -> None:
        """Two instances do not share an app."""
        bridge, app = AIBridge(make_app(), named), make_app()
        AIBridge(app, named)
        with app.app_context(), pytest.raises(RuntimeError, match="multiple 'AIBridge' instances"):
            bridge.register(named)

    def test_an_app_that_is_gone_is_forgotten(self) -> None:
        """The extension keeps no app alive: many are made in a test run."""
        bridge, app = AIBridge(), make_app("one")
        bridge.init_app(app, named)
        gone = weakref.ref(app)
        del app
        ALIVE.clear()
        gc.collect()
        assert gone() is None
        kept = make_app("two")
        bridge.init_app(kept, named)
        assert ask(bridge)["app"] == "two"


class TestMembers:
    def test_register_replaces_both(self) -> None:
        """The route's bridge, and the agents'."""
        bridge = AIBridge(make_app(), named)
        before = bridge.transport_factory
        other = Named("other")
        bridge.register(other)
        assert bridge.wsgi_app is other
        assert bridge.transport_factory is not before
        assert ask(bridge)["bridge"] == "other"

    def test_register_after_nothing(self) -> None:
        """A host may bring its bridge late."""
        bridge = AIBridge(make_app(AIBRIDGE_BRIDGE=None))
        bridge.register(named)
        assert ask(bridge)["bridge"] == "named"

    @pytest.mark.parametrize("wrong", [None, 1, "bridge"])
    def test_register_something_else(self, wrong: Any) -> None:
        """``None`` included: what is mounted stays."""
        bridge = AIBridge(make_app(), named)
        with pytest.raises(TypeError, match="a callable"):
            bridge.register(wrong)
        assert bridge.wsgi_app is named

    def test_a_caller_sees_the_old_pair_or_the_new(self) -> None:
        """Never the bridge of one and the transport of the other, however the threads meet."""
        app = make_app()
        bridge = AIBridge(app, Named("0"))
        done = threading.Event()
        torn: list[Any] = []

        def look() -> None:
            while not done.is_set():
                mounted = state_of(app).mounted
                inside = cast("Any", mounted.transport_factory).wsgi_app
                if repr(mounted.wsgi_app) not in repr(inside):
                    torn.append(mounted)

        watcher = threading.Thread(target=look)
        watcher.start()
        for number in range(2000):
            bridge.register(Named(str(number)))
        done.set()
        watcher.join(20)
        assert torn == []

    def test_the_transport_factory_can_be_replaced(self) -> None:
        """By the host's own, or by none; the public route keeps its bridge."""
        bridge = AIBridge(make_app(), named)
        mine = TransportFactory(Named("mine"), script_name="/mine")
        bridge.transport_factory = mine
        assert bridge.transport_factory is mine
        assert bridge.wsgi_app is named
        bridge.transport_factory = None
        assert bridge.transport_factory is None
        assert bridge.wsgi_app is named

    def test_a_transport_factory_has_transport_for(self) -> None:
        """Anything else would fail at the first call, far from here."""
        bridge = AIBridge(make_app(), named)
        with pytest.raises(TypeError, match="transport_for"):
            bridge.transport_factory = cast("Any", named)

    def test_transport_for_is_a_pool_manager(self) -> None:
        """To everything that uses one; source and key id arrive with every request."""
        seen: list[Any] = []

        def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            seen.append((environ["flask_aibridge.source"], environ["flask_aibridge.key_id"]))
            start_response("204 No Content", [])
            return []

        bridge = AIBridge(make_app(), app)
        manager = bridge.transport_for("openai", Source("batch-jobs"), key_id="k7")
        assert isinstance(manager, urllib3.PoolManager)
        assert manager.request("POST", "https://api.openai.com/v1/responses").status == 204
        assert seen == [("batch-jobs", "k7")]

    def test_the_prefix_is_the_script_name(self) -> None:
        """A bridge sees the same mount by both doors."""
        answer = ask(AIBridge(make_app(AIBRIDGE_URL_PREFIX="/ai"), named), "/v1/messages?x=1")
        assert (answer["SCRIPT_NAME"], answer["PATH_INFO"]) == ("/ai", "/anthropic/v1/messages")

    @pytest.mark.parametrize("provider", ["", "a/b", ".", "..", "a?b"])
    def test_a_provider_is_one_path_segment(self, provider: str) -> None:
        """As the factory says."""
        with pytest.raises(ValueError, match="provider"):
            AIBridge(make_app(), named).transport_for(provider, Source.AGENTS)

    def test_the_state_shows_itself(self) -> None:
        """Without a secret."""
        app = make_app()
        AIBridge(app, named)
        assert repr(state_of(app)).startswith("<AppState at /api/v2/aibridge: ")


class Body:
    """A streamed body that notes where each of its steps ran, and can fail at any of them."""

    def __init__(self, chunks: list[bytes], fail_at: str = "") -> None:
        self.chunks, self.fail_at, self.steps = chunks, fail_at, cast("list[str]", [])

    def note(self, step: str) -> None:
        self.steps.append(f"{step} in {current_app.name if has_app_context() else None}")
        if step == self.fail_at:
            raise RuntimeError(step)

    def __iter__(self) -> Iterator[bytes]:
        self.note("iter")
        for number, chunk in enumerate(self.chunks):
            self.note(f"chunk {number}")
            yield chunk

    def close(self) -> None:
        self.note("close")


class TestInsideTheBridge:
    """In process, the whole life of a call is in the context of the owning app, and in nothing of the caller's."""

    def run(self, body: Iterable[bytes], fail_in_call: bool = False) -> tuple[Any, list[str]]:
        app, contexts = make_app("owner"), cast("list[str]", [])
        app.teardown_appcontext(lambda error: contexts.append(f"left with {error}"))

        def wsgi_app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            contexts.append(f"called in {current_app.name}")
            if fail_in_call:
                raise RuntimeError("call")
            start_response("200 OK", [])
            return body

        bridge = AIBridge(app, wsgi_app)
        try:
            manager = bridge.transport_for("x", Source.AGENTS)
            return manager.request("GET", "http://x/", retries=False, preload_content=False).read(), contexts
        except urllib3.exceptions.HTTPError as error:
            return error, contexts

    def test_a_whole_body_leaves_at_once(self) -> None:
        """And is handed on as it is."""
        assert self.run([b"a", b"b"]) == (b"ab", ["called in owner", "left with None"])

    def test_a_streamed_body_leaves_at_its_end(self) -> None:
        """Call, iteration and close, then the context."""
        body = Body([b"a", b"b"])
        assert self.run(body) == (b"ab", ["called in owner", "left with None"])
        assert body.steps == ["iter in owner", "chunk 0 in owner", "chunk 1 in owner", "close in owner"]

    def test_a_generator(self) -> None:
        """The commonest body: its ``finally`` still runs inside."""
        ended: list[str] = []

        def chunks() -> Iterator[bytes]:
            try:
                yield current_app.name.encode()
            finally:
                ended.append(current_app.name)

        assert self.run(chunks()) == (b"owner", ["called in owner", "left with None"])
        assert ended == ["owner"]

    def test_an_exception_in_the_call(self) -> None:
        """Teardown functions see it."""
        answer, contexts = self.run([], fail_in_call=True)
        assert b"error" in answer.lower()
        assert contexts == ["called in owner", "left with call"]

    @pytest.mark.parametrize("fail_at", ["iter", "chunk 0", "chunk 1"])
    def test_an_exception_while_iterating(self, fail_at: str) -> None:
        """Closed once, inside, and then left."""
        body = Body([b"a", b"b"], fail_at)
        _, contexts = self.run(body)
        assert [step for step in body.steps if step.startswith("close")] == ["close in owner"]
        assert contexts == ["called in owner", f"left with {fail_at}"]

    def test_an_exception_in_close(self) -> None:
        """The context is left all the same."""
        answer, contexts = self.run(Body([b"a"], "close"))
        assert answer == b"a"
        assert contexts == ["called in owner", "left with close"]

    def test_a_body_that_is_closed_again(self) -> None:
        """The context is left once."""
        app, body = make_app("owner"), Body([b"a"])
        factory = AIBridge(app, lambda environ, start_response: body).transport_factory
        assert factory is not None
        answer = cast("Any", factory.wsgi_app({}, lambda *_: lambda _data: None))
        assert list(answer) == [b"a"]
        assert has_app_context()
        answer.close()
        answer.close()
        assert not has_app_context()
        assert body.steps[-1] == "close in owner"

    def test_a_caller_who_leaves(self, deadline: float) -> None:
        """Closed once, inside, and then left."""
        app, left = make_app("owner"), threading.Event()
        body = Body([b"x" * 1000] * 100_000)
        app.teardown_appcontext(lambda _error: left.set())

        def wsgi_app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            start_response("200 OK", [])
            return body

        manager = AIBridge(app, wsgi_app).transport_for("x", Source.AGENTS)
        response = manager.request("GET", "http://x/", preload_content=False)
        assert response.read1()
        response.close()
        assert left.wait(deadline)
        assert body.steps[-1] == "close in owner"
        assert len([step for step in body.steps if step.startswith("close")]) == 1

    def test_the_callers_request_session_and_g_are_out_of_reach(self) -> None:
        """The bridge has a ``g`` of its own, and no request."""
        seen: list[Any] = []

        def wsgi_app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            seen.append((current_app.name, has_request_context(), bool(session), g.get("user"), "user" in g))
            g.user = "bridge"
            start_response("204 No Content", [])
            return []

        owner, caller = make_app("owner"), make_app("caller", SECRET_KEY="x")
        bridge = AIBridge(owner, wsgi_app)
        factory = bridge.transport_factory
        assert factory is not None
        with caller.test_request_context("/"):
            g.user = "caller"
            session["user"] = "caller"
            factory.transport_for("x", Source.AGENTS).request("GET", "http://x/")
            assert g.user == "caller"
            assert current_app.name == "caller"
        assert seen == [("owner", False, False, None, False)]

    def test_the_callers_own_context_is_left_alone(self) -> None:
        """A call from within a request of the owning app shares nothing with it either."""
        app = make_app("owner")
        names: list[Any] = []

        def wsgi_app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            names.append(g.get("name"))
            start_response("204 No Content", [])
            return []

        bridge = AIBridge(app, wsgi_app)
        with app.test_request_context("/"):
            g.name = "request"
            bridge.transport_for("x", Source.AGENTS).request("GET", "http://x/")
            assert g.name == "request"
        assert names == [None]

    @settings(max_examples=25, deadline=None)
    @given(st.lists(st.binary(max_size=20), max_size=8), st.sampled_from([list, tuple, iter]))
    def test_any_body_arrives_whole(self, chunks: list[bytes], form: Any) -> None:
        """Empty chunks and all, in any form."""
        assert self.run(form(chunks))[0] == b"".join(chunks)


class TestThePackage:
    def test_its_names(self) -> None:
        """What ``from flask_aibridge import …`` promises."""
        assert flask_aibridge.__all__ == ["AIBridge", "Source", "__version__"]
        assert Source.AGENTS == "agents"

    def test_its_version_is_that_of_the_distribution(self) -> None:
        """Asked for when it is needed."""
        try:
            expected = metadata.version("Flask-AIBridge")
        except metadata.PackageNotFoundError:
            pytest.skip("the package is not installed")
        assert flask_aibridge.__version__ == expected

    def test_it_has_no_other_names(self) -> None:
        """A misspelt one is the usual error."""
        with pytest.raises(AttributeError, match="no attribute 'AIBrige'"):
            _ = cast("Any", flask_aibridge).AIBrige
