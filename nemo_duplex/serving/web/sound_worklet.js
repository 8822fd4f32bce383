// Runs on the audio thread: takes what the user says and plays what the agent says, in one processor, so that both have one
// clock. Every 20 ms it sends a block of both to the page, exactly as they met at the loudspeaker and the microphone.
//
// page -> worklet   {push: Float32Array, tag}   {flush: id}   {end: true}
// worklet -> page   {user, agent: Float32Array, started: [tags], depth, margin: seconds, underruns}
//                   {flushed: id, sounded: seconds that were dropped, milliseconds: from the order until silence}

import { JitterBuffer } from "./jitter_buffer.js";

const FADE = 0.012;

class Sound extends AudioWorkletProcessor {
  constructor() {
    super();
    this.buffer = new JitterBuffer(sampleRate);
    this.flushes = []; // ids and the frames at which they are silent
    this.startBlock();
    this.port.onmessage = ({ data }) => this.obey(data);
  }

  obey(order) {
    if (order.push) this.buffer.push(order.push, order.tag);
    else if (order.end) this.buffer.end();
    else if (order.flush !== undefined) {
      const sounded = this.buffer.flush(FADE) / sampleRate;
      this.flushes.push({ id: order.flush, sounded, sent: order.sent, silent: currentFrame + Math.round(FADE * sampleRate) });
    }
  }

  startBlock() {
    this.block = { user: new Float32Array(Math.round(sampleRate / 50)), agent: new Float32Array(Math.round(sampleRate / 50)) };
    this.filled = 0;
  }

  process([input], [output]) {
    const agent = output[0];
    const user = input[0];
    this.buffer.pull(agent);
    for (let n = 1; n < output.length; n++) output[n].set(agent);
    for (let from = 0; from < agent.length; ) {
      const count = Math.min(agent.length - from, this.block.user.length - this.filled);
      if (user) this.block.user.set(user.subarray(from, from + count), this.filled);
      this.block.agent.set(agent.subarray(from, from + count), this.filled);
      from += count;
      if ((this.filled += count) === this.block.user.length) this.sendBlock();
    }
    this.tellFlushed(agent.length);
    return true;
  }

  sendBlock() {
    const { depth, margin, underruns, started } = this.buffer;
    const block = { ...this.block, started: started.splice(0), depth: depth / sampleRate, margin, underruns };
    this.port.postMessage(block, [block.user.buffer, block.agent.buffer]);
    this.startBlock();
  }

  tellFlushed(length) {
    while (this.flushes.length && this.flushes[0].silent <= currentFrame + length) {
      const { id, sounded } = this.flushes.shift();
      this.port.postMessage({ flushed: id, sounded });
    }
  }
}

registerProcessor("sound", Sound);
