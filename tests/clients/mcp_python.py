"""Lists and calls every tool with the official Python SDK, whichever version this environment has: `mcp_python.py URL KEY CALLS`.

Certificates are those of SSL_CERT_FILE. Prints one line an era; an answer that differs from what `CALLS` expects is an AssertionError.
"""

import asyncio
import importlib.metadata
import json
import sys

URL, KEY, CALLS = sys.argv[1], sys.argv[2], json.load(open(sys.argv[3], encoding="utf-8"))
HEADERS = {"Authorization": f"Bearer {KEY}"}
VERSION = importlib.metadata.version("mcp")


def filled(value, ids):
    if isinstance(value, dict):
        return {key: filled(inner, ids) for key, inner in value.items()}
    if isinstance(value, str):
        for name, made in ids.items():
            value = value.replace(f"${name}", made)
    return value


async def every_tool(list_tools, call_tool, era):
    listed = {tool.name for tool in (await list_tools()).tools}
    assert listed == {tool for tool, _, _ in CALLS}, listed ^ {tool for tool, _, _ in CALLS}
    ids = {}
    for tool, arguments, expected in CALLS:
        result = await call_tool(tool, filled(arguments, ids))
        # Newer versions spell it with an underscore.
        failed = getattr(result, "is_error", getattr(result, "isError", None))
        structured = getattr(result, "structured_content", getattr(result, "structuredContent", None))
        assert bool(failed) == (expected == "refused"), (tool, arguments, result)
        assert result.content[0].text, (tool, result)
        if not failed:
            assert isinstance(structured, dict), (tool, result)
            if expected:
                ids[expected] = structured["id"]
    print(f"mcp {VERSION}: {era}: {len(listed)} tools, {len(CALLS)} calls")


async def first():
    import httpx
    from mcp import ClientSession
    from mcp.client.streamable_http import streamable_http_client

    async with httpx.AsyncClient(headers=HEADERS, timeout=60, follow_redirects=True) as http:
        async with streamable_http_client(URL, http_client=http) as (read, write, _), ClientSession(read, write) as session:
            opened = await session.initialize()
            assert opened.instructions.startswith("# "), opened
            await session.send_ping()
            await session.set_logging_level("info")
            await every_tool(session.list_tools, session.call_tool, opened.protocolVersion)


async def second():
    import httpx2
    from mcp import Client
    from mcp.client.streamable_http import streamable_http_client

    for mode in ("legacy", "2026-07-28", "auto"):
        async with httpx2.AsyncClient(headers=HEADERS, timeout=60, follow_redirects=True) as http:
            async with Client(streamable_http_client(URL, http_client=http), mode=mode) as client:
                if mode != "2026-07-28":  # a pinned version asks nothing first
                    assert client.instructions.startswith("# "), client.instructions
                assert client.protocol_version == ("2025-11-25" if mode == "legacy" else "2026-07-28"), client.protocol_version
                await every_tool(client.list_tools, client.call_tool, f"{mode}, {client.protocol_version}")


asyncio.run(first() if VERSION.startswith("1.") else second())
