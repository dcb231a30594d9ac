"""A small JSON POST, answered with a small JSON document: what every non-streamed call pays."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Awaitable, Callable, Iterator

import httpx
import httpx2
import urllib3
import werkzeug.test
from apps import JSON_PATH, REQUEST_BODY, REQUEST_HEADERS, RESPONSE_BODY, application
from faces import BASE_URL, Faces, faces, session_with
from measure import Comparison, Contestant, Section, Target, run_rounds, timed, timed_async
from peers import HandedOverTransport, canned_pool_manager, gunicorn
from wsgiadapter import WSGIAdapter as RequestsWSGIAdapter  # type: ignore[import-untyped]

URL = BASE_URL + JSON_PATH

FLOOR = "floor: urllib3, canned response"
URLLIB3 = "Flask-AIBridge, urllib3"
FLOOR_NEW_URL = "floor: urllib3, canned response, new URL each time"
URLLIB3_NEW_URL = "Flask-AIBridge, urllib3, new URL each time"
REQUESTS = "Flask-AIBridge, requests"
HTTPX2 = "Flask-AIBridge, httpx2"
HTTPX2_ASYNC = "Flask-AIBridge, httpx2 async"
HTTPX = "Flask-AIBridge, httpx"
PEER_WERKZEUG = "werkzeug.test.Client"
PEER_HTTPX2 = "httpx2.WSGITransport"
FLOOR_HTTPX2 = "floor: httpx2.WSGITransport, in another thread"
PEER_HTTPX = "httpx.WSGITransport"
PEER_REQUESTS = "requests-wsgi-adapter"
PEER_GUNICORN = "gunicorn gthread, loopback, urllib3"

COMPARISONS = (
    Comparison("urllib3 : its floor (canned response)", URLLIB3, FLOOR, Target(1.3)),
    Comparison("urllib3 : werkzeug.test.Client", URLLIB3, PEER_WERKZEUG, Target(1.05)),
    Comparison("loopback gunicorn : urllib3", PEER_GUNICORN, URLLIB3, Target(5, at_least=True)),
    Comparison("httpx2 : httpx2.WSGITransport", HTTPX2, PEER_HTTPX2, Target(1.15)),
    Comparison("httpx2.WSGITransport, in another thread : itself", FLOOR_HTTPX2, PEER_HTTPX2),
    Comparison("urllib3 : its floor, new URL each time", URLLIB3_NEW_URL, FLOOR_NEW_URL),
    Comparison("httpx2 async : httpx2.WSGITransport (sync)", HTTPX2_ASYNC, PEER_HTTPX2),
    Comparison("httpx : httpx.WSGITransport", HTTPX, PEER_HTTPX),
    Comparison("requests : requests-wsgi-adapter", REQUESTS, PEER_REQUESTS),
)

NOTES = (
    "The targets are judged on one URL used again and again, as SDKs do; those with a new one are printed too.",
    "The floor is stock urllib3 with a canned connection; WSGIPoolManager also shortens urllib3's own path.",
    "What httpx2's own transport takes when another thread runs it is the floor of one that calls the app in a thread.",
)


def measure(*, rounds: int, batch: int) -> Section:
    """Measure the POST through every face and every peer, side by side."""
    with faces(application) as ours, _peers() as peers:
        contestants = [*_floors(), *_ours(ours), *peers]
        timings, figures = run_rounds(contestants, COMPARISONS, rounds=rounds, batch=batch)
    return Section("Small JSON POST", figures, timings, NOTES)


def _floors() -> list[Contestant]:
    return [
        _contestant(FLOOR, _posting(canned_pool_manager(), URL)),
        _contestant(FLOOR_NEW_URL, _posting_anew(canned_pool_manager())),
    ]


def _ours(ours: Faces) -> list[Contestant]:
    def through_requests() -> bytes:
        return ours.session.post(URL, data=REQUEST_BODY, headers=REQUEST_HEADERS).content

    async def through_httpx2_async() -> bytes:
        response = await ours.httpx2_async_client.post(URL, content=REQUEST_BODY, headers=REQUEST_HEADERS)
        return response.content

    return [
        _contestant(URLLIB3, _posting(ours.pool, URL)),
        _contestant(URLLIB3_NEW_URL, _posting_anew(ours.pool)),
        _contestant(REQUESTS, through_requests),
        _contestant(HTTPX2, _posting_httpx(ours.httpx2_client)),
        _async_contestant(HTTPX2_ASYNC, ours, through_httpx2_async),
        _contestant(HTTPX, _posting_httpx(ours.httpx_client)),
    ]


@contextlib.contextmanager
def _peers() -> Iterator[list[Contestant]]:
    werkzeug_client = werkzeug.test.Client(application)
    with (
        httpx2.Client(transport=httpx2.WSGITransport(application)) as httpx2_client,
        httpx2.Client(transport=HandedOverTransport(application)) as httpx2_threaded_client,
        httpx.Client(transport=httpx.WSGITransport(application)) as httpx_client,
        session_with(RequestsWSGIAdapter(application)) as session,
        gunicorn() as server,
        urllib3.PoolManager() as http,
    ):
        yield [
            _contestant(
                PEER_WERKZEUG,
                lambda: werkzeug_client.post(JSON_PATH, data=REQUEST_BODY, headers=REQUEST_HEADERS).data,
            ),
            _contestant(PEER_HTTPX2, _posting_httpx(httpx2_client)),
            _contestant(FLOOR_HTTPX2, _posting_httpx(httpx2_threaded_client)),
            _contestant(PEER_HTTPX, _posting_httpx(httpx_client)),
            _contestant(
                PEER_REQUESTS, lambda: session.post(URL, data=REQUEST_BODY, headers=REQUEST_HEADERS).content
            ),
            _contestant(PEER_GUNICORN, _posting(http, server + JSON_PATH)),
        ]


def _posting(manager: urllib3.PoolManager, url: str) -> Callable[[], bytes]:
    return lambda: manager.request("POST", url, body=REQUEST_BODY, headers=REQUEST_HEADERS).data


def _posting_anew(manager: urllib3.PoolManager) -> Callable[[], bytes]:
    """Post to a URL that was never used before, so that nothing remembered about a URL helps."""
    numbers = itertools.count()
    return lambda: (
        manager.request("POST", f"{URL}?n={next(numbers)}", body=REQUEST_BODY, headers=REQUEST_HEADERS).data
    )


def _posting_httpx(client: httpx.Client | httpx2.Client) -> Callable[[], bytes]:
    return lambda: client.post(URL, content=REQUEST_BODY, headers=REQUEST_HEADERS).content


def _contestant(name: str, operation: Callable[[], bytes]) -> Contestant:
    return Contestant(name, timed(operation), lambda: _check(name, operation()))


def _async_contestant(name: str, ours: Faces, operation: Callable[[], Awaitable[bytes]]) -> Contestant:
    async def answer() -> bytes:
        return await operation()

    return Contestant(
        name, timed_async(ours.runner, operation), lambda: _check(name, ours.runner.run(answer()))
    )


def _check(name: str, answer: bytes) -> None:
    if answer != RESPONSE_BODY:
        raise RuntimeError(f"{name} answered {answer[:200]!r}, not the app's document")
