// What the unmodified npm client does against the server: `mem0_npm.mjs URL KEY`, with NODE_EXTRA_CA_CERTS set. A failed assertion is a finding.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import MemoryClient from "mem0ai";

const [url, key] = process.argv.slice(2);
const patient = `MRN ${randomUUID()}`;
const client = new MemoryClient({ apiKey: key, host: url });
const texts = (found) => found.results.map((memory) => memory.memory).sort();

await client.ping();
const told = await client.add([{ role: "user", content: "Allergic to penicillin" }], { userId: patient, runId: "round 1", metadata: { ward: "3" } });
const [first] = told.results ?? told;
assert.equal(first.memory, "Allergic to penicillin");
const more = await client.add([{ role: "user", content: "Walks 20 m" }, { role: "assistant", content: "With a stick" }], { userId: patient, agentId: "nurse bot" });
const both = more.results ?? more;
assert.equal(both.length, 2);

const read = await client.get(first.id);
assert.deepEqual([read.memory, read.userId, read.runId], ["Allergic to penicillin", patient, "round 1"]);
const all = await client.getAll({ filters: { user_id: patient } });
assert.deepEqual(texts(all), ["Allergic to penicillin", "Walks 20 m", "With a stick"]);
assert.equal(all.count, 3);
const page = await client.getAll({ filters: { user_id: patient }, page: 2, pageSize: 2 });
assert.equal(page.results.length, 1);

const found = await client.search("is she allergic?", { filters: { user_id: patient }, topK: 1 });
assert.deepEqual(found.results.map((hit) => hit.id), [first.id]);

await client.update(first.id, { text: "Allergic to penicillin: rash" });
assert.equal((await client.get(first.id)).memory, "Allergic to penicillin: rash");
const history = await client.history(first.id);
assert.deepEqual(history.map((step) => step.event), ["ADD", "UPDATE"]);

await client.batchUpdate(both.map((one) => ({ memoryId: one.id, text: `${one.memory} today` })));
assert.deepEqual(texts(await client.getAll({ filters: { agent_id: "nurse bot", user_id: patient } })), ["Walks 20 m today", "With a stick today"]);
await client.feedback({ memoryId: both[0].id, feedback: "POSITIVE" });
await client.batchDelete([both[1].id]);
assert.equal((await client.getAll({ filters: { user_id: patient } })).count, 2);

const users = await client.users();
assert.ok(users.results.some((entity) => entity.type === "user" && entity.name === patient));

await client.delete(both[0].id);
await assert.rejects(client.get(both[0].id));
await assert.rejects(client.get(randomUUID()));
await client.deleteAll({ userId: patient });
assert.equal((await client.getAll({ filters: { user_id: patient } })).count, 0);
await client.add([{ role: "user", content: "Once more" }], { userId: patient });
await client.deleteUsers({ userId: patient });
assert.equal((await client.getAll({ filters: { user_id: patient } })).count, 0);
await assert.rejects(new MemoryClient({ apiKey: `rm_live_${"0".repeat(48)}`, host: url }).ping());
console.log("npm mem0ai: all of it worked");
process.exit(0);
