"""Who is entitled to the public door: licences, their signatures, and the gate that asks for them.

A licence is a compact JWT signed with Ed25519. It is verified once (``signature``, then ``claims``), turned
into an entitlement (``entitlements``) and held by a :class:`~flask_aibridge.license.gate.Gate`, which then
answers each request by comparing the time. ``issuing`` is the vendor's side: key pairs and new licences.
"""

from __future__ import annotations

from flask_aibridge.license.entitlements import Decision
from flask_aibridge.license.gate import Gate

__all__ = ["Decision", "Gate"]
