// Lists and calls every tool with the official TypeScript SDKs: `mcp_typescript.mjs URL KEY CALLS`.
// Certificates are those of NODE_EXTRA_CA_CERTS. Prints one line an era; an answer that differs from what CALLS expects is an error.
import assert from "node:assert";
import { readFileSync } from "node:fs";
import * as second from "@modelcontextprotocol/client";
import { Client as FirstClient } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport as FirstTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";

const [url, key, path] = process.argv.slice(2);
const calls = JSON.parse(readFileSync(path, "utf8"));
const options = { requestInit: { headers: { Authorization: `Bearer ${key}` } } };

function filled(value, ids) {
  return JSON.parse(JSON.stringify(value), (_, inner) =>
    typeof inner === "string" ? Object.entries(ids).reduce((text, [name, id]) => text.replaceAll(`$${name}`, id), inner) : inner,
  );
}

async function everyTool(client, era) {
  const listed = new Set((await client.listTools()).tools.map((tool) => tool.name));
  assert.deepStrictEqual(listed, new Set(calls.map(([tool]) => tool)));
  const ids = {};
  for (const [tool, args, expected] of calls) {
    const result = await client.callTool({ name: tool, arguments: filled(args, ids) });
    assert.strictEqual(Boolean(result.isError), expected === "refused", `${tool}: ${JSON.stringify(result)}`);
    assert.ok(result.content[0].text);
    if (!result.isError) {
      assert.strictEqual(typeof result.structuredContent, "object");
      if (expected) ids[expected] = result.structuredContent.id;
    }
  }
  console.log(`${era}: ${listed.size} tools, ${calls.length} calls`);
}

const first = new FirstClient({ name: "test", version: "1" });
const transport = new FirstTransport(new URL(url), options);
await first.connect(transport);
assert.match(first.getInstructions(), /^# /);
await first.ping();
await first.setLoggingLevel("info");
await everyTool(first, `@modelcontextprotocol/sdk: ${transport.protocolVersion}`);
await transport.terminateSession();
await first.close();

for (const mode of ["legacy", "auto", { pin: "2026-07-28" }]) {
  const client = new second.Client({ name: "test", version: "1" }, { versionNegotiation: { mode } });
  await client.connect(new second.StreamableHTTPClientTransport(new URL(url), options));
  assert.match(client.getInstructions(), /^# /);
  await everyTool(client, `@modelcontextprotocol/client: ${JSON.stringify(mode)}`);
  await client.close();
}
