"""``api.access``: who is asking, and whether they administer the gateway."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, request, session

from flask_aibridge.api.access import ADMINISTRATOR, Access, Viewer
from flask_aibridge.api.problems import Problem
from flask_aibridge.errors import ServicesUnavailable, Unauthorized
from flask_aibridge.services.interfaces import Authorization, Authorizer, Credential

TOKEN = "a-token-that-an-administrator-was-given"
ADA = Viewer("ada", administrator=False)
ADMIN = Viewer(ADMINISTRATOR, administrator=True)
BOSS = Viewer("boss", administrator=True)
UNSAFE = ["POST", "PUT", "PATCH", "DELETE"]


class Keys:
    """Knows one key, of ada's."""

    def __init__(self) -> None:
        self.asked: list[str | None] = []

    def authorize(self, credential: Credential) -> Authorization:
        self.asked.append(credential.key)
        if credential.key == "away":
            raise ServicesUnavailable("The store is away.")
        if credential.key != "ada's":
            raise Unauthorized("unknown")
        return Authorization("ada", "k1")


def make(authorizer: Authorizer | None = None, **options: Any) -> Access:
    keys = authorizer or Keys()
    return Access(authorizer=lambda: keys, **options)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def ask(question: Callable[[], Viewer], method: str = "GET", **options: Any) -> Viewer:
    with Flask("host").test_request_context("/", method=method, **options):
        return question()


def refusal(question: Callable[[], Viewer], method: str = "GET", **options: Any) -> Problem:
    with pytest.raises(Problem) as refused:
        ask(question, method, **options)
    return refused.value


@pytest.mark.parametrize(
    ("headers", "boss_is_here", "ada_is_here", "viewer"),
    [
        (bearer(TOKEN), False, False, ADMIN),
        ({"X-Api-Key": TOKEN}, False, False, ADMIN),
        (bearer(TOKEN), True, True, ADMIN),
        ({}, True, False, BOSS),
        ({}, True, True, BOSS),
        (bearer("ada's"), True, False, BOSS),
        (bearer("ada's"), False, False, ADA),
        ({"X-Api-Key": "ada's"}, False, False, ADA),
        ({}, False, True, ADA),
        (bearer("the host's own token"), False, True, ADA),
        (bearer("the host's own token"), True, False, BOSS),
        ({**bearer("the provider's"), "X-Api-Key": "ada's"}, False, False, ADA),
        ({**bearer("the provider's"), "X-Api-Key": TOKEN}, False, False, ADMIN),
        (bearer("nobody's"), False, False, None),
        ({}, False, False, None),
    ],
)
def test_who_is_asking(
    headers: dict[str, str], boss_is_here: bool, ada_is_here: bool, viewer: Viewer | None
) -> None:
    """The administrator's token, then the host's administrators, then a key, then the host's users."""
    access = make(
        admin_token=TOKEN,
        admin_loader=lambda: "boss" if boss_is_here else None,
        user_loader=lambda: "ada" if ada_is_here else None,
    )
    if viewer is None:
        assert refusal(access.viewer, headers=headers).status == 401
        assert refusal(access.require_administrator, headers=headers).status == 401
    elif viewer.administrator:
        assert ask(access.viewer, headers=headers) == viewer
        assert ask(access.require_administrator, headers=headers) == viewer
    else:
        assert ask(access.viewer, headers=headers) == viewer
        refused = refusal(access.require_administrator, headers=headers)
        assert (refused.status, refused.code) == (403, "administrator_required")


@pytest.mark.parametrize("headers", [{}, bearer("nobody's")])
def test_a_401_says_how_to_authenticate(headers: dict[str, str]) -> None:
    refused = refusal(make(admin_token=TOKEN).viewer, headers=headers)
    assert (refused.status, refused.code) == (401, "unauthorized")
    assert refused.headers["WWW-Authenticate"].startswith("Bearer")


def test_where_nothing_is_set_up_the_answer_says_how() -> None:
    refused = refusal(make().viewer)
    assert (refused.status, refused.code) == (403, "access_not_configured")
    assert "AIBRIDGE_ADMIN_TOKEN" in refused.detail
    assert "@bridge.admin_loader" in refused.detail


def test_bad_credentials_are_401_where_nothing_is_set_up_too() -> None:
    assert refusal(make().viewer, headers=bearer("nobody's")).status == 401


def test_a_user_is_told_how_to_become_an_administrator_where_nobody_is() -> None:
    headers = bearer("ada's")
    assert "AIBRIDGE_ADMIN_TOKEN" in refusal(make().require_administrator, headers=headers).detail
    configured = make(admin_token=TOKEN)
    assert "AIBRIDGE_ADMIN_TOKEN" not in refusal(configured.require_administrator, headers=headers).detail


def test_without_a_token_no_empty_token_is_accepted() -> None:
    for token in (None, ""):
        access = make(admin_token=token)
        for headers in ({}, bearer(""), {"X-Api-Key": ""}, {"Authorization": "Bearer"}):
            assert refusal(access.viewer, headers=headers).status == 403


def test_loaders_may_be_set_later() -> None:
    access = make()
    access.user_loader = lambda: "ada"
    assert ask(access.viewer) == ADA
    access.admin_loader = lambda: "boss"
    assert ask(access.viewer) == BOSS


def test_loaders_see_the_request() -> None:
    access = make(user_loader=lambda: request.headers.get("X-Remote-User"))
    assert ask(access.viewer, headers={"X-Remote-User": "ada"}) == ADA


def test_a_loader_may_read_the_hosts_session() -> None:
    app = Flask("host")
    app.secret_key = "secret"
    access = make(user_loader=lambda: session.get("user"))
    app.add_url_rule("/", view_func=lambda: access.viewer().name)
    client = app.test_client()
    with client.session_transaction() as stored:
        stored["user"] = "ada"
    assert client.get("/").text == "ada"


@pytest.mark.parametrize("name", ["", 7, True, b"ada"])
@pytest.mark.parametrize("loader", ["admin_loader", "user_loader"])
def test_a_loader_that_answers_with_something_else_is_a_defect(loader: str, name: Any) -> None:
    loaders: dict[str, Any] = {loader: lambda: name}
    with pytest.raises(TypeError, match=loader):
        ask(make(**loaders).viewer)


def test_a_store_that_is_away_is_said() -> None:
    with pytest.raises(ServicesUnavailable):
        ask(make(user_loader=lambda: "ada").viewer, headers=bearer("away"))


def test_keys_are_not_asked_for_what_the_administrators_token_settles() -> None:
    keys = Keys()
    ask(make(keys, admin_token=TOKEN).viewer, headers=bearer(TOKEN))
    assert keys.asked == []


class TestChangesBySession:
    """Pages of other sites can make a browser send forms with its cookies, but no JSON."""

    @pytest.mark.parametrize("loader", ["admin_loader", "user_loader"])
    @pytest.mark.parametrize("method", UNSAFE)
    @pytest.mark.parametrize(
        "content_type", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]
    )
    def test_without_json_they_are_refused(self, loader: str, method: str, content_type: str | None) -> None:
        loaders: dict[str, Any] = {loader: lambda: "someone"}
        access = make(**loaders)
        refused = refusal(access.viewer, method, content_type=content_type)
        assert (refused.status, refused.code) == (415, "json_required")

    @pytest.mark.parametrize("method", UNSAFE)
    @pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8"])
    def test_with_json_they_pass(self, method: str, content_type: str) -> None:
        assert ask(make(admin_loader=lambda: "boss").viewer, method, content_type=content_type) == BOSS

    @pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
    def test_reading_needs_none(self, method: str) -> None:
        assert ask(make(admin_loader=lambda: "boss").viewer, method) == BOSS

    @pytest.mark.parametrize("method", UNSAFE)
    def test_tokens_and_keys_need_none(self, method: str) -> None:
        """No page of another site has them to send."""
        access = make(admin_token=TOKEN, user_loader=lambda: "ada")
        assert ask(access.viewer, method, headers=bearer(TOKEN)) == ADMIN
        assert ask(access.viewer, method, headers=bearer("ada's")) == ADA


def test_the_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """By digests, so that its length is no secret lost."""
    compared: list[tuple[int, int]] = []
    real = hmac.compare_digest

    def spy(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return real(one, other)

    monkeypatch.setattr(hmac, "compare_digest", spy)
    refusal(make(admin_token=TOKEN).viewer, headers=bearer("x"))
    assert compared == [(32, 32)]


def test_nothing_shows_the_token() -> None:
    access = make(admin_token=TOKEN)
    assert TOKEN not in repr(access) + repr(vars(access))
    assert "token set" in repr(access)
    assert "token not set" in repr(make())


@pytest.mark.parametrize("presented", ["nobody's-very-own", TOKEN + "x"])
def test_a_refusal_does_not_repeat_what_was_presented(presented: str) -> None:
    problem = refusal(make(admin_token=TOKEN).viewer, headers=bearer(presented))
    assert presented not in problem.response().get_data(as_text=True)


def test_who_may_see_what() -> None:
    assert ADMIN.may_see("ada")
    assert ADMIN.may_see(None)
    assert ADA.may_see("ada")
    assert not ADA.may_see("bob")
    assert not ADA.may_see(None)
