"""The application of the demo: a Flask app with the built-in bridge, a key and a licence made on the spot."""

from __future__ import annotations

import errno
import queue
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from flask import Flask, Response, request
from werkzeug.serving import WSGIRequestHandler, make_server

from flask_aibridge import AIBridge
from flask_aibridge.bridge import Bridge
from flask_aibridge.demo.conversation import ask_in_process
from flask_aibridge.license.issuing import SigningKey, issue_license
from flask_aibridge.observability.hooks import InterceptionEnded

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from flask_aibridge.demo.providers import Partner
    from flask_aibridge.license import Decision

__all__ = ["Demonstration", "PortInUse", "serve"]

HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 5000
USER: Final = "you"
DAY: Final = 24 * 60 * 60

#: Records that wait to be shown. After the table nobody looks any more, and further ones are dropped.
MAX_RECORDS: Final = 100

#: Seconds to wait for the record of a request whose answer has been read: it is made right after the last byte.
RECORD_SECONDS: Final = 5.0

#: Seconds between two looks of the server's loop at whether it is to end.
POLL_SECONDS: Final = 0.05


class PortInUse(Exception):
    """The port that was asked for belongs to another program."""


class Records:
    """A hook that keeps what the bridge reports, oldest first."""

    def __init__(self) -> None:
        self._records: queue.Queue[InterceptionEnded] = queue.Queue(MAX_RECORDS)

    def interception_ended(self, record: InterceptionEnded) -> None:
        """Keep the record of a request that has been answered."""
        with suppress(queue.Full):
            self._records.put_nowait(record)

    def take(self, count: int) -> list[InterceptionEnded]:
        """The next records; fewer where they do not come in time."""
        taken: list[InterceptionEnded] = []
        deadline = time.monotonic() + RECORD_SECONDS
        while len(taken) < count:
            try:
                taken.append(self._records.get(timeout=max(deadline - time.monotonic(), 0)))
            except queue.Empty:
                break
        return taken


class Demonstration:
    """The app, its bridge, and the secrets that last as long as the process.

    :param partners: the providers; the app's own agent talks to the first.
    """

    def __init__(self, partners: Sequence[Partner]) -> None:
        self.partners = partners
        self.records = Records()
        self.api_key = f"aib_demo_{secrets.token_urlsafe(24)}"
        self._signing_key = SigningKey.generate("flask-aibridge-demo")
        settings = [partner.settings for partner in partners]
        self._bridge = Bridge(settings, api_keys={USER: self.api_key}, hooks=[self.records])
        self.app = Flask("flask_aibridge.demo", static_folder=None)
        self.app.config["AIBRIDGE_REDIS_URL"] = "memory://"  # a demo starts no server, and leaves no file
        self.app.config["AIBRIDGE_LICENSE_PUBLIC_KEYS"] = {
            self._signing_key.kid: self._signing_key.public_pem
        }
        self.aibridge = AIBridge(self.app, self._bridge)
        self.app.add_url_rule("/agent", view_func=self._agent)

    @property
    def agent(self) -> Partner:
        """Whom the app's own agent asks."""
        return self.partners[0]

    @property
    def client(self) -> Partner:
        """Whom the external client asks: another provider than the agent, where there are two."""
        return self.partners[-1]

    def close(self) -> None:
        """Close the bridge's idle connections."""
        self._bridge.close()

    def path_of(self, partner: Partner) -> str:
        """The path of a provider's endpoint at the public door."""
        prefix: str = self.app.extensions["aibridge"].settings.url_prefix
        return f"{prefix}/{partner.name}{partner.dialect.path}"

    def install_license(self) -> Decision:
        """Issue a licence for a day and install it in the running app."""
        now = int(time.time())
        token = issue_license(
            self._signing_key, iss="flask aibridge demo", license_expires=now + DAY, exp=now + DAY
        )
        decision: Decision = self.app.extensions["aibridge"].gate.install(token)
        return decision

    def _agent(self) -> Response:
        """A page of the host app whose agent answers in process."""
        prompt = request.args.get("ask", "")[:1000] or "Hello!"
        answer = ask_in_process(self.aibridge, self.agent, prompt)
        response = Response(answer.text(), mimetype="text/plain")
        response.call_on_close(answer.close)
        return response


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"  # with chunked bodies, whose end shows whether they are whole

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002
        """Say nothing: the terminal belongs to the demo."""


@contextmanager
def serve(app: WSGIApplication, port: int | None = None) -> Iterator[str]:
    """Serve an app on loopback for the ``with`` block; gives its URL.

    :param port: ``None`` for :data:`DEFAULT_PORT`, or any other where that is taken.
    :raises PortInUse: for a port that was asked for and is taken.
    """
    with closing(_bound_socket(port)) as listening:
        server = make_server(HOST, 0, app, threaded=True, request_handler=_Quiet, fd=listening.fileno())
    thread = threading.Thread(
        target=server.serve_forever, args=(POLL_SECONDS,), name="demo-server", daemon=True
    )
    thread.start()
    try:
        yield f"http://{HOST}:{server.port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _bound_socket(port: int | None) -> socket.socket:
    # Bound here, because Werkzeug ends the process where a port is taken.
    try:
        return socket.create_server((HOST, DEFAULT_PORT if port is None else port))
    except OSError as error:
        if port is not None and error.errno in (errno.EADDRINUSE, errno.EACCES):
            raise PortInUse(f"Port {port} cannot be used: {error.strerror}.") from error
        if port is not None:
            raise
    return socket.create_server((HOST, 0))
