"""A bridge in the application context of the Flask app that it is mounted in, as the in-process door calls it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from flask import Flask
    from flask.ctx import AppContext


class InAppContext:
    """A WSGI app, called in the application context of the Flask app that it is mounted in.

    The context is entered with the call and left with the end of the body: call, iteration and ``close()``
    have to come from one thread and one context, as they do by the transport. The public door does not need
    it.
    """

    __slots__ = ("_app", "_wsgi_app")

    def __init__(self, app: Flask, wsgi_app: WSGIApplication) -> None:
        self._app = app
        self._wsgi_app = wsgi_app

    def __repr__(self) -> str:
        return f"<{self._wsgi_app!r} in the context of {self._app.name!r}>"

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        context = self._app.app_context()
        context.push()
        try:
            body = self._wsgi_app(environ, start_response)
        except BaseException as error:
            context.pop(error)
            raise
        if type(body) in (list, tuple):
            context.pop(None)
            return body
        return _BodyInContext(body, context)


class _BodyInContext:
    """A body that leaves the application context after it has been closed."""

    __slots__ = ("_body", "_context")

    def __init__(self, body: Iterable[bytes], context: AppContext) -> None:
        self._body = body
        self._context: AppContext | None = context

    def __iter__(self) -> Iterator[bytes]:
        # The body's own iterator: nothing is added to the cost of a chunk.
        return iter(self._body)

    def close(self) -> None:
        context, self._context = self._context, None
        if context is None:
            return
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            # With the exception in flight, if there is one, for the app's teardown functions.
            context.pop()
