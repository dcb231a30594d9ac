"""What every management route needs: the store, the services, and who is asking."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flask_aibridge.api.access import Access, Viewer

if TYPE_CHECKING:
    from flask_aibridge.api.readiness import ReadinessCheck
    from flask_aibridge.license.holder import LicenseHolder
    from flask_aibridge.services.interfaces import MCPConfigurator, ProviderConfigurator, Services
    from flask_aibridge.services.storage import Store

__all__ = ["Management", "Viewer"]


@dataclass(frozen=True, slots=True)
class Management:
    """The parts that routes work with.

    ``store`` and ``services`` open at the first call and raise ``ServicesUnavailable`` where that cannot be. The
    configurators are those of this host themselves, which routes change things through; without them there is only
    what ``services`` says. ``license_holder`` is asked by the routes of licences alone, ``readiness`` by ``/readyz``.
    """

    access: Access
    store: Callable[[], Store]
    services: Callable[[], Services]
    provider_configurator: Callable[[], ProviderConfigurator] | None = None
    mcp_configurator: Callable[[], MCPConfigurator] | None = None
    license_holder: LicenseHolder | None = None
    readiness: ReadinessCheck | None = None
