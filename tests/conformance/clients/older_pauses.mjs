// The official TypeScript SDK of the older era, without forms: a workflow that asks is a handle, which is looked at and answered.
// Usage: node older_pauses.mjs URL, with @modelcontextprotocol/sdk in the current folder.
import { strict as assert } from "node:assert";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const here = createRequire(pathToFileURL(`${process.cwd()}/`));
const load = (name) => import(pathToFileURL(here.resolve(name)));
const { Client } = await load("@modelcontextprotocol/sdk/client/index.js");
const { StreamableHTTPClientTransport } = await load("@modelcontextprotocol/sdk/client/streamableHttp.js");

const client = new Client({ name: "older", version: "0" });
await client.connect(new StreamableHTTPClientTransport(new URL(process.argv[2])));
await client.listTools();

const call = (name, args) => client.callTool({ name, arguments: args });
const handle = (await call("confirm_delete", { filename: "older.txt" })).structuredContent;
assert.equal(handle.status, "paused");
assert.equal(handle.questions[0].pause, "confirm");
const again = (await call("confirm_delete", { filename: "older.txt" })).structuredContent;
assert.equal(again.execution_id, handle.execution_id, "the same call joins its execution");
for (let look = 0; look < 4; look += 1) {
  const seen = await call("get_execution", { execution_id: handle.execution_id });
  assert.equal(seen.structuredContent.status, "paused");
}
const resumed = await call("resume_confirm_delete", { execution_id: handle.execution_id, answer: { confirm: true } });
assert.equal(resumed.content[0].text, "deleted: True");
const ended = await call("get_execution", { execution_id: handle.execution_id });
assert.equal(ended.structuredContent.status, "completed");
console.log("older pauses: a handle, joined, looked at, answered, completed");
await client.close();
