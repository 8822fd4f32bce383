// OpenAI's agents SDK for JavaScript: RealtimeSession over a WebSocket, from Node (with headers), or as a browser connects (the
// key in a subprotocol, no header).
//
// Job: modules, url (of the WebSocket), key, browser, audio (pcm16 at 24 kHz), steps: "speak", "sleep" seconds, "say" a message,
// "interrupt", "wait" for the type of a server's event.
// Reports: events (of the server, without audio), history (as the SDK keeps it), heard_s, interrupted (how often), errors,
// protocol (the subprotocol that the server chose), failed.

import fs from "fs";
import { createRequire } from "module";
import { pathToFileURL } from "url";

const task = JSON.parse(fs.readFileSync(process.argv[2]));
const require = createRequire(task.modules + "/");
const load = (name) => import(pathToFileURL(require.resolve(name)));
const { RealtimeAgent, RealtimeSession, OpenAIRealtimeWebSocket } = await load("@openai/agents-realtime");
const { default: WebSocket } = await load("ws");

const seen = { events: [], heard_s: 0, interrupted: 0, errors: [], protocol: null, failed: [] };
const options = { url: task.url };
if (task.browser) {
  options.createWebSocket = async ({ url, apiKey }) => {
    const socket = new WebSocket(url, ["realtime", `openai-insecure-api-key.${apiKey}`, "openai-agents-sdk.0.20.0"]);
    socket.on("open", () => { seen.protocol = socket.protocol; });
    return socket;
  };
}
const transport = new OpenAIRealtimeWebSocket(options);
const session = new RealtimeSession(new RealtimeAgent({ name: "agent", instructions: "Answer in one sentence." }), { transport });
let read = 0;
const waiting = [];
transport.on("*", (event) => {
  seen.events.push(event.type === "response.output_audio.delta" ? { ...event, delta: "" } : event);
  waiting.splice(0).forEach((wake) => wake());
});
session.on("audio", (event) => { seen.heard_s += event.data.byteLength / 48000; });
session.on("audio_interrupted", () => { seen.interrupted++; });
session.on("error", (event) => { seen.errors.push(JSON.stringify(event.error?.error ?? String(event.error))); });

const wait = async (type) => {
  const until = Date.now() + 20000;
  for (;;) {
    const place = seen.events.findIndex((event, index) => index >= read && event.type === type);
    if (place >= 0) { read = place + 1; return true; }
    if (Date.now() > until) return false;
    await Promise.race([new Promise((wake) => waiting.push(wake)), new Promise((wake) => setTimeout(wake, 200))]);
  }
};

await session.connect({ apiKey: task.key });
const question = fs.readFileSync(task.audio);
let place = question.length, sent = 0;
const begun = Date.now(), CHUNK = 1920;
const microphone = setInterval(() => {
  while (sent * 40 < Date.now() - begun) {
    const chunk = Buffer.alloc(CHUNK);
    question.copy(chunk, 0, Math.min(place, question.length), Math.min(place + CHUNK, question.length));
    place += CHUNK;
    session.sendAudio(chunk.buffer.slice(chunk.byteOffset, chunk.byteOffset + CHUNK));
    sent++;
  }
}, 10);
for (const [verb, ...rest] of task.steps) {
  if (verb === "speak") place = 0;
  else if (verb === "sleep") await new Promise((wake) => setTimeout(wake, rest[0] * 1000));
  else if (verb === "say") session.sendMessage(rest[0]);
  else if (verb === "interrupt") session.interrupt();
  else if (!(await wait(rest[0]))) { seen.failed.push([verb, ...rest]); break; }
}
clearInterval(microphone);
session.close();
console.log(JSON.stringify({ ...seen, history: session.history }));
process.exit(0);
