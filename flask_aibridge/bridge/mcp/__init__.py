"""MCP servers, asked: which tools a user has there, and what they answer."""
