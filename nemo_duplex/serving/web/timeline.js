// What the picture shows: levels of both channels in columns of 20 ms, words, and marks, in seconds of the tape. Pure.

export const COLUMN = 0.02;
const KEPT = 8192; // columns: 164 s

export class Timeline {
  constructor() {
    this.columns = 0; // since the start
    this.user = new Float32Array(KEPT);
    this.agent = new Float32Array(KEPT);
    this.words = []; // {time, text, held}
    this.marks = []; // {time, kind: "barge-in" | "lost" | "again"}
    this.spans = { user: [], agent: [] }; // {start, end: null while it goes on}
  }

  get seconds() {
    return this.columns * COLUMN;
  }

  /** Levels (root mean square) of the next column. */
  add(user, agent) {
    this.user[this.columns % KEPT] = user;
    this.agent[this.columns % KEPT] = agent;
    this.columns++;
  }

  /** The largest level of `who` in columns from `first`, `count` of them; 0 where there is none. */
  level(who, first, count) {
    let most = 0;
    for (let n = first; n < first + count; n++) {
      if (n >= 0 && n < this.columns && n >= this.columns - KEPT) most = Math.max(most, this[who][n % KEPT]);
    }
    return most;
  }

  word(time, text, held) {
    this.words.push({ time, text, held });
    this.forget(this.words);
  }

  mark(time, kind) {
    this.marks.push({ time, kind });
    this.forget(this.marks);
  }

  start(who, time) {
    this.end(who, time);
    this.spans[who].push({ start: time, end: null });
    this.forget(this.spans[who]);
  }

  end(who, time) {
    const span = this.spans[who].at(-1);
    if (span && span.end === null) span.end = Math.max(span.start, time);
  }

  speaks(who, time) {
    return this.spans[who].some(({ start, end }) => start <= time && (end === null || time < end));
  }

  /** Drops what is out of sight. */
  forget(list) {
    while (list.length > 400) list.shift();
  }
}

/** A level as a height in 0..1: 60 dB below full scale is 0, 6 dB below is 1. */
export function height(level) {
  return level > 0 ? Math.min(1, Math.max(0, (20 * Math.log10(level) + 60) / 54)) : 0;
}
