"""What the reading routes are asked and what they answer, as marshmallow schemas: the wire form and its description."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, get_args

from flask import request
from marshmallow import Schema, ValidationError, fields, validate, validates_schema

from flask_aibridge.services.cursors import MAX_CURSOR
from flask_aibridge.services.records import Status
from flask_aibridge.services.schemas.fields import MAX_NAME, Moment
from flask_aibridge.services.storage import MAX_LIMIT, Grouping

DEFAULT_LIMIT: Final = 100

EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(9000, 1, 1, tzinfo=UTC)
"""Times that can be asked for: what the ids of interceptions can say, but for the last 800 years of it."""

MAX_SPAN: Final = timedelta(days=366)
"""How much of usage is summed in one answer: a year, in which there are nearly nine thousand hours."""

DEFAULT_SPAN: Final = timedelta(days=30)


def read_query(schema: Schema) -> dict[str, Any]:
    """The query string of the current request as the schema loads it.

    :raises marshmallow.ValidationError: for parameters that are unknown, wrong, or given more than once.
    """
    values = {name: given[0] for name, given in request.args.lists() if len(given) == 1}
    repeated = [name for name in request.args if name not in values]
    if repeated:
        raise ValidationError({name: ["Give it once."] for name in repeated})
    loaded: dict[str, Any] = schema.load(values)
    return loaded


class _Filter(fields.String):
    def __init__(self, description: str) -> None:
        super().__init__(validate=validate.Length(1, MAX_NAME), metadata={"description": description})


class _Time(Moment):
    def __init__(self, description: str) -> None:
        super().__init__(
            validate=validate.Range(EARLIEST, LATEST, error="Must be a time of the years 1970 to 8999."),
            metadata={"description": f"{description} A time with its zone, as in RFC 3339."},
        )


class Groups(fields.String):
    """Words with commas between them, each once."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **options: Any) -> Any:
        groups = super()._deserialize(value, attr, data, **options).split(",")
        if set(groups) - set(get_args(Grouping)) or len(set(groups)) != len(groups):
            raise ValidationError(
                f"Must be some of {', '.join(get_args(Grouping))}, each once, with commas between."
            )
        if {"day", "hour"} <= set(groups):
            raise ValidationError("Group by day or by hour, not by both.")
        return tuple(groups)


INITIATOR: Final = "Whose: a user's name, or 'me'. Others than administrators see their own in any case."


class NoQuery(Schema):
    """Nothing."""


class InitiatorQuery(Schema):
    """Whose."""

    initiator = _Filter(INITIATOR)


class PageQuery(Schema):
    """Which page of a listing, and in which form."""

    limit = fields.Integer(
        validate=validate.Range(1, MAX_LIMIT),
        metadata={"description": f"Items of a page, {DEFAULT_LIMIT} unless given; rows of a CSV export."},
    )
    cursor = fields.String(
        validate=validate.Length(1, MAX_CURSOR),
        metadata={"description": "'next' of the page before, with the same filters."},
    )
    format = fields.String(
        validate=validate.OneOf(["json", "csv"]),
        metadata={"description": "Goes before the Accept header, which may ask for text/csv."},
    )


class InterceptionsQuery(InitiatorQuery, PageQuery):
    """Which interceptions."""

    provider = _Filter("The provider's name.")
    model = _Filter("The model, as the request named it.")
    client = _Filter("The client, such as 'Claude Code'.")
    source = _Filter("The call site of in-process requests, such as 'agents'.")
    session_id = _Filter("The session.")
    status = fields.String(validate=validate.OneOf(get_args(Status)))
    started_after = _Time("Started then or later.")
    started_before = _Time("Started before.")


class SessionsQuery(InitiatorQuery, PageQuery):
    """Which sessions."""

    active_after = _Time("Last active then or later.")
    active_before = _Time("Last active before.")


class UsageQuery(InitiatorQuery):
    """Usage of what, when, and how it is summed."""

    group_by = Groups(
        load_default=("day",),
        metadata={
            "description": f"Some of {', '.join(get_args(Grouping))}, with commas between.",
            "default": "day",
        },
    )
    since = _Time("From the first hour that does not begin before; 30 days before 'until' unless given.")
    until = _Time("Up to the hour that begins before; now unless given.")
    model = _Filter("The model.")
    provider = _Filter("The provider's name.")
    format = fields.String(validate=validate.OneOf(["json", "csv"]))

    @validates_schema
    def _check(self, data: Mapping[str, Any], **_options: Any) -> None:
        since, until = data.get("since"), data.get("until")
        if since is None or until is None:
            return
        if not timedelta() < until - since <= MAX_SPAN:
            raise ValidationError(f"Must be after 'since', and no more than {MAX_SPAN.days} days.", "until")


class TokenUsage(Schema):
    """Sums of tokens. ``input`` never includes cached tokens, ``output`` includes reasoning."""

    input = fields.Integer()
    output = fields.Integer()
    cache_read = fields.Integer()
    cache_write = fields.Integer()
    extra = fields.Dict(keys=fields.String(), values=fields.Integer())


class Interception(Schema):
    """One request to a provider, and how it went."""

    id = fields.String(attribute="start.id")
    initiator = fields.String(attribute="start.initiator")
    provider = fields.String(attribute="start.provider")
    provider_type = fields.String(attribute="start.provider_type")
    model = fields.String(attribute="start.model", allow_none=True)
    client = fields.String(attribute="start.client", allow_none=True)
    source = fields.String(attribute="start.source", allow_none=True)
    session_id = fields.String(attribute="start.session_id", allow_none=True)
    status = fields.String(validate=validate.OneOf(get_args(Status)))
    started_at = Moment(attribute="start.started_at")
    ended_at = fields.Function(
        lambda view: None if view.end is None else Moment().serialize("ended_at", view.end),
        metadata={"type": ["string", "null"], "format": "date-time"},
    )
    token_usage = fields.Nested(TokenUsage, attribute="tokens")


class TracedInterception(Interception):
    """An interception, and what it goes on with: where its request ends with the result of a tool call, that is the
    interception that made the call. The root began the thread. For one that begins a thread both are null."""

    correlating_tool_call_id = fields.String(attribute="start.correlating_tool_call_id", allow_none=True)
    thread_parent_id = fields.String(allow_none=True)
    thread_root_id = fields.String(allow_none=True)


class Prompt(Schema):
    """What the user asked."""

    id = fields.String()
    message_id = fields.String()
    prompt = fields.String()
    created_at = Moment()


class ToolCall(Schema):
    """A tool that the model called. ``input`` is JSON text."""

    id = fields.String()
    message_id = fields.String()
    tool = fields.String()
    input = fields.String()
    tool_call_id = fields.String(allow_none=True)
    item_id = fields.String(allow_none=True)
    server_url = fields.String(allow_none=True)
    injected = fields.Boolean()
    invocation_error = fields.String(allow_none=True)
    created_at = Moment()


class Thought(Schema):
    """A piece of the model's reasoning."""

    id = fields.String()
    content = fields.String()
    created_at = Moment()


class InterceptionError(Schema):
    """What went wrong."""

    type = fields.String(attribute="error_type", allow_none=True)
    message = fields.String(attribute="error_message", allow_none=True)
    http_status = fields.Integer(allow_none=True)


class InterceptionDetail(TracedInterception):
    """An interception with everything that is recorded of it."""

    prompts = fields.List(fields.Nested(Prompt))
    tool_calls = fields.List(fields.Nested(ToolCall))
    thoughts = fields.List(fields.Nested(Thought))
    error = fields.Nested(InterceptionError, allow_none=True)


class InterceptionPage(Schema):
    """A page of interceptions, newest first. ``next`` is null on the last page, and there alone."""

    count = fields.Integer()
    interceptions = fields.List(fields.Nested(Interception))
    next = fields.String(allow_none=True)


class Session(Schema):
    """The interceptions of one user that carry one session id; or those of a thread without, under the id of its root.
    ``threads`` is how many there are: in each, an agent went on with the results of its tools."""

    id = fields.String()
    initiator = fields.String()
    providers = fields.List(fields.String())
    models = fields.List(fields.String())
    client = fields.String(allow_none=True)
    started_at = Moment()
    ended_at = Moment(allow_none=True)
    last_active_at = Moment()
    interceptions = fields.Integer()
    threads = fields.Integer()
    token_usage = fields.Nested(TokenUsage, attribute="tokens")


class SessionDetail(Session):
    """A session with its interceptions one by one, in order of time: the newest thousand."""

    timeline = fields.List(fields.Nested(TracedInterception))


class SessionPage(Schema):
    """A page of sessions, last active first. ``next`` is null on the last page, and there alone."""

    count = fields.Integer()
    sessions = fields.List(fields.Nested(Session))
    next = fields.String(allow_none=True)


class UsageRow(Schema):
    """The usage of one group; null is what is not grouped by. ``period`` is the start of the day or hour, in UTC; an
    empty ``model`` stands for requests that named none."""

    period = Moment(allow_none=True)
    user = fields.String(allow_none=True)
    model = fields.String(allow_none=True)
    provider = fields.String(allow_none=True)
    requests = fields.Integer()
    token_usage = fields.Nested(TokenUsage, attribute="tokens")


class Usage(Schema):
    """Sums of usage."""

    since = Moment()
    until = Moment()
    group_by = fields.List(fields.String())
    usage = fields.List(fields.Nested(UsageRow))


class Models(Schema):
    """Every model seen, sorted."""

    count = fields.Integer()
    models = fields.List(fields.String())


class Clients(Schema):
    """Every client seen, sorted."""

    count = fields.Integer()
    clients = fields.List(fields.String())
