"""HTTP without a network: call a WSGI app in this process as if it were a server.

:class:`WSGIPoolManager` is a :class:`urllib3.PoolManager` for any WSGI app; :class:`TransportFactory` makes
the ones that lead to a bridge. Faces for other clients are in the module of the client's name:
:mod:`~flask_aibridge.transport.requests`,
:mod:`~flask_aibridge.transport.httpx`, :mod:`~flask_aibridge.transport.httpx2`.
"""

from __future__ import annotations

from .cancellation import Cancellation
from .factory import Source, TransportFactory
from .urllib3 import WSGIPoolManager

__all__ = ["Cancellation", "Source", "TransportFactory", "WSGIPoolManager"]
