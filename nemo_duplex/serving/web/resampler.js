// Changes the sample rate of a stream, in chunks of any size. Pure: no browser objects.
//
// Sample n of the output is at time n / toRate: a sum of the input around it, weighted by a sinc with a Kaiser window.
// Nothing is shifted in time; a sample is returned as soon as HALF samples of the lower rate after it were pushed.

const HALF = 24;
const BETA = 8; // of the window: about 80 dB of attenuation
const MOST_PHASES = 2048;

const gcd = (a, b) => (b ? gcd(b, a % b) : a);

function bessel(x) {
  let sum = 1;
  for (let term = 1, n = 1; term > sum * 1e-12; n++) sum += term *= (x / 2 / n) ** 2;
  return sum;
}

/** Weights of one output sample that is `fraction` of an input sample after input sample 0, for inputs 1 - reach .. reach. */
function weightsAt(fraction, reach, scale) {
  const weights = new Float32Array(2 * reach);
  let sum = 0;
  for (let k = 0; k < weights.length; k++) {
    const x = (k + 1 - reach - fraction) * scale; // in samples of the lower rate
    const sinc = x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
    const inside = Math.max(0, 1 - (x / HALF) ** 2);
    weights[k] = sinc * bessel(BETA * Math.sqrt(inside)) * (inside > 0);
    sum += weights[k];
  }
  return weights.map((weight) => weight / sum);
}

export class StreamResampler {
  constructor(fromRate, toRate) {
    this.fromRate = fromRate;
    this.toRate = toRate;
    this.reach = Math.ceil(HALF * Math.max(1, fromRate / toRate));
    this.phases = Math.min(toRate / gcd(fromRate, toRate), MOST_PHASES);
    const scale = Math.min(1, toRate / fromRate);
    this.weights = Array.from({ length: this.phases }, (_, p) => weightsAt(p / this.phases, this.reach, scale));
    this.kept = new Float32Array(this.reach); // the input from `keptFrom` on; before sample 0 there is silence
    this.keptFrom = -this.reach;
    this.made = 0;
  }

  /** Takes samples (Float32Array), returns those of the output that are due now. */
  push(samples) {
    if (this.fromRate === this.toRate) return samples.slice();
    const input = new Float32Array(this.kept.length + samples.length);
    input.set(this.kept);
    input.set(samples, this.kept.length);
    const heard = this.keptFrom + input.length;
    const output = [];
    for (;;) {
      const at = this.made * this.fromRate;
      const whole = Math.floor(at / this.toRate);
      if (whole + this.reach >= heard) break;
      const phase = Math.floor(((at - whole * this.toRate) * this.phases) / this.toRate);
      const weights = this.weights[phase];
      const first = whole + 1 - this.reach - this.keptFrom;
      let sum = 0;
      for (let k = 0; k < weights.length; k++) sum += weights[k] * input[first + k];
      output.push(sum);
      this.made++;
    }
    const next = Math.floor((this.made * this.fromRate) / this.toRate) + 1 - this.reach;
    const from = Math.min(input.length, Math.max(0, next - this.keptFrom));
    this.kept = input.slice(from);
    this.keptFrom += from;
    return Float32Array.from(output);
  }
}

/** Float samples as 16-bit ones; what is louder than full scale is clipped. */
export function toInt16(samples) {
  return Int16Array.from(samples, (x) => Math.max(-32768, Math.min(32767, Math.round(x * 32768))));
}

/** 16-bit little-endian samples of a message as floats in -1..1. */
export function fromInt16(buffer) {
  const view = new DataView(buffer);
  return Float32Array.from({ length: view.byteLength >> 1 }, (_, n) => view.getInt16(2 * n, true) / 32768);
}

/** Root mean square. */
export function levelOf(samples) {
  let sum = 0;
  for (const x of samples) sum += x * x;
  return samples.length ? Math.sqrt(sum / samples.length) : 0;
}
