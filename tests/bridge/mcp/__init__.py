"""Tests of the MCP client and the toolbox."""
