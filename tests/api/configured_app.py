"""An app whose management routes administer providers and MCP servers, and whose commands do too."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

from flask import Flask

from flask_aibridge.api.access import Access
from flask_aibridge.api.frame import make_management_blueprint
from flask_aibridge.api.management import Management
from flask_aibridge.config import ProviderSettings
from flask_aibridge.errors import ConfigError
from flask_aibridge.services.authorizer import HostAuthorizer
from flask_aibridge.services.configuration.mcp import HostMCPConfigurator
from flask_aibridge.services.configuration.providers import ConfiguredProviders, StoredProviders
from flask_aibridge.services.configuration.sealing import Sealer
from flask_aibridge.services.hosting import HostServices
from flask_aibridge.services.interfaces import MCPConfigurator, MCPServerConfig, ProviderConfigurator
from flask_aibridge.services.memory.store import MemoryStore
from flask_aibridge.services.storage import Store
from tests.api.management_app import PREFIX, TOKEN

KEY = "sk-ant-secret-0123456789"
SEALER = Sealer(["key-" * 10])
SEED = (ProviderSettings("anthropic", "anthropic", "https://api.anthropic.com", (KEY,)),)
TICKETS = MCPServerConfig("tickets", "https://tickets.example/mcp", "^read_")
BROKEN = MCPServerConfig("broken", "https://broken.example/mcp", "(")


def no_store() -> Store:
    raise ConfigError("There is no store: set AIBRIDGE_REDIS_URL, or install the extra [embedded].")


class ConfiguredApp:
    """``app`` has the routes; ``providers`` and ``mcp`` are what they work on, and may be replaced."""

    def __init__(self, *, sealed: bool = True, store: Callable[[], Store] | None = None) -> None:
        memory = MemoryStore()
        self.store: Callable[[], Store] = store or (lambda: memory)
        self.providers: ProviderConfigurator = (
            StoredProviders(self.store, SEALER, SEED) if sealed else ConfiguredProviders(SEED)
        )
        self.mcp: MCPConfigurator = HostMCPConfigurator(
            [TICKETS, BROKEN], self.store, SEALER if sealed else None, lambda: None
        )
        self.app = Flask("host", static_folder=None)
        self.app.extensions["aibridge"] = SimpleNamespace(
            provider_configurator=lambda: self.providers, mcp_configurator=lambda: self.mcp
        )
        self.app.register_blueprint(
            make_management_blueprint(self._management(), PREFIX, parts=("providers", "mcp"))
        )

    def _management(self) -> Management:
        services = HostServices(self.store, HostAuthorizer({}, self.store), self.mcp, self.providers)
        access = Access(authorizer=lambda: services.authorizer, admin_token=TOKEN)
        return Management(
            access,
            self.store,
            lambda: services,
            provider_configurator=lambda: self.providers,
            mcp_configurator=lambda: self.mcp,
        )
