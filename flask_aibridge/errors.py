"""Pure: the whole exception tree of the package.

::

    Exception
    └── AIBridgeError               the root: everything this package raises of its own
        ├── ConfigError             an ``AIBRIDGE_…`` key is wrong; also a ``ValueError``
        │   └── SecretKeyMissing    something is to be encrypted, and ``AIBRIDGE_SECRET_KEY`` is not set
        ├── LicenseError            a licence cannot be accepted; ``.code`` says why
        └── ServiceError            one of the services did not do what it was asked
            ├── Unauthorized        a credential is not accepted; ``.reason`` says why, for the log alone
            ├── InvalidRecord       a record cannot be stored; also a ``ValueError``
            ├── ServicesUnavailable the services, or their store, are away; ``.retry_after`` in seconds
            │   └── KeyNotChecked   the host's own callback, or Authorizer, could not say whose a key is
            ├── RateLimited         a caller sends more requests than it may; ``.retry_after`` in seconds
            ├── Unsealable          an encrypted value cannot be opened with ``AIBRIDGE_SECRET_KEY``
            ├── NotRecorded         neither the store nor the spool takes a record; a request must not go on
            └── ProtocolMismatch    client and server of the RPC, or their keys, do not fit each other
    UserWarning
    └── ConfigWarning               an ``AIBRIDGE_…`` key that nothing reads

Misuse of a function is Python's own ``TypeError``, ``ValueError`` or ``RuntimeError``, and what happens on
the way to a bridge is the HTTP client's own exception, so neither has a class here.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

__all__ = [
    "AIBridgeError",
    "ConfigError",
    "ConfigWarning",
    "InvalidRecord",
    "KeyNotChecked",
    "LicenseError",
    "NotRecorded",
    "ProtocolMismatch",
    "RateLimited",
    "SecretKeyMissing",
    "ServiceError",
    "ServicesUnavailable",
    "Unauthorized",
    "Unsealable",
]


class AIBridgeError(Exception):
    """The root of the package's exceptions."""


class ConfigError(AIBridgeError, ValueError):
    """A configuration key has a value that cannot work; the message names the key and what is allowed."""


class SecretKeyMissing(ConfigError):
    """Something is to be encrypted, and there is no key for it; the message says how to make one."""


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


class ServiceError(AIBridgeError):
    """One of the services did not do what it was asked."""


UnauthorizedReason: TypeAlias = Literal[
    "missing", "malformed", "unknown", "expired", "wrong_secret", "revoked", "not_in_process"
]


class Unauthorized(ServiceError):
    """A credential is not accepted. The outside gets one answer, a 401, whatever the reason.

    :param reason: the machine word for the log; the message is made of it and never contains the credential.
    """

    def __init__(self, reason: UnauthorizedReason) -> None:
        super().__init__(f"The credential is not accepted: {reason.replace('_', ' ')}.")
        self.reason = reason

    def __reduce__(self) -> tuple[type[Unauthorized], tuple[UnauthorizedReason]]:
        """Pickle with the reason, not the message."""
        return type(self), (self.reason,)


class InvalidRecord(ServiceError, ValueError):
    """A record cannot be stored: a missing or impossible field, which the message names."""


class ServicesUnavailable(ServiceError):
    """The services cannot be reached, or their store is away.

    :param retry_after: seconds after which asking again makes sense.
    :param not_asked: whether it is certain that nothing was done; else what was asked may have been, for all that
        is known here.
    """

    def __init__(self, message: str, retry_after: float = 1.0, not_asked: bool = False) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.not_asked = not_asked

    def __reduce__(self) -> tuple[type[ServicesUnavailable], tuple[str, float, bool]]:
        """Pickle with all arguments."""
        return type(self), (str(self), self.retry_after, self.not_asked)


class KeyNotChecked(ServicesUnavailable):
    """What the host has of its own to say whose a key is (``key_loader``, an Authorizer) failed. That says something of
    this key, which anybody may have sent, and nothing of the store."""


class RateLimited(ServiceError):
    """A caller sends more requests than it may. The request counts for nothing, and is not recorded.

    :param retry_after: seconds after which one more is allowed.
    :param limit: the limit, as ``config.parse_rate_limit`` reads it.
    """

    def __init__(self, retry_after: float, limit: str) -> None:
        super().__init__(f"The rate limit of {limit} is reached.")
        self.retry_after = retry_after
        self.limit = limit

    def __reduce__(self) -> tuple[type[RateLimited], tuple[float, str]]:
        """Pickle with both arguments."""
        return type(self), (self.retry_after, self.limit)


class Unsealable(ServiceError):
    """An encrypted value cannot be opened: it is damaged, was sealed for something else, or under a key that is not
    in ``AIBRIDGE_SECRET_KEY`` any more. The message never contains it."""


class NotRecorded(ServiceError):
    """A record is taken by neither the store nor the spool, and recording is required.

    :param retry_after: seconds after which asking again makes sense; null where only an administrator can help.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[type[NotRecorded], tuple[str, float | None]]:
        """Pickle with both arguments."""
        return type(self), (str(self), self.retry_after)


class ProtocolMismatch(ServiceError):
    """Client and server of the services' RPC do not fit each other: another version, or another key."""
