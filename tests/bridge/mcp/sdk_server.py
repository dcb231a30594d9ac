"""Servers of the official SDK, as a program: ``sdk_server.py STREAM_PORT JSON_PORT STATELESS_PORT``."""

from __future__ import annotations

import asyncio
import sys
import warnings
from typing import Annotated

warnings.simplefilter("ignore")

import uvicorn  # noqa: E402 - it warns when it is imported
from mcp.server.mcpserver import MCPServer  # noqa: E402
from pydantic import Field  # noqa: E402


def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


def greet(name: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Name"})]) -> str:
    """Greets somebody, and has proxies know whom."""
    return f"Good day, {name}!"


def fail() -> str:
    """Fails."""
    raise ValueError("it was bound to happen")


def made() -> MCPServer:
    server = MCPServer("tests", log_level="CRITICAL")
    for tool in (add, greet, fail):
        server.add_tool(tool)
    return server


async def serve() -> None:
    apps = (
        made().streamable_http_app(),
        made().streamable_http_app(json_response=True),
        made().streamable_http_app(stateless_http=True),
    )
    configs = [
        uvicorn.Config(app, host="127.0.0.1", port=int(port))
        for app, port in zip(apps, sys.argv[1:], strict=True)
    ]
    await asyncio.gather(*(uvicorn.Server(config).serve() for config in configs))


if __name__ == "__main__":
    asyncio.run(serve())
