"""Pure: the whole exception tree of the package.

::

    Exception
    └── AIBridgeError               the root: everything this package raises of its own
        ├── ConfigError             an ``AIBRIDGE_…`` key is wrong; also a ``ValueError``
        └── LicenseError            a licence cannot be accepted; ``.code`` says why
    UserWarning
    └── ConfigWarning               an ``AIBRIDGE_…`` key that nothing reads

Misuse of a function is Python's own ``TypeError``, ``ValueError`` or ``RuntimeError``, and what happens on
the way to a bridge is the HTTP client's own exception, so neither has a class here.
"""

from __future__ import annotations

__all__ = ["AIBridgeError", "ConfigError", "ConfigWarning", "LicenseError"]


class AIBridgeError(Exception):
    """The root of the package's exceptions."""


class ConfigError(AIBridgeError, ValueError):
    """A configuration key has a value that cannot work; the message names the key and what is allowed."""


class LicenseError(AIBridgeError):
    """A licence cannot be accepted.

    :param code: the stable machine word for the reason, one of ``flask_aibridge.license.refusals.REFUSALS``.
    :param message: the sentence for people.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[type[LicenseError], tuple[str, str]]:
        """Pickle with both arguments (an exception would come back with the message alone)."""
        return type(self), (self.code, str(self))


class ConfigWarning(UserWarning):
    """A configuration key starts with ``AIBRIDGE_`` but nothing reads it; the message names the nearest known
    key."""
