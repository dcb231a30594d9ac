"""Tools of MCP servers, put into callers' requests and run by the bridge."""
