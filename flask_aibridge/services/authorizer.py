"""The host's authorizer: the keys of its config, a callback of its own, and the keys that are stored."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from flask_aibridge.errors import ConfigError, ServicesUnavailable, Unauthorized
from flask_aibridge.services.api_keys import ID_LENGTH, parse
from flask_aibridge.services.interfaces import Authorization, Credential
from flask_aibridge.services.storage import Store

__all__ = ["HostAuthorizer", "KeyLoader", "StaticKeys"]

KeyLoader: TypeAlias = Callable[[str], str | Authorization | None]
"""A callback of the host: whose key it is, as the user's name or an ``Authorization``; null where it is none that the
host knows. It may refuse one for good with ``Unauthorized``."""

_SPELLED: Final = re.compile(r"aib_([A-Za-z0-9]{1,64})_.+", re.DOTALL)

_log = logging.getLogger(__name__)


class StaticKeys:
    """The keys of ``AIBRIDGE_API_KEYS``. Only digests are kept: nothing that shows the object shows a key.

    The id of a key ``aib_<id>_<secret>`` is its ``<id>``. One of another form, or with an id that another key has too,
    gets an id made of the user's name: one made of the key would help to guess it.

    :param keys: user → key.
    :raises ConfigError: for an empty key, which would admit everybody.
    """

    def __init__(self, keys: Mapping[str, str]) -> None:
        for user, key in keys.items():
            if not isinstance(key, str) or not key.strip():
                raise ConfigError(
                    f"The API key of {user!r} is empty: an empty key would admit everybody. Set one."
                )
        spelled = {user: _spelled_id(key) for user, key in keys.items()}
        taken = Counter(spelled.values())
        self._digests: dict[str, bytes] = {}
        self._authorizations: dict[str, Authorization] = {}
        for user, key in keys.items():
            key_id = spelled[user]
            if key_id is None or taken[key_id] > 1:
                key_id = _made_id(user)
            self._digests[key_id] = _digest(key)
            self._authorizations[key_id] = Authorization(user, key_id)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self._digests)} keys>"

    def find(self, credential: Credential) -> Authorization | None:
        """Whose key the credential is; null for no known key.

        Every key is compared, in constant time, so the wait tells nothing about the keys.
        """
        if credential.key is None:
            return self._authorizations.get(credential.key_id or "")
        if not self._digests:
            return None
        presented = _digest(credential.key)
        found: Authorization | None = None
        for key_id, known in self._digests.items():
            if hmac.compare_digest(known, presented):
                found = self._authorizations[key_id]
        return found


class HostAuthorizer:
    """Says whose a key is: asks the static keys, then the host's callback, then the store.

    :param static_keys: user → key, as in ``AIBRIDGE_API_KEYS``.
    :param store: gives the store, when it is needed for the first time.
    :param key_loader: gives the host's callback, or null for none; asked at each key, so it may be set later.
    """

    def __init__(
        self,
        static_keys: Mapping[str, str],
        store: Callable[[], Store],
        key_loader: Callable[[], KeyLoader | None] = lambda: None,
    ) -> None:
        self._static_keys = StaticKeys(static_keys)
        self._store = store
        self._key_loader = key_loader

    def authorize(self, credential: Credential) -> Authorization:
        """Whom the credential belongs to.

        :raises Unauthorized: with the ``reason`` for the log.
        :raises ServicesUnavailable: where the callback failed, or the store is away.
        """
        return self.authorize_locally(credential) or self._store().authorize(credential)

    def authorize_locally(self, credential: Credential) -> Authorization | None:
        """Whom the credential belongs to, as far as that can be said without the store; null where only the store
        can say.

        :raises Unauthorized: for a key that the store could not know either, by its form.
        :raises ServicesUnavailable: where the callback failed.
        """
        found = self._static_keys.find(credential)
        if found is not None or credential.key is None:
            return found
        found = self._ask_host(credential.key)
        if found is None:
            parse(credential.key)
        return found

    def _ask_host(self, key: str) -> Authorization | None:
        loader = self._key_loader()
        if loader is None:
            return None
        failure = ""
        try:
            answer = loader(key)
        except (Unauthorized, ServicesUnavailable):
            raise  # an answer too
        except Exception as error:
            failure = _told_without_message(error)
        else:
            if answer is None or isinstance(answer, Authorization):
                return answer
            if isinstance(answer, str) and answer:
                return Authorization(answer)
            kind = type(answer).__name__
            failure = (
                f"It returned a value of type {kind}; it must be a user's name, an Authorization or None."
            )
        # Raised here, behind the block, so that the host's exception does not go with it: it may well hold the key.
        _log.error("The key_loader callback failed; the key is not accepted. %s", failure)
        raise ServicesUnavailable("The application could not say whose key it is; its log says why.")


def _told_without_message(error: Exception) -> str:
    """What an exception was and where it was raised; ``users[key]`` is a ``KeyError`` whose message is the key."""
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    where = "".join(traceback.format_tb(error.__traceback__))
    return f"It raised {kind}, whose message is left out because it may show the key:\n{where}"


def _spelled_id(key: str) -> str | None:
    found = _SPELLED.fullmatch(key.strip())
    return None if found is None else found[1]


def _made_id(user: str) -> str:
    name = f"{__name__}:{user}".encode("utf-8", "surrogatepass")
    return hashlib.sha256(name).hexdigest()[:ID_LENGTH]


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.strip().encode("utf-8", "surrogatepass")).digest()
