// The Moshi web UI without its page: its Opus encoder and decoder (opus-recorder, with the UI's settings), its query, its table
// of kinds, and its two rules: the microphone opens at the handshake; after it, 10 s without a message end the call.
//
// Job: url (of the server), audio (pcm16 at 48 kHz), seconds, and silent (the UI then never opens its microphone).
// Reports: kinds (of the server's messages, in order, without audio), text, heard_s, pages, gap_s (longest pause between
// messages after the handshake), close (code, and who closed), failed.

const fs = require("fs");
const path = require("path");
const task = JSON.parse(fs.readFileSync(process.argv[2]));
const packages = (name) => require(path.join(task.modules, name));
delete globalThis.fetch; // the decoder would take it for a browser's, and then look for its code on the network
globalThis.postMessage = () => {};
const { OggOpusEncoder, Module } = packages("opus-recorder/dist/encoderWorker.min.js");
const Decoder = packages("opus-recorder/dist/decoderWorker.min.js");
const WebSocket = packages("ws");

const RATE = 48000, BUFFER = 1920, PATIENCE = 10000;
const query = new URLSearchParams({
  text_temperature: "0.7", text_topk: "25", audio_temperature: "0.8", audio_topk: "250", pad_mult: "0",
  text_seed: "123456", audio_seed: "654321", repetition_penalty_context: "64", repetition_penalty: "1",
});
const seen = { kinds: [], text: "", heard_s: 0, pages: 0, gap_s: 0, close: null, failed: [] };

function decoded(data) {
  const payload = Uint8Array.from(data.subarray(1));
  switch (data[0]) {
    case 0: return { type: "handshake" };
    case 1: return { type: "audio", data: payload };
    case 2: return { type: "text", data: new TextDecoder().decode(payload) };
    case 4: return { type: "metadata", data: JSON.parse(new TextDecoder().decode(payload)) };
    case 5: return { type: "error", data: new TextDecoder().decode(payload) };
    case 6: return { type: "ping" };
    case 7: return { type: "coloredtext", data: new TextDecoder().decode(payload.subarray(1)) };
    default: throw new Error(`unknown kind ${data[0]}`);
  }
}

async function main() {
  await Module.mainReady;
  await Decoder.mainReady;
  const encoder = new OggOpusEncoder({
    numberOfChannels: 1, bufferLength: BUFFER, originalSampleRate: RATE, encoderSampleRate: 24000, encoderFrameSize: 20,
    maxFramesPerPage: 2, encoderApplication: 2049, encoderComplexity: 0, resampleQuality: 3,
  }, Module);
  const decoder = new Decoder.OggOpusDecoder(
    { bufferLength: 960 * RATE / 24000, decoderSampleRate: 24000, outputBufferSampleRate: RATE, resampleQuality: 0 }, Decoder);
  let loud = 0;
  globalThis.postMessage = (buffers) => {
    if (!buffers) return;
    seen.heard_s += buffers[0].length / RATE;
    if (buffers[0].some((sample) => Math.abs(sample) > 0.001)) loud += buffers[0].length / RATE;
  };
  const file = fs.readFileSync(task.audio);
  const question = new Int16Array(file.buffer, file.byteOffset, file.length >> 1);
  const socket = new WebSocket(`${task.url}/api/chat?${query}`);
  socket.binaryType = "nodebuffer";
  let last = 0, timers = [];

  const end = (code, by) => {
    if (seen.close) return;
    seen.close = [code, by];
    timers.forEach(clearInterval);
    console.log(JSON.stringify({ ...seen, loud_s: loud }));
    setTimeout(() => process.exit(0), 50);
  };
  const record = () => {
    const send = (page) => { seen.pages++; socket.send(Buffer.concat([Buffer.from([1]), Buffer.from(page.page)])); };
    send(encoder.generateIdPage());
    send(encoder.generateCommentPage());
    const begun = Date.now();
    let place = 0;
    timers.push(setInterval(() => {
      while (place / RATE * 1000 < Date.now() - begun) {
        const buffer = new Float32Array(BUFFER);
        for (let i = 0; i < BUFFER && place + i < question.length; i++) buffer[i] = question[place + i] / 32768;
        encoder.encode([buffer]).forEach(send);
        place += BUFFER;
      }
    }, 10));
  };
  socket.on("message", (data, binary) => {
    const now = Date.now();
    if (last) seen.gap_s = Math.max(seen.gap_s, (now - last) / 1000);
    if (!binary) { seen.failed.push("a text message"); return; }
    try {
      const message = decoded(data);
      if (message.type === "audio") decoder.decode(message.data);
      else seen.kinds.push(message.type);
      if (message.type === "text") seen.text += message.data;
      if (message.type === "handshake") {
        last = now;
        if (!task.silent) record();
        timers.push(setInterval(() => { if (Date.now() - last > PATIENCE) { socket.close(); end(0, "the UI, after 10 s"); } }, 500));
      }
      if (last) last = now;
    } catch (error) { seen.failed.push(String(error)); }
  });
  socket.on("unexpected-response", (_, response) => { seen.failed.push(`HTTP ${response.statusCode}`); end(0, "the handshake"); });
  socket.on("close", (code) => end(code, "the server"));
  socket.on("error", (error) => { seen.failed.push(String(error)); end(0, "an error"); });
  setTimeout(() => { socket.close(); end(1005, "the user"); }, task.seconds * 1000);
}
main().catch((error) => { console.error(error); process.exit(1); });
