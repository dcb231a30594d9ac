"""The context that an app runs in: the caller's variables, without those that say which Flask request is served."""

from __future__ import annotations

import contextvars
from typing import Final

__all__ = ["callers_context"]

# Flask keeps its contexts in variables of this prefix (flask.app_ctx, flask.request_ctx): the caller's must
# not be seen by an app that runs on the caller's behalf, or the two would share `g`, `request` and the
# teardown of both.
_FLASK_VARIABLES: Final = "flask."


def callers_context() -> contextvars.Context:
    """A copy of the caller's context variables, without Flask's own."""
    context = contextvars.copy_context()
    if not any(variable.name.startswith(_FLASK_VARIABLES) for variable in context):
        return context
    # A variable of a Context cannot be unset, so the rest is set in a new one.
    fresh = contextvars.Context()
    for variable, value in context.items():
        if not variable.name.startswith(_FLASK_VARIABLES):
            fresh.run(variable.set, value)
    return fresh
