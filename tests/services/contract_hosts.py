"""A host as the services' contract needs one: with keys, providers and MCP servers of every origin."""

from __future__ import annotations

from dataclasses import dataclass

from flask_aibridge.config import ProviderSettings
from flask_aibridge.services import api_keys
from flask_aibridge.services.authorizer import HostAuthorizer
from flask_aibridge.services.configuration.mcp import HostMCPConfigurator
from flask_aibridge.services.configuration.providers import StoredProviders
from flask_aibridge.services.configuration.sealing import Sealer
from flask_aibridge.services.hosting import HostServices
from flask_aibridge.services.interfaces import MCPServerConfig, Scopes
from flask_aibridge.services.storage import Store
from tests.services.contract_records import a_key_row

KEY_ID = "key000000001"
KEY = api_keys.spell(KEY_ID, "S" * api_keys.SECRET_LENGTH)
WRONG_KEY = api_keys.spell(KEY_ID, "T" * api_keys.SECRET_LENGTH)
STATIC_KEY = api_keys.spell("static000001", "U" * api_keys.SECRET_LENGTH)
LOADED_KEY = api_keys.spell("loaded000001", "V" * api_keys.SECRET_LENGTH)
PROVIDER_KEY = "sk-provider-key-1"
TOKEN = "mcp-access-token-1"
SCOPES = Scopes(("main", "open*"), ("claude-*",))


@dataclass(frozen=True)
class Host:
    """A host: its services, and what its administrators hold."""

    store: Store
    providers: StoredProviders
    mcp: HostMCPConfigurator
    services: HostServices


def make_host(store: Store) -> Host:
    """A host with one key of each kind, one provider and one MCP server in its config."""

    def load_token(user: str, server_id: str) -> str | None:
        return "token-of-loaded" if (user, server_id) == ("Zoë", "loaded") else None

    sealer = Sealer(["a secret key that is long enough to be one"])
    seed = ProviderSettings("main", "anthropic", "https://main.example", (PROVIDER_KEY,))
    providers = StoredProviders(lambda: store, sealer, [seed])
    configured = [MCPServerConfig("docs", "https://docs.example/mcp", "^read_", "_all$")]
    mcp = HostMCPConfigurator(configured, lambda: store, sealer, lambda: load_token)
    authorizer = HostAuthorizer(
        {"static": STATIC_KEY}, lambda: store, lambda: lambda key: "loaded" if key == LOADED_KEY else None
    )
    row = a_key_row(
        KEY_ID,
        owner="Zoë",
        display_name="laptop",
        scopes=SCOPES,
        secret_hash=api_keys.secret_hash("S" * api_keys.SECRET_LENGTH),
    )
    store.put_api_key(row)
    return Host(store, providers, mcp, HostServices(lambda: store, authorizer, mcp, providers))
