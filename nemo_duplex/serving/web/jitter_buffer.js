// The agent's sound between the network and the loudspeaker. Pure: no browser objects; the worklet runs it.
//
// The agent's stream never stops: 80 ms come every 80 ms, silence included, some of them late. Playback starts `margin` after
// the first sound, so that sound which is late by less is still in time.
//
//   ran dry     an underrun: silence until sound comes; the margin grows by as much as the sound was late
//   no trouble  the margin shrinks slowly, and what waits beyond it is left out where the agent is quiet
//   flush       the user speaks: what waits fades out and becomes silence. Its time still passes, so nothing runs dry

const LEAST = 0.04; // seconds of margin
const MOST = 0.5;
const WINDOW = 2; // seconds between two looks at the margin
const SLACK = 0.02; // what may wait beyond the margin
const SAFETY = 0.02; // more than was needed
const TOO_MUCH = 1.0; // what waits beyond this is left out, quiet or not
const QUIET = 0.004; // peak of a block that may be left out

const peakOf = (samples) => samples.reduce((peak, x) => Math.max(peak, Math.abs(x)), 0);

export class JitterBuffer {
  constructor(sampleRate, margin = 0.08) {
    this.sampleRate = sampleRate;
    this.margin = margin;
    this.depth = 0; // samples that wait
    this.underruns = 0;
    this.leftOut = 0; // samples
    this.started = []; // tags of parts whose first sample was pulled; the reader empties it
    this.parts = [];
    this.open = false; // whether a stream is on: running dry is an underrun
    this.dry = null; // samples of silence since it ran dry
    this.low = Infinity; // the least depth since the last look
    this.lookIn = WINDOW * sampleRate;
    this.excess = 0; // samples to leave out
  }

  /** Takes samples; `tag` comes back in `started` when they are heard. */
  push(samples, tag) {
    if (!this.open) this.append(new Float32Array(Math.round(this.margin * this.sampleRate)), null);
    else if (this.dry !== null) this.resume();
    this.open = true;
    this.append(samples, tag);
    if (this.depth > TOO_MUCH * this.sampleRate) this.drop(this.depth - this.margin * this.sampleRate);
  }

  append(samples, tag) {
    this.parts.push({ samples, from: 0, tag });
    this.depth += samples.length;
  }

  /** Fills `out`; with silence where nothing waits. */
  pull(out) {
    if (this.excess >= out.length && this.depth >= 2 * out.length) this.leaveOut(out);
    const last = this.depth <= out.length;
    const count = this.take(out);
    out.fill(0, count);
    if (last) for (let n = 0; n < count; n++) out[n] *= 1 - n / count; // fades, as nothing follows
    if (this.open && count < out.length) this.ranDry(out.length - count);
    this.low = Math.min(this.low, this.depth);
    if ((this.lookIn -= out.length) <= 0) this.look();
  }

  /** What waits fades out within `fade` seconds, and is silence then. Returns the samples that were not silence. */
  flush(fade = 0.012) {
    const length = Math.round(fade * this.sampleRate);
    let at = 0;
    let sounded = 0;
    for (const { samples, from } of this.parts) {
      for (let n = from; n < samples.length; n++, at++) {
        if (samples[n] !== 0) sounded++;
        samples[n] *= Math.max(0, 1 - (at + 1) / length);
      }
    }
    return sounded;
  }

  /** No more will come: running dry is no underrun. */
  end() {
    this.open = false;
    this.dry = null;
  }

  take(out) {
    let count = 0;
    while (this.parts.length && count < out.length) {
      const part = this.parts[0];
      if (part.from === 0 && part.tag !== null) this.started.push(part.tag);
      const piece = part.samples.subarray(part.from, part.from + out.length - count);
      out.set(piece, count);
      count += piece.length;
      part.from += piece.length;
      if (part.from === part.samples.length) this.parts.shift();
    }
    this.depth -= count;
    return count;
  }

  ranDry(missing) {
    if (this.dry === null) this.underruns++;
    this.dry = (this.dry ?? 0) + missing;
    this.excess = 0;
  }

  /** Sound comes again. Playback is later by the silence already, so little is added. */
  resume() {
    this.append(new Float32Array(Math.round(SAFETY * this.sampleRate)), null);
    this.margin = Math.min(MOST, this.margin + this.dry / this.sampleRate + SAFETY);
    this.dry = null;
  }

  look() {
    this.lookIn = WINDOW * this.sampleRate;
    const allowed = (this.margin + SLACK) * this.sampleRate;
    this.excess = this.low < Infinity ? Math.max(0, this.low - allowed) : 0;
    if (this.low > allowed / 2) this.margin = Math.max(LEAST, 0.95 * this.margin);
    this.low = Infinity;
  }

  /** Leaves out one block if it is quiet. */
  leaveOut(out) {
    const part = this.parts[0];
    const next = part.samples.subarray(part.from, part.from + out.length);
    if (next.length === out.length && peakOf(next) < QUIET) this.drop(out.length);
  }

  drop(count) {
    const dropped = this.take(new Float32Array(Math.floor(count)));
    this.leftOut += dropped;
    this.excess = Math.max(0, this.excess - dropped);
  }
}
