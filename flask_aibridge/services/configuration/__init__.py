"""Providers and MCP servers: from the app's config, from the store, their secrets sealed."""
