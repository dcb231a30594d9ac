"""Who is entitled to the public door: licences, their signatures, and the gate that asks for them.

A licence is a compact JWT signed with Ed25519. It is verified once (``reading``: ``signature``, ``claims``,
``revocation``). All that are held (``licenses``) are evaluated together (``entitlements``: ``features``,
``grants``, ``warnings``) into a ``schedule`` per feature, which a :class:`~flask_aibridge.license.gate.Gate`
answers each request from by looking up the time. ``issuing`` is the vendor's side: key pairs and new licences.
"""

from __future__ import annotations

from flask_aibridge.license.gate import Gate
from flask_aibridge.license.schedule import Decision

__all__ = ["Decision", "Gate"]
