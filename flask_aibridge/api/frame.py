"""The management routes: what was recorded, API keys, providers, MCP servers; below the public door's prefix.

They are not behind the licence: the records and the keys stay within reach when it has ended.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from flask import Blueprint, Response, request
from flask.blueprints import BlueprintSetupState
from marshmallow import ValidationError
from werkzeug.exceptions import HTTPException, default_exceptions
from werkzeug.routing import Rule

from flask_aibridge.api.problems import Problem
from flask_aibridge.config import REDIS_URL, SECRET_KEY
from flask_aibridge.errors import ConfigError, ServicesUnavailable

if TYPE_CHECKING:
    from flask.sansio.app import App

    from flask_aibridge.api.management import Management

__all__ = ["BLUEPRINT", "PARTS", "make_management_blueprint"]

BLUEPRINT: Final = "aibridge_management"
PARTS: Final = ("interceptions", "sessions", "usage", "keys", "providers", "mcp", "openapi", "health")
"""The modules of this package that have routes."""

HOST: Final = "aibridge_host"
"""The argument that stands for any host, where the app's routes match hosts."""

MISSING: Final = {SECRET_KEY: "secret_key_missing", REDIS_URL: "store_missing"}
"""The setting that a ``ConfigError`` of a request names → the problem's code. Any other is a defect, not a state."""


class Part(Protocol):
    """A module with routes."""

    def add_routes(self, blueprint: Blueprint, management: Management) -> None: ...


class ManagementBlueprint(Blueprint):
    """A blueprint whose paths are wholly its own: no method of theirs, and no slash behind them, falls through to the
    public door, which takes whatever no other rule takes."""

    def make_setup_state(
        self, app: App, options: dict[str, Any], first_registration: bool = False
    ) -> BlueprintSetupState:
        """How the routes are added to an app."""
        return _SetupState(self, app, options, first_registration)


class _SetupState(BlueprintSetupState):
    def add_url_rule(self, rule: str, *arguments: Any, **options: Any) -> None:
        # Flask would answer OPTIONS with the methods of the public door; the refusals' rules do it instead.
        options["provide_automatic_options"] = False
        options.setdefault("strict_slashes", False)
        if self.app.url_map.host_matching:
            options.setdefault("host", f"<{HOST}>")
        super().add_url_rule(rule, *arguments, **options)


def make_management_blueprint(
    management: Management, url_prefix: str, *, parts: Sequence[str] = PARTS, name: str = BLUEPRINT
) -> Blueprint:
    """The blueprint of one app's management routes.

    Every refusal is a problem document (RFC 9457) with a stable ``code``; no answer may be cached.

    :param parts: the modules whose routes there are.
    :param name: the blueprint's own, where an app has routes in two places.
    """
    blueprint = ManagementBlueprint(name, __name__, url_prefix=url_prefix)
    for part in parts:
        cast(Part, import_module(f"{__package__}.{part}")).add_routes(blueprint, management)
    blueprint.record_once(_refuse_other_methods)
    blueprint.url_value_preprocessor(_drop_host)
    blueprint.after_request(_guard)
    _answer_with_problems(blueprint)
    return blueprint


def _refuse_other_methods(state: BlueprintSetupState) -> None:
    """Give each path a last rule for whatever method the others do not take.

    They are added to the map itself: Flask's ``add_url_rule`` has no word for every method.
    """
    url_map, name = state.app.url_map, state.blueprint.name
    endpoint = f"{name}.method_not_allowed"
    allowed: dict[str, set[str]] = {}
    spelled: dict[str, str] = {}
    for rule in url_map.iter_rules():
        if rule.endpoint.startswith(f"{name}."):
            shape = re.sub(r"<[^>]*>", "<>", rule.rule)  # two rules may name one argument differently
            spelled.setdefault(shape, rule.rule)
            allowed.setdefault(shape, set()).update(rule.methods or ())
    host = f"<{HOST}>" if url_map.host_matching else None
    for text in spelled.values():
        url_map.add(Rule(text, endpoint=endpoint, methods=None, strict_slashes=False, host=host))
    # By the rule, and not as its ``defaults``: of two rules with the same ones, Werkzeug redirects to the first.
    methods = {text: ", ".join(sorted({*allowed[shape], "OPTIONS"})) for shape, text in spelled.items()}
    state.app.view_functions[endpoint] = partial(_method_not_allowed, methods)


def _method_not_allowed(methods: Mapping[str, str], /, **_values: Any) -> Response:
    assert request.url_rule is not None
    allow = {"Allow": methods[request.url_rule.rule]}
    if request.method == "OPTIONS":
        return Response(status=204, headers=allow)
    detail = f"{request.path} takes {allow['Allow']}, not {request.method}."
    raise Problem(405, "method_not_allowed", detail, headers=allow)


def _drop_host(_endpoint: str | None, values: dict[str, Any] | None) -> None:
    """Spare the views the host, which none of them wants."""
    if values is not None:
        values.pop(HOST, None)


def _guard(response: Response) -> Response:
    response.headers["Cache-Control"] = "no-store"
    # What clients named (models, sessions) is in many answers: no browser is to take one of them for a page.
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def _answer_with_problems(blueprint: Blueprint) -> None:
    blueprint.register_error_handler(Problem, Problem.response)
    blueprint.register_error_handler(ServicesUnavailable, _unavailable)
    blueprint.register_error_handler(ConfigError, _missing)
    blueprint.register_error_handler(ValidationError, _invalid)
    # By status, because a handler of the host's for a status goes before one of ours for every HTTPException. A 500
    # is left to Flask, with the exception that is behind it.
    for status in default_exceptions:
        if status < 500:
            blueprint.register_error_handler(status, _http_error)


def _unavailable(error: ServicesUnavailable) -> Response:
    detail = f"{error} If it stays so, see whether the store is running ({REDIS_URL} says which one it is)."
    retry_after = str(max(1, round(error.retry_after)))
    return Problem(503, "store_unavailable", detail, headers={"Retry-After": retry_after}).response()


def _missing(error: ConfigError) -> Response:
    for setting, code in MISSING.items():
        if setting in str(error):
            return Problem(503, code, str(error)).response()
    raise error


def _invalid(error: ValidationError) -> Response:
    detail = "The request has fields that are missing, wrong or unknown; 'errors' says which."
    return Problem(400, "invalid", detail, more={"errors": error.messages}).response()


def _http_error(error: HTTPException) -> Response:
    """An error of Flask's own, such as a body that is not JSON."""
    code = re.sub(r"[^a-z]+", "_", error.name.lower()).strip("_")
    return Problem(error.code or 400, code, error.description or error.name).response()
