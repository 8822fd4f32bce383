// One connection to `/api/talk` (the protocol stands in serving/protocols/talk.py), and how the server refuses.

import { fromInt16 } from "./resampler.js";

const PING_EVERY = 1000; // milliseconds
const SILENT_FOR = 6000; // a server that says nothing for so long after `ready` is gone
const MOST_UNSENT = 1.0; // seconds of audio that may wait in the browser; then it is not sent

/** The address of the protocol beside the page, for `fetch` or for a WebSocket. */
export function talkAddress(page, { rate, record }, socket) {
  const address = new URL("api/talk", page);
  if (socket) address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
  address.searchParams.set("rate", rate);
  if (record) address.searchParams.set("record", "1");
  return address;
}

/** The subprotocols with which a page sends its key: it can set no header, and an address is logged on its way. */
export const subprotocols = (key) => (key ? ["nemo-duplex", `openai-insecure-api-key.${key}`] : ["nemo-duplex"]);

/** Whether a text can be a key at all. */
export const isKey = (text) => /^[\w!#$%&'*+.^`|~-]+$/.test(text);

/**
 * Asks whether a call would be answered now, as browsers hide the HTTP status with which a WebSocket is refused.
 * Returns {status, message, retryAfter, agent, recordings}; status 0: the server cannot be reached.
 */
export async function askServer(page, options) {
  try {
    const request = { headers: withKey(options.key), cache: "no-store", signal: AbortSignal.timeout(8000) };
    const response = await fetch(talkAddress(page, options, false), request);
    const said = await response.json().catch(() => ({}));
    const retryAfter = Number(response.headers.get("Retry-After")) || null;
    return { status: response.status, message: said.error?.message ?? "", retryAfter, ...(response.ok ? said : {}) };
  } catch {
    return { status: 0, message: "", retryAfter: null };
  }
}

const withKey = (key) => (key ? { Authorization: `Bearer ${key}` } : {});

/** The recording of a call as a Blob; waits for one that is being completed. Throws an Error with the server's words. */
export async function fetchRecording(page, id, key) {
  for (let tries = 20; ; tries--) {
    const response = await fetch(new URL(`api/recordings/${id}.zip`, page), { headers: withKey(key) });
    if (response.ok) return response.blob();
    const said = await response.json().catch(() => ({}));
    if (response.status !== 409 || !tries) throw new Error(said.error?.message ?? `The server answered with status ${response.status}.`);
    await new Promise((go) => setTimeout(go, 500));
  }
}

/** Calls `on.waiting(place)`, `on.ready(ready)`, `on.frame(frame, samples)`, `on.problem(message)`, `on.pong(seconds)`, and
 *  once at the end `on.closed(ended)`: what the server said about the end, null if the connection was lost. */
export class Connection {
  constructor(page, options, on) {
    this.on = on;
    this.ended = null;
    this.unsent = 0; // seconds of audio that could not be sent
    this.isReady = false;
    this.heard = performance.now();
    this.socket = new WebSocket(talkAddress(page, options, true), subprotocols(options.key));
    this.socket.binaryType = "arraybuffer";
    this.socket.onmessage = ({ data }) => this.receive(data);
    this.socket.onclose = () => this.over();
    this.timer = setInterval(() => this.watch(), PING_EVERY);
  }

  receive(data) {
    this.heard = performance.now();
    if (typeof data !== "string") {
      this.on.frame(this.frame, fromInt16(data));
      return;
    }
    const message = JSON.parse(data);
    if (message.type === "frame") this.frame = message; // its sound comes next
    else if (message.type === "ready") this.begin(message);
    else if (message.type === "waiting") this.on.waiting(message.place);
    else if (message.type === "error") this.on.problem(message.message);
    else if (message.type === "pong") this.on.pong((performance.now() - message.sent) / 1000);
    else if (message.type === "ended") this.ended = message;
  }

  begin(ready) {
    this.isReady = true;
    this.bytesPerSecond = 2 * ready.rate;
    this.on.ready(ready);
  }

  /** Sends samples (Int16Array). */
  send(samples) {
    if (this.socket.readyState !== WebSocket.OPEN || !this.isReady) return;
    if (this.socket.bufferedAmount > MOST_UNSENT * this.bytesPerSecond) this.unsent += samples.byteLength / this.bytesPerSecond;
    else this.socket.send(samples);
  }

  /** Sends a command such as {type: "stop"}. */
  order(command) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(command));
  }

  watch() {
    if (!this.isReady) return;
    if (performance.now() - this.heard > SILENT_FOR) this.over();
    else this.order({ type: "ping", sent: performance.now() });
  }

  /** Hangs up; `on.closed` is not called. */
  close() {
    this.on = { closed() {}, frame() {}, ready() {}, waiting() {}, problem() {}, pong() {} };
    this.over();
  }

  over() {
    clearInterval(this.timer);
    this.socket.onclose = this.socket.onmessage = null;
    this.socket.close();
    this.on.closed(this.ended);
  }
}

/** Seconds before try number `attempt` (1, 2, ...) to connect again. */
export const backoff = (attempt) => Math.min(8, 0.5 * 2 ** (attempt - 1));
