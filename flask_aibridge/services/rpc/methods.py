"""Pure: the calls as the server sees them: arguments of a JSON object, a call of the services, JSON of the result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from flask_aibridge.errors import InvalidRecord
from flask_aibridge.services.interfaces import Services
from flask_aibridge.services.rpc import protocol
from flask_aibridge.services.schemas.fields import MAX_ENTRIES, MAX_NAME
from flask_aibridge.services.schemas.messages import RECORD_KINDS, encode, load


@dataclass(frozen=True, slots=True)
class Method:
    """``read`` raises ``InvalidRecord``; ``write`` makes JSON text of what ``invoke`` gave."""

    read: Callable[[dict[str, Any]], tuple[Any, ...]]
    invoke: Callable[..., Any]
    write: Callable[[Any], str]


def _name(arguments: dict[str, Any], argument: str) -> str:
    return _checked_name(arguments.get(argument), argument)


def _checked_name(value: Any, argument: str) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_NAME:
        raise InvalidRecord(f"{argument}: must be text of 1 to {MAX_NAME} characters.")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InvalidRecord(f"{argument}: is not Unicode; it has a lone surrogate.") from None
    return value


def _list(arguments: dict[str, Any], argument: str, limit: int) -> list[Any]:
    value = arguments.get(argument)
    if not isinstance(value, list) or len(value) > limit:
        raise InvalidRecord(f"{argument}: must be a list of at most {limit}.")
    return value


def _optional(arguments: dict[str, Any], argument: str, kind: str) -> Any:
    value = arguments.get(argument)
    return None if value is None else load(kind, value)


def _records(arguments: dict[str, Any]) -> tuple[Any, ...]:
    return ([_record(entry) for entry in _list(arguments, "records", protocol.MAX_RECORDS)],)


def _record(entry: Any) -> Any:
    kind = entry.get("kind") if isinstance(entry, dict) else None
    if not isinstance(kind, str) or kind not in RECORD_KINDS:
        raise InvalidRecord(f"records: each must have a kind, one of {', '.join(RECORD_KINDS)}.")
    return load(kind, entry.get("record"))


def _server_ids(arguments: dict[str, Any]) -> tuple[Any, ...]:
    ids = _list(arguments, "server_ids", MAX_ENTRIES)
    return _name(arguments, "user"), [_checked_name(server_id, "server_ids") for server_id in ids]


def _nothing(_: object) -> tuple[Any, ...]:
    return ()


def _null(_: object) -> str:
    return "null"


def _record_all(services: Services, records: list[Any]) -> None:
    services.recorder.record(records)


METHODS: Final[Mapping[str, Method]] = {
    protocol.ADMIT.name: Method(
        lambda arguments: (
            _optional(arguments, "start", "InterceptionStart"),
            _optional(arguments, "credential", "Credential"),
        ),
        lambda services, start, credential: services.admit(start, credential),
        encode,
    ),
    protocol.RECORD.name: Method(_records, _record_all, _null),
    protocol.RENEW.name: Method(
        lambda arguments: (_name(arguments, "worker"),),
        lambda services, worker: services.recorder.renew(worker),
        _null,
    ),
    protocol.MAINTAIN.name: Method(_nothing, lambda services: services.recorder.maintain(), _null),
    protocol.AUTHORIZE.name: Method(
        lambda arguments: (load("Credential", arguments.get("credential")),),
        lambda services, credential: services.authorizer.authorize(credential),
        encode,
    ),
    protocol.MCP_SERVERS.name: Method(
        lambda arguments: (_name(arguments, "user"),),
        lambda services, user: services.mcp_configurator.mcp_servers(user),
        lambda servers: f"[{','.join([encode(server) for server in servers])}]",
    ),
    protocol.MCP_ACCESS_TOKENS.name: Method(
        _server_ids,
        lambda services, user, ids: services.mcp_configurator.mcp_access_tokens(user, ids),
        encode,
    ),
    protocol.PROVIDERS.name: Method(
        _nothing, lambda services: services.provider_configurator.providers(), encode
    ),
}
"""Every call but the watch, by name."""
