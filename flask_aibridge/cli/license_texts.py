"""What the commands of licences read: a licence that is given in one of three ways; and how they say that one is
refused."""

from __future__ import annotations

import functools
import os
import sys
from codecs import BOM_UTF8
from collections.abc import Callable
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

import click

from flask_aibridge.errors import LicenseError

__all__ = ["MAX_INPUT", "REFUSED", "LicenseRefused", "read_file", "read_license_argument", "refusals_exit"]

MAX_INPUT: Final = 64 * 1024
"""Bytes that are read of a licence or a key: more than four times what a licence may have, so that one that is too
large is refused as such."""

REFUSED: Final = 3
"""The exit code for a licence that is refused, or over."""

_JWT_BEGINS: Final = "eyJ"
"""The base64url of ``{"``: no JWT begins otherwise."""

_P = ParamSpec("_P")
_R = TypeVar("_R")


class LicenseRefused(click.ClickException):
    """A licence cannot be accepted; the process exits with :data:`REFUSED`."""

    exit_code = REFUSED


def refusals_exit(command: Callable[_P, _R]) -> Callable[_P, _R]:
    """Have a command exit with :data:`REFUSED` where a licence is, with the sentence and the code."""

    @functools.wraps(command)
    def called(*arguments: _P.args, **options: _P.kwargs) -> _R:
        try:
            return command(*arguments, **options)
        except LicenseError as error:
            raise LicenseRefused(f"{error} ({error.code})") from None

    return called


def read_license_argument(argument: str) -> str:
    """The text of a licence that is given as itself, as the name of a file, or as ``-`` for standard input.

    :raises click.ClickException: where there is nothing to read.
    """
    if argument == "-":
        text = sys.stdin.read(MAX_INPUT)
    elif argument.lstrip().startswith(_JWT_BEGINS) and not os.path.isfile(argument):
        text = argument
    else:
        text = read_file(argument)
    if not text.strip():
        raise click.ClickException("There is no licence to read: the input is empty.")
    return text


def read_file(name: str) -> str:
    """The text of a file, up to :data:`MAX_INPUT` bytes.

    :raises click.ClickException: for one that cannot be read, naming it.
    """
    try:
        with Path(name).open("rb") as file:
            raw = file.read(MAX_INPUT)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise click.ClickException(f"The file {name[:200]!r} cannot be read: {reason}.") from None
    # What is read here is ASCII, or refused.
    return raw.removeprefix(BOM_UTF8).decode("ascii", "replace")
