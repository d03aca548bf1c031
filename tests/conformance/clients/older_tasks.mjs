// The official TypeScript SDK of the older era drives a task that asks, a task that fails, and finds both again.
// Usage: node older_tasks.mjs URL, with @modelcontextprotocol/sdk installed in the current folder.
import { strict as assert } from "node:assert";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const here = createRequire(pathToFileURL(`${process.cwd()}/`));
const load = (name) => import(pathToFileURL(here.resolve(name)));
const { Client } = await load("@modelcontextprotocol/sdk/client/index.js");
const { StreamableHTTPClientTransport } = await load("@modelcontextprotocol/sdk/client/streamableHttp.js");
const { CallToolResultSchema, ElicitRequestSchema } = await load("@modelcontextprotocol/sdk/types.js");

const capabilities = { elicitation: { form: {} }, tasks: { requests: { elicitation: { create: {} } } } };
const client = new Client({ name: "older", version: "0" }, { capabilities });
let asked = 0;
client.setRequestHandler(ElicitRequestSchema, async () => {
  asked += 1;
  return { action: "accept", content: { confirm: true } };
});
await client.connect(new StreamableHTTPClientTransport(new URL(process.argv[2])));
await client.listTools();

async function drive(name, args) {
  const seen = [];
  let last;
  for await (const message of client.experimental.tasks.callToolStream({ name, arguments: args }, CallToolResultSchema, { task: { ttl: 60000 } })) {
    seen.push(message.type === "taskStatus" ? message.task.status : message.type);
    last = message;
    if (message.type === "taskCreated") assert.ok(message.task.taskId);
  }
  return { seen, last };
}

const confirmed = await drive("confirm_delete", { filename: "older.txt" });
assert.equal(asked, 1, "the user was asked once");
assert.equal(confirmed.seen[0], "taskCreated");
assert.equal(confirmed.last.type, "result");
assert.equal(confirmed.last.result.content[0].text, "deleted: True");

const failed = await drive("failing_job", {});
assert.ok(["error", "result"].includes(failed.last.type), failed.last.type);

const { tasks } = await client.experimental.tasks.listTasks();
assert.ok(tasks.some((task) => task.status === "completed"));
assert.ok(tasks.some((task) => task.status === "failed"));
console.log("older tasks: asked once, completed, failed, listed");
await client.close();
