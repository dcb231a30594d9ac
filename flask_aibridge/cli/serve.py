"""``flask aibridge serve``: the application under gunicorn, as it is run in production."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import click
from flask.cli import ScriptInfo

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

__all__ = ["serve"]

BIND: Final = "127.0.0.1:8000"

MIN_WORKERS: Final = 2
"""One goes on serving while the other is replaced."""

MAX_WORKERS: Final = 8
"""Unless it is said otherwise: each takes memory for the whole application, and in a container the machine may have
more processors than are meant."""

THREADS: Final = 64
"""Streams that each worker can hold at a time: each is a thread, which mostly waits, for as long as it lasts."""

GRACE_SECONDS: Final = 620
"""The SDKs of the providers wait ten minutes for an answer; so one that is awaited is not cut by a deploy."""

KEEPALIVE_SECONDS: Final = 75
"""Longer than proxies keep idle connections (60 seconds, as a rule): the proxy is to close them, not we."""

HOOKS: Final = "python:flask_aibridge.gunicorn"


@click.command()
@click.option(
    "--bind", "-b", default=BIND, show_default=True, metavar="ADDRESS", help="HOST:PORT, or unix:PATH."
)
@click.option(
    "--workers",
    "-w",
    type=click.IntRange(1),
    envvar="WEB_CONCURRENCY",
    help=f"Processes.  [default: one for each processor, from {MIN_WORKERS} to {MAX_WORKERS}]",
)
@click.option(
    "--threads",
    type=click.IntRange(1),
    default=THREADS,
    show_default=True,
    help="Threads of each process: a stream holds one for as long as it lasts.",
)
@click.option(
    "--graceful-timeout",
    type=click.IntRange(1),
    default=GRACE_SECONDS,
    show_default=True,
    help="Seconds that streams get to end by themselves when the server stops or reloads.",
)
@click.option(
    "--preload",
    is_flag=True,
    help="Load the application once, before the workers; HUP then no longer reloads it.",
)
@click.pass_context
def serve(
    context: click.Context, bind: str, workers: int | None, threads: int, graceful_timeout: int, preload: bool
) -> None:
    """Serve the application with gunicorn, with settings for long streams.

    TERM stops it and HUP reloads it, both without breaking a stream; Ctrl-C ends it at once. Any other setting of
    gunicorn can be given in GUNICORN_CMD_ARGS.
    """
    workers = workers or default_workers()
    settings = {
        "bind": bind,
        "worker_class": "gthread",
        "workers": workers,
        "threads": threads,
        # Idle connections of clients and proxies take no thread, so there may be more of them than streams.
        "worker_connections": max(1000, 4 * threads),
        "graceful_timeout": graceful_timeout,
        "keepalive": KEEPALIVE_SECONDS,
        "preload_app": preload,
        "control_socket_disable": True,
        "proc_name": "flask-aibridge",
    }
    server = _server(context.ensure_object(ScriptInfo), settings)
    click.echo(
        f"gunicorn serves on {', '.join(server.cfg.bind)} with {server.cfg.workers} workers of {server.cfg.threads} "
        f"threads ({server.cfg.worker_class_str}); streams have {server.cfg.graceful_timeout} s to end when it stops."
    )
    server.run()


def default_workers() -> int:
    """One for each processor that this process may use, within bounds."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(max(processors, MIN_WORKERS), MAX_WORKERS)


def _server(info: ScriptInfo, settings: dict[str, Any]) -> Any:
    try:
        from gunicorn.app.base import Application
    except ImportError:
        raise click.ClickException(
            "gunicorn is not installed, which serves the application: pip install 'Flask-AIBridge[gunicorn]'."
        ) from None

    class Server(Application):  # type: ignore[misc]
        """gunicorn with these settings, and with the app that the flask command finds."""

        def load_config(self) -> None:
            # Not the arguments of this process: they are the flask command's.
            given = self.cfg.parser().parse_args(self.cfg.get_cmd_args_from_env())
            self.load_config_from_module_name_or_filename(given.config or HOOKS)
            for name, value in settings.items():
                self.cfg.set(name, value)
            for name, value in vars(given).items():
                if value is not None and name != "args":
                    self.cfg.set(name, value)

        def load(self) -> WSGIApplication:
            # In each worker, so that a reload finds new code; with preload, in the arbiter.
            app: WSGIApplication = info.load_app()
            return app

    return Server("flask aibridge serve")
