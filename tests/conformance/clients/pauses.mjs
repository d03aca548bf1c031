// The official TypeScript client of today: a workflow asks, its user answers, the call ends; what is declined stays open and is answered later.
// Usage: node pauses.mjs URL, with @modelcontextprotocol/client in the current folder.
import { strict as assert } from "node:assert";
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const folder = `${process.cwd()}/node_modules/@modelcontextprotocol/client`;
const { exports } = JSON.parse(readFileSync(`${folder}/package.json`, "utf8"));
const entry = exports["."].import ?? exports["."].default ?? exports["."];
const { Client, StreamableHTTPClientTransport } = await import(pathToFileURL(`${folder}/${entry.default ?? entry}`));

const capabilities = { elicitation: { form: {} } };
const client = new Client({ name: "today", version: "0" }, { capabilities, versionNegotiation: { mode: { pin: "2026-07-28" } } });
let answer = { action: "accept", content: { confirm: true } };
let asked = 0;
client.setRequestHandler("elicitation/create", async () => {
  asked += 1;
  return answer;
});
await client.connect(new StreamableHTTPClientTransport(new URL(process.argv[2])));

const call = (name, args) => client.callTool({ name, arguments: args });
const ended = await call("confirm_delete", { filename: "asked.txt" });
assert.equal(ended.content[0].text, "deleted: True");
assert.equal(asked, 1, "the user was asked once");

answer = { action: "decline" };
const handle = (await call("confirm_delete", { filename: "declined.txt" })).structuredContent;
assert.equal(handle.status, "paused");
for (let look = 0; look < 4; look += 1) {
  const seen = await call("get_execution", { execution_id: handle.execution_id });
  assert.equal(seen.structuredContent.status, "paused");
}
const resumed = await call("resume_confirm_delete", { execution_id: handle.execution_id, answer: { confirm: false } });
assert.equal(resumed.content[0].text, "deleted: False");
console.log("today's pauses: asked, answered; declined, looked at, answered later");
await client.close();
