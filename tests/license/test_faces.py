"""``license.faces``: the gate before the host's own views, and before what is mounted outside Flask."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest
from flask import Flask

from flask_aibridge.license.faces import WARNING_HEADER, LicenseMiddleware, requires
from flask_aibridge.license.holder import LicenseHolder
from tests.license.signed import DAY, KEYS, NOW, licence

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

GRACE = {"license_expires": NOW - 1, "exp": NOW + DAY}


def holder(*tokens: str) -> LicenseHolder:
    return LicenseHolder(KEYS, tokens, clock=lambda: NOW)


def answer_of(held: LicenseHolder, **options: Any) -> Any:
    app = Flask("host")

    @app.get("/reports/<name>")
    @requires("reports", lambda: held, **options)
    def report(name: str) -> str:
        return f"report {name}"

    return app.test_client().get("/reports/sales")


class TestViews:
    def test_an_entitled_view_is_called(self) -> None:
        """With its arguments, and nothing added to its answer."""
        answer = answer_of(holder(licence(features={"reports": 1})))
        assert (answer.status_code, answer.text) == (200, "report sales")
        assert WARNING_HEADER not in answer.headers

    def test_others_are_refused_with_a_problem(self) -> None:
        """That says why, by a code for programs and a sentence for people."""
        answer = answer_of(holder(licence()))
        assert answer.status_code == 403
        assert answer.content_type == "application/problem+json"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.json["code"] == "license_feature_missing"
        assert answer.json["status"] == 403
        assert answer.json["title"] == "Forbidden"
        assert "reports" in answer.json["detail"]

    def test_the_status_may_be_another(self) -> None:
        """402 is taken by some for this."""
        answer = answer_of(holder(), status=lambda: 402)
        assert (answer.status_code, answer.json["status"]) == (402, 402)
        assert answer.json["title"] == "Payment Required"

    def test_in_grace_a_header_warns(self) -> None:
        """And the view works as ever."""
        answer = answer_of(holder(licence(features={"reports": 1}, **GRACE)))
        assert answer.text == "report sales"
        assert "grace period" in answer.headers[WARNING_HEADER]

    @pytest.mark.skipif(not importlib.util.find_spec("asgiref"), reason="needs Flask's extra [async]")
    def test_async_views_too(self) -> None:
        """They are run as Flask runs them."""
        app = Flask("host")

        @app.get("/")
        @requires("reports", lambda: holder(licence(features={"reports": 1})))
        async def report() -> str:
            return "later"

        assert app.test_client().get("/").text == "later"

    def test_one_view_may_serve_several_apps(self) -> None:
        """Each with its own licences."""
        current = [holder(licence(features={"reports": 1})), holder()]

        @requires("reports", lambda: current[0])
        def view() -> str:
            return "report"

        app = Flask("host")
        app.add_url_rule("/", view_func=view)
        assert app.test_client().get("/").status_code == 200
        current.reverse()
        assert app.test_client().get("/").status_code == 403

    @pytest.mark.parametrize("feature", ["", " ", None, lambda: None])
    def test_a_feature_has_a_name(self, feature: Any) -> None:
        """``@requires`` without parentheses is found out at once."""
        with pytest.raises(ValueError, match="feature"):
            requires(feature, holder)
        with pytest.raises(ValueError, match="feature"):
            LicenseMiddleware(hello, holder(), feature)


def hello(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


def call(app: LicenseMiddleware, method: str = "GET") -> tuple[str, dict[str, str], bytes]:
    """By the letter of PEP 3333: both sides are watched."""
    environ: dict[str, Any] = {"REQUEST_METHOD": method}
    setup_testing_defaults(environ)
    environ["QUERY_STRING"] = ""
    heads: list[tuple[str, dict[str, str]]] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        heads.append((status, dict(headers)))
        return lambda data: None

    body: Any = validator(app)(environ, start_response)
    try:
        content = b"".join(body)
    finally:
        body.close()
    return *heads[-1], content


class TestMiddleware:
    def test_an_entitled_app_is_called(self) -> None:
        """As if nothing were before it."""
        app = LicenseMiddleware(validator(hello), holder(licence(features={"reports": 1})), "reports")
        assert call(app) == ("200 OK", {"Content-Type": "text/plain"}, b"hello")

    def test_others_are_refused_with_a_problem(self) -> None:
        """The same as a view's."""
        status, headers, body = call(LicenseMiddleware(hello, holder(), "reports"))
        assert status == "403 Forbidden"
        assert headers["Content-Type"] == "application/problem+json"
        assert headers["Content-Length"] == str(len(body))
        assert b'"code": "license_required"' in body

    def test_head_has_no_body(self) -> None:
        """But the length of what it would be."""
        status, headers, body = call(LicenseMiddleware(hello, holder(), "reports", status=402), "HEAD")
        assert status == "402 Payment Required"
        assert int(headers["Content-Length"]) > 0
        assert body == b""

    def test_in_grace_a_header_warns(self) -> None:
        """Beside the app's own."""
        app = LicenseMiddleware(hello, holder(licence(features={"reports": 1}, **GRACE)), "reports")
        status, headers, body = call(app)
        assert (status, body) == ("200 OK", b"hello")
        assert headers["Content-Type"] == "text/plain"
        assert "grace period" in headers[WARNING_HEADER]

    def test_in_grace_an_app_may_still_report_an_error(self) -> None:
        """By a second head with the exception, which is passed on."""

        def failing(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            start_response("200 OK", [("Content-Type", "text/plain")])
            try:
                raise ValueError("late")
            except ValueError:
                info = sys.exc_info()
                start_response("500 Internal Server Error", [("Content-Type", "text/plain")], info)
            return [b"sorry"]

        app = LicenseMiddleware(failing, holder(licence(features={"reports": 1}, **GRACE)), "reports")
        status, headers, body = call(app)
        assert (status, body) == ("500 Internal Server Error", b"sorry")
        assert WARNING_HEADER in headers

    def test_its_repr_names_both(self) -> None:
        """The feature and the app."""
        assert "reports" in repr(LicenseMiddleware(hello, holder(), "reports"))


def test_the_middleware_declares_its_feature() -> None:
    """When it is made: no request has to."""
    found = holder()
    LicenseMiddleware(hello, found, "archive")
    assert "archive" in found.in_force.schedules
