// The sound of a call: microphone or file in, agent out, through one AudioWorklet. Everything outside of it is at the wire's rate.

import { levelOf, StreamResampler } from "./resampler.js";
import { ofFile, ofMicrophone } from "./problems.js";

// Echo cancellation: the agent must not hear itself in the loudspeaker and stop. Noise suppression takes away what is left of
// the echo, and fans. Gain control: the agent learned voices of -34 to -18 dB, and many microphones are quieter.
const MICROPHONE = { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 };

/** Calls `on.block({user, agent, userLevel, agentLevel, started, depth, margin, underruns})` every 20 ms, `on.flushed(seconds
 *  of sound, milliseconds until silence)`, `on.fileEnded()`, `on.microphoneLost(problem)`, `on.interrupted(bool)`. */
export class Sound {
  constructor(wireRate, on) {
    this.wireRate = wireRate;
    this.on = on;
    this.muted = false;
    this.orders = new Map(); // flushes that were ordered: id -> when
    this.flushes = 0;
  }

  /** Opens the sound card; must follow a click or a key. */
  async open() {
    this.context = new AudioContext({ latencyHint: "interactive" });
    const resumed = this.context.resume(); // at once, within the user's gesture
    await this.context.audioWorklet.addModule(new URL("sound_worklet.js", import.meta.url));
    await resumed;
    const rate = this.context.sampleRate;
    this.userIn = new StreamResampler(rate, this.wireRate);
    this.agentHeard = new StreamResampler(rate, this.wireRate);
    this.restartAgent();
    this.node = new AudioWorkletNode(this.context, "sound", { channelCount: 1, channelCountMode: "explicit", outputChannelCount: [1] });
    this.node.port.onmessage = ({ data }) => (data.flushed === undefined ? this.block(data) : this.flushed(data));
    this.node.connect(this.context.destination);
    this.context.onstatechange = () => this.context.state !== "closed" && this.on.interrupted(this.context.state !== "running");
  }

  /** Takes the microphone `deviceId` ("" for the system's own choice); throws a problem. */
  async useMicrophone(deviceId) {
    let stream;
    try {
      if (!navigator.mediaDevices?.getUserMedia) throw new DOMException("", "NotFoundError");
      const device = deviceId ? { deviceId: { exact: deviceId } } : {};
      stream = await navigator.mediaDevices.getUserMedia({ audio: { ...MICROPHONE, ...device } });
    } catch (error) {
      throw ofMicrophone(error);
    }
    if (this.context.state === "closed") return stream.getTracks().forEach((track) => track.stop());
    this.dropSource();
    const [track] = stream.getAudioTracks();
    track.onended = () => this.on.microphoneLost(ofMicrophone({ name: "NotFoundError" }));
    this.source = this.context.createMediaStreamSource(stream);
    this.source.connect(this.node);
    this.stopSource = () => ((track.onended = null), track.stop());
  }

  /** Takes an audio file as what the caller says; throws a problem. `begin` starts it. */
  async useFile(file, heard) {
    let decoded;
    try {
      decoded = await this.context.decodeAudioData(await file.arrayBuffer());
    } catch {
      throw ofFile(file.name);
    }
    this.dropSource();
    this.file = { decoded, heard };
  }

  /** Starts the file, from its beginning; nothing to do for a microphone. */
  begin() {
    if (!this.file) return;
    const source = new AudioBufferSourceNode(this.context, { buffer: this.file.decoded });
    source.connect(this.node);
    if (this.file.heard) source.connect(this.context.destination);
    source.onended = () => this.on.fileEnded();
    source.start();
    this.source = source;
    this.file = null;
    this.stopSource = () => ((source.onended = null), source.stop());
  }

  dropSource() {
    this.stopSource?.();
    this.source?.disconnect();
    this.source = this.stopSource = this.file = null;
  }

  /** Another stream of the agent begins. */
  restartAgent() {
    this.agentOut = new StreamResampler(this.wireRate, this.context.sampleRate);
    this.node?.port.postMessage({ end: true });
  }

  /** Plays the agent's samples after those that wait; `tag` comes back in a block's `started`. */
  play(samples, tag) {
    const push = this.agentOut.push(samples);
    this.node.port.postMessage({ push, tag }, [push.buffer]);
  }

  /** Makes what waits to be played silent. */
  flush() {
    const flush = ++this.flushes;
    this.orders.set(flush, performance.now());
    this.node.port.postMessage({ flush });
  }

  flushed({ flushed, sounded }) {
    const ordered = this.orders.get(flushed);
    this.orders.delete(flushed);
    this.on.flushed(sounded, performance.now() - ordered);
  }

  block({ user, agent, ...more }) {
    if (this.muted) user.fill(0);
    const levels = { userLevel: levelOf(user), agentLevel: levelOf(agent) };
    this.on.block({ user: this.userIn.push(user), agent: this.agentHeard.push(agent), ...levels, ...more });
  }

  async close() {
    this.dropSource();
    if (this.node) this.node.port.onmessage = null;
    if (this.context && this.context.state !== "closed") await this.context.close();
  }
}

/** The microphones: [{id, name}]; without names until the microphone was allowed once. */
export async function microphones() {
  const devices = (await navigator.mediaDevices?.enumerateDevices?.()) ?? [];
  const named = devices.filter(({ kind, deviceId }) => kind === "audioinput" && !["", "default", "communications"].includes(deviceId));
  return named.map(({ deviceId, label }, n) => ({ id: deviceId, name: label || `Microphone ${n + 1}` }));
}
