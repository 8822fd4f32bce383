// Who spoke when, in seconds of the tape, and the agent's words. Pure.

const pad = (value, digits = 2) => String(value).padStart(digits, "0");

/** 3725.5 -> "01:02:05.500", as WebVTT wants it. */
export function vttTime(seconds) {
  const whole = Math.max(0, Math.round(seconds * 1000));
  const [h, m, s] = [Math.floor(whole / 3600000), Math.floor(whole / 60000) % 60, Math.floor(whole / 1000) % 60];
  return `${pad(h)}:${pad(m)}:${pad(s)}.${pad(whole % 1000, 3)}`;
}

/** 65.4 -> "1:05" */
export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor(whole / 60) % 60;
  return `${hours ? `${hours}:${pad(minutes)}` : minutes}:${pad(whole % 60)}`;
}

export class Transcript {
  constructor() {
    this.turns = []; // {who: "user" | "agent", start, end: null while it goes on, text, interrupted}
  }

  open(who) {
    return this.turns.findLast((turn) => turn.who === who && turn.end === null) ?? null;
  }

  /** A turn begins; one that is still open ends. */
  start(who, time) {
    this.end(who, time);
    const turn = { who, start: time, end: null, text: "", interrupted: false };
    this.turns.push(turn);
    return turn;
  }

  end(who, time) {
    const turn = this.open(who);
    if (turn) turn.end = Math.max(time, turn.start);
    return turn;
  }

  /** The agent's words go on. */
  say(text, time) {
    (this.open("agent") ?? this.start("agent", time)).text += text;
  }

  /** The connection is gone, or the call is over: nobody speaks. */
  endAll(time) {
    return ["user", "agent"].map((who) => this.end(who, time)).filter(Boolean);
  }

  get ordered() {
    return [...this.turns].sort((a, b) => a.start - b.start);
  }

  asText() {
    return this.ordered.map((turn) => `${clock(turn.start)}  ${NAMES[turn.who]}: ${said(turn)}\n`).join("");
  }

  asVtt(now) {
    const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
    const cue = (turn) => {
      const end = Math.max(turn.end ?? now, turn.start + 0.08);
      return `${vttTime(turn.start)} --> ${vttTime(end)}\n<v ${NAMES[turn.who]}>${escaped(said(turn))}\n`;
    };
    return ["WEBVTT\n", ...this.ordered.map(cue)].join("\n");
  }
}

const NAMES = { user: "You", agent: "Agent" };

/** What a turn says, in one line. */
export function said(turn) {
  if (turn.who === "user") return "(speaking)";
  const text = turn.text.replace(/\s+/g, " ").trim() || "(sound without words)";
  return turn.interrupted ? `${text} … (interrupted)` : text;
}
