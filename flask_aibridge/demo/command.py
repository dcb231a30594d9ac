"""The command: the order in which the demo shows what it shows."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Final

import click
import urllib3

from flask_aibridge.demo.application import DEFAULT_PORT, Demonstration, PortInUse, serve
from flask_aibridge.demo.conversation import Answer, AnswerFailed, ask_by_http, ask_in_process
from flask_aibridge.demo.providers import Partner, partners
from flask_aibridge.demo.terminal import Terminal
from flask_aibridge.errors import ConfigError

if TYPE_CHECKING:
    from flask_aibridge.observability.hooks import InterceptionEnded

__all__ = ["demo"]

AGENTS_QUESTION: Final = "In one sentence: what is a bridge for?"
CLIENTS_QUESTION: Final = "In one sentence: what is a door for?"
COLUMNS: Final = ("door", "source", "provider", "model", "tokens", "first token")
NUMBERS: Final = (4, 5)


@click.command()
@click.option("--once", is_flag=True, help="End when everything has been shown.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help=f"Where to serve on 127.0.0.1; 0 for any free port.  [default: {DEFAULT_PORT}, or any free port]",
)
@click.option("--model", help="The model to ask, instead of a small one of the provider.")
def demo(once: bool, port: int | None, model: str | None) -> None:
    """Show an LLM answer stream through both doors of the bridge.

    With ANTHROPIC_API_KEY or OPENAI_API_KEY in the environment it is a real model's answer; without, that of a
    stand-in in this process. Nothing else is needed: no account, no application, no licence.
    """
    _never_fail_to_print()
    terminal = Terminal(os.environ)
    try:
        with partners(os.environ, model) as found, closing(Demonstration(found)) as shown:
            complete = _run(shown, terminal, port, once)
    except ConfigError as error:
        raise click.ClickException(f"{error} Correct or unset it.") from error
    except PortInUse as error:
        raise click.ClickException(
            f"{error} Choose another with --port, or leave it out for a free one."
        ) from error
    except KeyboardInterrupt:
        click.echo("\nStopped.")
        return
    if once and not complete:
        raise click.exceptions.Exit(1)


def _run(shown: Demonstration, terminal: Terminal, port: int | None, once: bool) -> bool:
    """The whole demo; whether both answers came."""
    with serve(shown.app, port) as base_url, urllib3.PoolManager() as http:
        ask = partial(ask_by_http, http, base_url + shown.path_of(shown.client), shown.api_key, shown.client)
        _introduce(shown, terminal, base_url)
        of_agent = _the_agent_asks(shown, terminal)
        _a_client_is_refused(shown, terminal, ask)
        _the_licence_is_installed(shown, terminal)
        of_client = _the_client_asks_again(shown, terminal, ask)
        _what_was_seen(shown, terminal, [of_agent, of_client])
        if not once:
            _to_try(shown, terminal, base_url)
            threading.Event().wait()
    return of_agent is not None and of_client is not None


def _never_fail_to_print() -> None:
    """Print a question mark for a character that the terminal's encoding lacks."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")


def _introduce(shown: Demonstration, terminal: Terminal, base_url: str) -> None:
    terminal.title("Flask-AIBridge: one bridge to LLM providers, behind two doors")
    terminal.facts([("app", base_url), *_who_answers(shown.partners)])


def _who_answers(partners: Sequence[Partner]) -> list[tuple[str, str]]:
    if partners[0].is_stand_in:
        return [
            ("provider", "a STAND-IN in this process: made-up answers in the real wire formats"),
            ("", "(set ANTHROPIC_API_KEY or OPENAI_API_KEY for the real provider)"),
        ]
    return [("provider", f"{each.name} at {each.settings.base_url}, model {each.model}") for each in partners]


def _the_agent_asks(shown: Demonstration, terminal: Terminal) -> float | None:
    terminal.step("The app's own agent asks: in process, no socket, no licence")
    terminal.said(AGENTS_QUESTION)
    return _show(partial(ask_in_process, shown.aibridge, shown.agent), AGENTS_QUESTION, terminal, shown.agent)


def _a_client_is_refused(shown: Demonstration, terminal: Terminal, ask: Callable[[str], Answer]) -> None:
    terminal.step("An external client asks: over HTTP, with an API key; nothing is licensed yet")
    terminal.said(f"POST {shown.path_of(shown.client)}")
    terminal.said(CLIENTS_QUESTION)
    with ask(CLIENTS_QUESTION) as answer:
        document = answer.document()
        terminal.result(answer.status, str(document.get("code", "")))
        terminal.note(str(document.get("message", "")))


def _the_licence_is_installed(shown: Demonstration, terminal: Terminal) -> None:
    terminal.step("A licence is installed, while the app runs")
    shown.install_license()
    terminal.note("A JWT for one day, signed with Ed25519 by a key pair that was made a moment ago.")


def _the_client_asks_again(
    shown: Demonstration, terminal: Terminal, ask: Callable[[str], Answer]
) -> float | None:
    terminal.step("The same call again")
    terminal.said(f"POST {shown.path_of(shown.client)}")
    terminal.said(CLIENTS_QUESTION)
    return _show(ask, CLIENTS_QUESTION, terminal, shown.client)


def _show(ask: Callable[[str], Answer], question: str, terminal: Terminal, partner: Partner) -> float | None:
    """Print an answer as it arrives; the seconds until its first token, or ``None`` if it did not come whole."""
    try:
        with ask(question) as answer:
            terminal.typed(answer.text())
            return answer.time_to_first_token
    except (AnswerFailed, urllib3.exceptions.HTTPError) as error:
        variable = f"{partner.settings.type.upper()}_API_KEY"
        terminal.failure(
            f"{error} (If it is about credentials or the model, look at {variable} and --model.)"
        )
        return None


def _what_was_seen(shown: Demonstration, terminal: Terminal, times: Sequence[float | None]) -> None:
    terminal.step("What was seen")
    labels = {partner.name: partner.label for partner in shown.partners}
    records = shown.records.take(len(times))
    rows = [_row(record, labels, time) for record, time in zip(records, times, strict=False)]
    terminal.table(COLUMNS, rows, NUMBERS)
    terminal.note(
        "Tokens are input + output. The refused call is not here: it did not get as far as the bridge."
    )


def _row(record: InterceptionEnded, labels: Mapping[str, str], first_token: float | None) -> tuple[str, ...]:
    usage = record.usage
    return (
        "in process" if record.in_process else "HTTP",
        record.source or "-",
        labels.get(record.provider, record.provider),
        record.model or "-",
        "-" if usage is None else f"{usage.input + usage.cache_read + usage.cache_write} + {usage.output}",
        "-" if first_token is None else f"{first_token * 1000:.0f} ms",
    )


def _to_try(shown: Demonstration, terminal: Terminal, base_url: str) -> None:
    terminal.step("Yours to try: the app goes on serving until Ctrl-C")
    terminal.note("An external client (without the X-Api-Key it gets a 401):")
    for partner in shown.partners:
        terminal.verbatim(_curl(shown, partner, base_url))
    terminal.gap()
    terminal.note("A page of the app, whose agent asks in process:")
    terminal.verbatim(f"curl -N '{base_url}/agent?ask=Hello'")
    terminal.gap()


def _curl(shown: Demonstration, partner: Partner, base_url: str) -> str:
    body = json.dumps(partner.dialect.request(partner.model, "Hello"))
    headers = {"X-Api-Key": shown.api_key, "Content-Type": "application/json", **partner.dialect.headers}
    lines = [f"curl -N {base_url}{shown.path_of(partner)}"]
    lines += [f"-H '{name}: {value}'" for name, value in headers.items()]
    return " \\\n  ".join([*lines, f"-d '{body}'"])
