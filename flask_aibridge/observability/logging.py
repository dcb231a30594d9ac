"""One log record per request, on the logger ``flask_aibridge.bridge``."""

from __future__ import annotations

import logging

from flask_aibridge.observability.hooks import InterceptionEnded

LOGGER_NAME = "flask_aibridge.bridge"

_LEVELS = {"completed": logging.INFO, "client_closed": logging.INFO}
"""Everything else is a WARNING: somebody did not get the answer they asked for."""


class LoggingHook:
    """Writes each ended interception as one line for people, with its fields in the record's ``extra`` for
    machines.

    The fields are those of ``InterceptionEnded``, with ``usage`` flattened to ``input_tokens``,
    ``output_tokens``, ``cache_read_tokens``, ``cache_write_tokens`` and ``extra_tokens`` (null where no usage
    was reported). ``completed`` and ``client_closed`` are logged at INFO, the rest at WARNING. Neither
    prompts nor keys are ever part of it.
    """

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._logger = logger if logger is not None else logging.getLogger(LOGGER_NAME)

    def interception_ended(self, record: InterceptionEnded) -> None:
        """Log ``record``, if the logger is on at its level."""
        level = _LEVELS.get(record.outcome, logging.WARNING)
        if self._logger.isEnabledFor(level):
            self._logger.log(level, "%s", sentence(record), extra=fields(record))


def sentence(record: InterceptionEnded) -> str:
    """Say ``record`` in one line: who asked what of whom, and how it went."""
    parts = [f"{record.status} {record.outcome} in {record.duration:.3f} s", _first_byte(record)]
    parts += [f"{record.bytes_sent} bytes", _tokens(record), _printable(record.error)]
    return f"{_subject(record)}: " + ", ".join(part for part in parts if part)


def fields(record: InterceptionEnded) -> dict[str, object]:
    """Flatten ``record`` to the attributes that a log record gets."""
    names = [name for name in InterceptionEnded.__slots__ if name != "usage"]
    flat: dict[str, object] = {name: getattr(record, name) for name in names}
    flat["started_at"] = record.started_at.isoformat()
    usage = record.usage
    flat["input_tokens"] = usage.input if usage else None
    flat["output_tokens"] = usage.output if usage else None
    flat["cache_read_tokens"] = usage.cache_read if usage else None
    flat["cache_write_tokens"] = usage.cache_write if usage else None
    flat["extra_tokens"] = dict(usage.extra) if usage else None
    return flat


def _subject(record: InterceptionEnded) -> str:
    what = " ".join(part for part in (record.provider, record.route, _printable(record.model)) if part)
    return f"{what or 'unknown route'} {_door(record)}"


def _door(record: InterceptionEnded) -> str:
    if record.in_process:
        return f"in process from {_printable(record.source)}" if record.source else "in process"
    return f"over HTTP by {_printable(record.user)}" if record.user else "over HTTP"


def _first_byte(record: InterceptionEnded) -> str:
    wait = record.time_to_first_byte
    return "" if wait is None else f"first byte after {wait:.3f} s"


def _tokens(record: InterceptionEnded) -> str:
    usage = record.usage
    if usage is None:
        return ""
    cached = usage.cache_read + usage.cache_write
    return f"{usage.input} tokens in{f' and {cached} cached' if cached else ''}, {usage.output} out"


def _printable(text: str | None) -> str:
    # Model names come from strangers: a line feed in one must not start a log line of its own.
    return (
        ""
        if text is None
        else "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
    )
