"""What is said about gunicorn's settings when it starts, where they cut streams."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["SHORT_GRACE_SECONDS", "warn"]

SHORT_GRACE_SECONDS: Final = 60
"""Answers of a reasoning model often take longer than this; the SDKs wait ten minutes for one."""

SYNC: Final = (
    "The worker class 'sync' serves one request at a time and kills a stream that lasts longer than timeout = %s "
    "seconds. Use worker_class = 'gthread' with threads, or 'gevent'."
)

GRACE: Final = (
    "graceful_timeout = %s: streams that last longer than that are cut when this server stops, reloads or replaces a "
    "worker. Set it above the longest stream; 620 is more than the SDKs of the providers wait."
)

TIMEOUT: Final = (
    "timeout = %s: a worker that is busy for so short a time is killed with all its streams. 30 seconds are gunicorn's "
    "own choice; they do not bound a request of the worker classes gthread and gevent."
)

SHORT_TIMEOUT_SECONDS: Final = 10


def warn(cfg: Any, log: Any) -> None:
    """Warn, once each, of settings that cut streams.

    :param cfg: gunicorn's configuration.
    :param log: its logger.
    """
    if cfg.worker_class_str == "sync":
        log.warning(SYNC, cfg.timeout)
    elif 0 < cfg.timeout < SHORT_TIMEOUT_SECONDS:
        log.warning(TIMEOUT, cfg.timeout)
    if cfg.graceful_timeout < SHORT_GRACE_SECONDS:
        log.warning(GRACE, cfg.graceful_timeout)
