// The official ext-tasks client drives a task of today: it asks, is answered, completes; a failing one is completed with an error.
// Usage: node tasks.mjs URL, with @modelcontextprotocol/client and @modelcontextprotocol/ext-tasks in the current folder.
import { strict as assert } from "node:assert";
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const load = (name, entry) => {
  const folder = `${process.cwd()}/node_modules/${name}`;
  const { exports } = JSON.parse(readFileSync(`${folder}/package.json`, "utf8"));
  const target = exports[entry].import ?? exports[entry].default ?? exports[entry];
  return import(pathToFileURL(`${folder}/${target.default ?? target}`));
};
const { Client, StreamableHTTPClientTransport } = await load("@modelcontextprotocol/client", ".");
const { createTaskSessionFromClient, resultFromTaskOutcome } = await load("@modelcontextprotocol/ext-tasks", "./client");

const url = new URL(process.argv[2]);
const clientInfo = { name: "ext-tasks", version: "0" };
const clientCapabilities = { elicitation: { form: {} }, extensions: { "io.modelcontextprotocol/tasks": {} } };
const client = new Client(clientInfo, { capabilities: clientCapabilities, versionNegotiation: { mode: { pin: "2026-07-28" } } });
await client.connect(new StreamableHTTPClientTransport(url));

let id = 0;
async function rawDispatch(request) {
  const name = request.params?.name ?? request.params?.taskId;
  const headers = {
    "Content-Type": "application/json",
    Accept: "application/json, text/event-stream",
    "MCP-Protocol-Version": "2026-07-28",
    "Mcp-Method": request.method,
    ...(name === undefined ? {} : { "Mcp-Name": name }),
  };
  const body = JSON.stringify({ jsonrpc: "2.0", id: (id += 1), ...request });
  const text = await (await fetch(url, { method: "POST", headers, body })).text();
  const frames = text.startsWith("{") ? [text] : text.split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6));
  const answer = frames.filter(Boolean).map((frame) => JSON.parse(frame)).find((frame) => "result" in frame || "error" in frame);
  return "error" in answer ? { kind: "error", error: answer.error } : { kind: "result", result: answer.result };
}

let asked = 0;
const session = createTaskSessionFromClient(client, {
  endpointId: "flux",
  rawDispatch,
  v2RequestFraming: { protocolVersion: "2026-07-28", clientInfo, clientCapabilities },
  onInputRequest: async (request) => {
    assert.equal(request.kind, "elicitation");
    asked += 1;
    return { action: "accept", content: { confirm: true } };
  },
});

const execution = await session.callTool("confirm_delete", { filename: "today.txt" });
assert.equal(execution.kind, "task");
const { outcome } = await execution.settle();
assert.equal(resultFromTaskOutcome(outcome).content[0].text, "deleted: True");
assert.equal(asked, 1, "the user was asked once");

const failing = await session.callTool("failing_job", {});
const failed = await failing.settle();
assert.equal(resultFromTaskOutcome(failed.outcome).isError, true);
console.log("ext-tasks: asked once, completed, completed with an error");
await session.close();
await client.close();
