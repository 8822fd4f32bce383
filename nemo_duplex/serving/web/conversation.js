// A conversation: from the start button to the stop button, through lost connections, on one time axis (the tape).

import { askServer, backoff, Connection } from "./connection.js";
import { BargeIn } from "./barge_in.js";
import { ofEnd, ofServer } from "./problems.js";
import { Sound } from "./sound.js";
import { Tape } from "./tape.js";
import { Timeline } from "./timeline.js";
import { toInt16 } from "./resampler.js";
import { Transcript } from "./transcript.js";

export const WIRE_RATE = 24000;
const MOST_TRIES = 10; // to connect again
const DEAF = 200; // blocks of 20 ms without the least sound: the microphone is muted elsewhere
const HEARD = 0.01; // seconds of sound that were flushed: less is no barge-in

/**
 * Tells what happens by `on.state(state, detail)`, `on.turn(turn)`, `on.measured({...})`, `on.note(text)`.
 *
 * States: "starting"; "connecting"; "waiting" {place}; "live" {again}; "again" {problem, seconds, attempt}: it tries again in so
 * many seconds; "over" {problem}: null if the user stopped it.
 */
export class Conversation {
  constructor(page, options, on) {
    Object.assign(this, { page, options, on });
    this.tape = new Tape(WIRE_RATE);
    this.timeline = new Timeline();
    this.transcript = new Transcript();
    this.recordings = []; // ids of calls that the server records
    this.tries = 0;
    this.calls = 0;
    this.isOver = false;
    this.pending = new Map(); // frames that were not heard yet, by their tag
    this.sound = new Sound(WIRE_RATE, {
      block: (block) => this.block(block),
      flushed: (seconds, milliseconds) => this.flushed(seconds, milliseconds),
      fileEnded: () => on.note("The file is over. The agent hears silence."),
      microphoneLost: (problem) => on.note(`${problem.title} ${problem.cure}`),
      interrupted: (is) => on.note(is ? "The browser paused the sound. Touch the page to go on." : ""),
    });
  }

  /** Opens sound and connection. `source` is {file, heard} or {deviceId}. */
  async start(source) {
    this.isFile = Boolean(source.file);
    this.on.state("starting");
    try {
      await this.sound.open();
      if (source.file) await this.sound.useFile(source.file, source.heard);
      else await this.sound.useMicrophone(source.deviceId);
    } catch (problem) {
      this.stop(problem.title ? problem : { title: "The sound card cannot be opened.", cure: String(problem.message ?? problem) });
      return;
    }
    if (!this.isOver) this.connect();
  }

  connect() {
    clearTimeout(this.timer);
    this.on.state("connecting");
    this.connection = new Connection(this.page, { rate: WIRE_RATE, ...this.options }, {
      waiting: (place) => this.on.state("waiting", { place }),
      ready: (ready) => this.ready(ready),
      frame: (frame, samples) => this.frame(frame, samples),
      problem: (message) => this.on.note(message),
      pong: (seconds) => this.on.measured({ roundTrip: seconds }),
      closed: (ended) => this.closed(ended),
    });
  }

  ready({ id, recording, frame_seconds: frameSeconds, rate }) {
    const again = this.calls++ > 0;
    this.frameSeconds = frameSeconds;
    this.tries = 0;
    this.bargeIn = new BargeIn();
    this.startedAt = this.tape.seconds; // where the samples of this call begin
    if (recording) this.recordings.push(id);
    if (again) this.timeline.mark(this.startedAt, "again");
    else this.sound.begin();
    this.isLive = true;
    this.on.state("live", { again, recording, rate });
  }

  /** 20 ms of both channels, as they met in the sound card. */
  block({ user, agent, userLevel, agentLevel, started, depth, margin, underruns }) {
    if (!this.calls) return; // the tape begins with the first call
    const time = this.tape.seconds;
    this.tape.add(user, agent);
    this.timeline.add(userLevel, agentLevel);
    if (this.isLive) this.connection.send(toInt16(user));
    for (const tag of started) this.heard(tag, time);
    this.checkMicrophone(userLevel);
    this.on.measured({ depth, margin, underruns, unsent: this.connection.unsent });
  }

  /** Says so once if nothing at all comes from the microphone. */
  checkMicrophone(level) {
    if (this.sound.muted || this.isFile) return;
    const deaf = level > 0 ? 0 : (this.deaf ?? 0) + 1;
    if (deaf === DEAF) this.on.note("The microphone gives no sound at all. Is it muted?");
    else if (deaf === 0 && this.deaf >= DEAF) this.on.note("");
    this.deaf = deaf;
  }

  /** A frame came: what the user does is true now, what the agent does is true when it is heard. */
  frame(frame, samples) {
    const { flush, hold } = this.bargeIn.frame(frame);
    const userTime = this.startedAt + frame.index * this.frameSeconds + frame.skipped;
    if (frame.user_started) this.userTurn("start", userTime);
    if (frame.user_stopped) this.userTurn("end", userTime);
    if (flush) {
      this.bargedIn = { speaking: frame.speaking && !frame.turn_started, userTime };
      this.pending.forEach((waiting) => (waiting.held = true));
      this.sound.flush();
    }
    const tag = `${this.calls}:${frame.index}`;
    this.pending.set(tag, { ...frame, held: hold });
    this.sound.play(hold ? new Float32Array(samples.length) : samples, tag);
    this.on.measured({ lateness: frame.lateness, step: frame.step, skipped: frame.skipped });
  }

  userTurn(edge, time) {
    this.timeline[edge]("user", time);
    const turn = this.transcript[edge]("user", time);
    if (turn) this.on.turn(turn);
    if (edge === "end") this.userEnded = time;
  }

  /** The sound of a frame begins to be heard. */
  heard(tag, time) {
    const frame = this.pending.get(tag);
    this.pending.delete(tag);
    if (!frame) return;
    if (frame.turn_started) this.agentTurn("start", time);
    if (frame.text) {
      this.timeline.word(time, frame.text, frame.held);
      if (!frame.held) {
        this.transcript.say(frame.text, time);
        this.on.turn(this.transcript.open("agent"));
      }
    }
    if (frame.turn_ended && !frame.turn_started) this.agentTurn("end", time + this.frameSeconds);
  }

  agentTurn(edge, time) {
    this.timeline[edge]("agent", time);
    const turn = this.transcript[edge]("agent", time);
    if (turn) this.on.turn(turn);
    if (edge === "start" && this.userEnded !== undefined) {
      this.on.measured({ answer: time - this.userEnded });
      this.userEnded = undefined;
    }
  }

  /** What waited to be played is silent now. */
  flushed(seconds, milliseconds) {
    if (!this.bargedIn || (seconds < HEARD && !this.bargedIn.speaking)) return;
    const time = this.tape.seconds;
    const turn = this.transcript.open("agent");
    if (turn) {
      turn.interrupted = true;
      this.agentTurn("end", time);
    }
    this.timeline.mark(time, "barge-in");
    this.on.measured({ bargeIn: milliseconds, dropped: seconds, afterOnset: time - this.bargedIn.userTime });
    this.bargedIn = null;
  }

  /** The connection is over, and the user did not stop it. */
  async closed(ended) {
    const wasLive = this.isLive;
    this.endCall("lost");
    const end = ended && ofEnd(ended.reason);
    if (ended && !end?.again) return this.stop(end);
    if (wasLive) return this.again(end ?? { title: "The connection was lost.", cure: "" }, 0);
    const refusal = ofServer(await askServer(this.page, { rate: WIRE_RATE, ...this.options }), Boolean(this.options.key));
    if (this.isOver) return;
    if (refusal.again === undefined || refusal.again === null) this.stop(refusal);
    else this.again(refusal, refusal.again);
  }

  /** Connects again after a while. */
  again(problem, least) {
    this.tries++;
    const isBusy = least > 0; // the server answers and said when to come again
    if (this.tries > MOST_TRIES && !isBusy) return this.stop({ title: problem.title, cure: "It did not come back. Start again when the network is there." });
    const seconds = Math.max(least, isBusy ? 0 : backoff(this.tries));
    this.on.state("again", { problem, seconds, attempt: this.tries });
    this.timer = setTimeout(() => this.connect(), 1000 * seconds);
  }

  /** The network is there again: no more waiting. */
  hurry() {
    if (this.timer && !this.isLive && !this.isOver) this.connect();
  }

  endCall(mark) {
    if (this.isLive) {
      this.timeline.mark(this.tape.seconds, mark);
      for (const who of ["user", "agent"]) this.timeline.end(who, this.tape.seconds);
      this.transcript.endAll(this.tape.seconds).forEach((turn) => this.on.turn(turn));
      this.sound.restartAgent();
      this.pending.clear();
    }
    this.isLive = false;
  }

  order(command) {
    this.connection?.order(command);
  }

  /** Ends it all. */
  stop(problem = null) {
    if (this.isOver) return;
    this.endCall("end");
    this.isOver = true;
    clearTimeout(this.timer);
    this.connection?.close();
    this.sound.close();
    this.on.state("over", { problem });
  }
}
