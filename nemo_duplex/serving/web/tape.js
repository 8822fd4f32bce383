// Both channels as they were heard, from the first sample on: the caller left, the agent right; written as WAV. Pure but for Blob,
// to which finished seconds are handed, so that a browser may keep them outside of its memory.

import { toInt16 } from "./resampler.js";

const SECONDS_PER_BLOB = 10;

/** The 44 bytes before the samples of a 16-bit WAV. */
export function wavHeader(frames, sampleRate, channels) {
  const header = new DataView(new ArrayBuffer(44));
  const bytes = 2 * channels * frames;
  const text = (at, word) => [...word].forEach((letter, n) => header.setUint8(at + n, letter.charCodeAt(0)));
  text(0, "RIFF");
  header.setUint32(4, 36 + bytes, true);
  text(8, "WAVEfmt ");
  header.setUint32(16, 16, true);
  header.setUint16(20, 1, true); // PCM
  header.setUint16(22, channels, true);
  header.setUint32(24, sampleRate, true);
  header.setUint32(28, 2 * channels * sampleRate, true);
  header.setUint16(32, 2 * channels, true);
  header.setUint16(34, 16, true);
  text(36, "data");
  header.setUint32(40, bytes, true);
  return header.buffer;
}

/** Two channels of equal length as bytes: user, agent, user, agent ... */
export function interleaved(user, agent) {
  const bytes = new DataView(new ArrayBuffer(4 * user.length));
  const [left, right] = [toInt16(user), toInt16(agent)];
  for (let n = 0; n < left.length; n++) {
    bytes.setInt16(4 * n, left[n], true);
    bytes.setInt16(4 * n + 2, right[n], true);
  }
  return bytes.buffer;
}

export class Tape {
  constructor(sampleRate) {
    this.sampleRate = sampleRate;
    this.frames = 0;
    this.blobs = [];
    this.recent = [];
  }

  get seconds() {
    return this.frames / this.sampleRate;
  }

  /** Takes the same stretch of time of both channels (Float32Array). */
  add(user, agent) {
    this.recent.push(interleaved(user, agent));
    this.frames += user.length;
    if (this.recent.length >= 50 * SECONDS_PER_BLOB) this.blobs.push(new Blob(this.recent.splice(0)));
  }

  wav() {
    return new Blob([wavHeader(this.frames, this.sampleRate, 2), ...this.blobs, ...this.recent], { type: "audio/wav" });
  }
}
