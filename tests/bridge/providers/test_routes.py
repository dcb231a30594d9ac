"""The allow-list: what its forms mean, and that no spelling of a path gets by them."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_aibridge.bridge.asked import PROBES
from flask_aibridge.bridge.providers.registry import TYPES
from flask_aibridge.bridge.providers.routes import (
    Route,
    RouteTable,
    named,
    named_elsewhere,
    named_if_any,
    named_in_batch,
)
from flask_aibridge.bridge.request import forwarded_path, is_plain

ALL = [(kind, route) for kind, provider in TYPES.items() for route in provider.routes]
METHODS = {"GET", "HEAD", "POST", "DELETE"}

segment = st.sampled_from(
    ["v1", "files", "batches", "messages", "responses", "models", "x", "", "..", "%2e", "a\\b"]
)


def example_of(route: Route) -> str:
    """A path of the route's form."""
    parts = ["id" if part[:1] == "{" else part for part in route.path.split("/")]
    return "/".join(parts).replace("*", "below/it")


@pytest.mark.parametrize(("kind", "route"), ALL, ids=lambda value: getattr(value, "path", value))
def test_every_form_finds_itself(kind: str, route: Route) -> None:
    """None is hidden by one before it, each has methods that are known, and something below it is not it."""
    table = TYPES[kind].routes
    found = table.find(example_of(route))
    assert found is route
    assert route.methods
    assert set(route.methods) <= METHODS
    assert ("GET" in route.methods) is ("HEAD" in route.methods)
    assert table.find(f"{example_of(route)}/") is not route or route.path.endswith("/*")


def test_a_path_that_is_listed_goes_before_the_forms() -> None:
    """Whatever their order."""
    form, exact = Route("/a/{b}", ("GET",)), Route("/a/b", ("POST",))
    table = RouteTable([form, exact])
    assert table.find("/a/b") is exact
    assert table.find("/a/c") is form
    assert list(table) == [form, exact]


def test_forms_are_taken_literally_but_for_their_placeholders() -> None:
    """A dot is a dot; a placeholder is one segment with something in it."""
    table = RouteTable([Route("/a.b/{c}/d", ("GET",)), Route("/e/*", ("GET",))])
    assert table.find("/a.b/1/d") is not None
    for path in ("/axb/1/d", "/a.b//d", "/a.b/1/2/d", "/a.b/1/d/e", "/a.b/1/d\n", "/e/", "/e", "/ee/1"):
        assert table.find(path) is None, path


@given(st.sampled_from(sorted(TYPES)), st.lists(segment, max_size=6).map(lambda parts: "/" + "/".join(parts)))
def test_nothing_but_plain_paths_of_a_listed_form_is_found(kind: str, path: str) -> None:
    """What is found is as the form says, segment by segment."""
    found = TYPES[kind].routes.find(path) if is_plain(path) else None
    if found is None:
        return
    form, parts = found.path.split("/"), path.split("/")
    assert len(parts) >= len(form) if form[-1] == "*" else len(parts) == len(form)
    for wanted, given_ in zip(form, parts, strict=False):
        assert wanted == given_ or wanted[:1] == "{" or wanted == "*"
        assert given_ not in (".", "..") if given_ or wanted else True


pieces = st.sampled_from(
    ["/", "v1", "files", "models", "x", "%2F", "%2f", "%2e", "..", ".", "%5c", "%25", "%00", "?", "%3F"]
)


@given(st.sampled_from(sorted(TYPES)), st.lists(pieces, max_size=10).map("".join))
def test_the_provider_reads_the_path_that_was_allowed(kind: str, written: str) -> None:
    """However it was written: it goes on with the same meaning, and with no segments that lead elsewhere."""
    path, _, query = f"/v1/{written}".partition("?")
    decoded = unquote(path)
    if not is_plain(decoded) or TYPES[kind].routes.find(decoded) is None:
        return
    forwarded = forwarded_path({"REQUEST_URI": f"/p{path}?{query}"}, decoded)
    assert unquote(forwarded) == decoded
    assert not {"", ".", ".."} & {unquote(part) for part in forwarded.split("/")[1:]}
    assert "?" not in forwarded


def test_what_would_harm_others_is_not_listed() -> None:
    """Models are not deleted, nothing is changed that is not made here, and probes are nobody's routes."""
    for _, route in ALL:
        if "model" in route.path:
            assert "DELETE" not in route.methods
        if not route.path.endswith("}"):
            assert "DELETE" not in route.methods or route.path == "/v1/responses/*"
    assert not [path for path in PROBES for kind in TYPES if TYPES[kind].routes.find(path)]


def test_what_lists_everybodys_is_marked() -> None:
    """All collections that can be read, but for the models, and for what belongs to one conversation or response."""
    collections = {
        route.path
        for _, route in ALL
        if "GET" in route.methods
        and route.path.rsplit("/", 1)[1] in ("files", "batches", "responses", "conversations")
    }
    assert {route.path for _, route in ALL if route.lists} == collections


def test_every_route_that_has_a_model_work_says_which() -> None:
    """By it keys are limited."""
    for _, route in ALL:
        works = route.wire_format is not None or route.path.endswith(
            ("embeddings", "batches", "count_tokens")
        )
        assert (route.models is not None) or not works, route.path


@pytest.mark.parametrize(
    ("models_of", "document", "models"),
    [
        (named, {"model": "m"}, ["m"]),
        (named, {}, [None]),
        (
            named,
            {"model": "m", "tools": [{"type": "image_generation", "model": "i"}, {"name": "f"}]},
            ["m", "i"],
        ),
        (named, {"model": "m", "models": ["a", "b"]}, ["m", "a", "b"]),
        (named, {"model": "m", "fallbacks": [{"model": "a"}, {"model": None}, 7]}, ["m", "a", None]),
        (named, {"model": "m", "tools": {"model": "i"}, "models": None}, ["m"]),
        (named_if_any, {"tools": [{"model": "i"}]}, ["i"]),
        (named_in_batch, {"requests": [{"params": {"model": "a", "models": ["b"]}}]}, ["a", "b"]),
        (named_if_any, {"model": 5}, [5]),
        (named_if_any, {}, []),
        (named_in_batch, {"requests": [{"params": {"model": "a"}}, {"params": {"model": "b"}}]}, ["a", "b"]),
        (named_in_batch, {"requests": [{"params": {"model": "a"}}, {}]}, ["a", None]),
        (named_in_batch, {"requests": [{"params": 7}]}, [None]),
        (named_in_batch, {"requests": []}, [None]),
        (named_in_batch, {"requests": "all"}, [None]),
        (named_in_batch, {}, [None]),
        (named_elsewhere, {"input_file_id": "file-1"}, [None]),
    ],
)
def test_which_models_a_request_asks_for(models_of: Any, document: dict[str, Any], models: list[Any]) -> None:
    """What cannot be known is said to be unknown."""
    assert models_of(document) == models
