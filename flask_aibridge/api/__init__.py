"""The management routes: what was recorded, API keys, providers, MCP servers, licences.

``frame`` puts them together.
"""
