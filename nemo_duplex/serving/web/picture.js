// Draws the timeline on a canvas: the user above the axis, the agent below it with its words, marks through both.

import { COLUMN, height } from "./timeline.js";
import { clock } from "./transcript.js";

const BAR = 3; // columns of 20 ms in one bar
const AXIS = 26; // pixels between the lanes, for the times
const WORDS = 52; // pixels below the agent's bars, for its words
const LATE = 80; // pixels that a word may stand right of its time; then it begins the next row
const MARKS = { "barge-in": "barge-in", lost: "connection lost", again: "connected again" };

/** The times that get a label: every `step` seconds from `from` to `to`. */
export function ticks(from, to, step) {
  const first = Math.max(0, Math.ceil(from / step));
  return Array.from({ length: Math.max(0, Math.floor(to / step) - first + 1) }, (_, n) => (first + n) * step);
}

/** Where words stand so that none covers another: at its time, or behind the word before; one that would come `late` pixels too
 *  far right begins the next row, as in a book. */
export function placed(words, xOf, widthOf, rows, late, gap = 5) {
  const ends = new Array(rows).fill(-Infinity);
  let row = 0;
  return words.map((word) => {
    const wanted = xOf(word);
    const next = (row + 1) % rows;
    if (Math.max(...ends) + gap <= wanted) row = 0; // a new beginning
    else if (ends[row] + gap > wanted + late && ends[next] < ends[row]) row = next;
    const x = Math.max(wanted, ends[row] + gap);
    ends[row] = x + widthOf(word);
    return { word, x, row };
  });
}

/** Whole words from pieces of text: a piece that begins without a space goes on the word before, if that is close. */
export function joined(pieces) {
  const words = [];
  for (const piece of pieces) {
    const last = words.at(-1);
    const goesOn = last && !/^\s/.test(piece.text) && !/\s$/.test(last.text) && piece.time - last.until < 0.4 && piece.held === last.held;
    if (goesOn) Object.assign(last, { text: last.text + piece.text, until: piece.time });
    else words.push({ ...piece, until: piece.time });
  }
  return words.map((word) => ({ ...word, text: word.text.trim() })).filter((word) => word.text);
}

export class Picture {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.timeline = null;
    this.stillness = window.matchMedia("(prefers-reduced-motion: reduce)");
    new ResizeObserver(() => this.resize()).observe(canvas);
    const theme = window.matchMedia("(prefers-color-scheme: dark)");
    theme.addEventListener("change", () => this.readColours());
    this.readColours();
  }

  readColours() {
    const style = getComputedStyle(this.canvas);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    this.colours = Object.fromEntries(["user", "agent", "faint", "line", "ink", "soft"].map((name) => [name, colour(name)]));
    this.font = style.fontFamily;
    this.draw();
  }

  resize() {
    const { width, height: tall } = this.canvas.getBoundingClientRect();
    const scale = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(width * scale);
    this.canvas.height = Math.round(tall * scale);
    Object.assign(this, { width, tall, scale });
    this.draw();
  }

  /** Follows a timeline from now on. */
  show(timeline) {
    if (timeline === this.timeline) return;
    this.timeline = timeline;
    this.placedFor = null;
    this.moved = performance.now();
    this.draw();
  }

  /** Scrolls until `stop`: with every picture of the screen, or twice a second where motion is to be reduced. */
  run() {
    if (this.running) return;
    this.running = true;
    let last = 0;
    const step = (now) => {
      if (!this.running) return;
      if (!this.stillness.matches || now - last > 500) {
        last = now;
        this.draw();
      }
      requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  }

  stop() {
    this.running = false;
    this.draw();
  }

  /** The time at the right edge: it moves evenly, although sound comes in blocks. */
  now() {
    const real = this.timeline?.seconds ?? 0;
    if (this.stillness.matches || !this.running) return (this.shown = real);
    const passed = (performance.now() - this.moved) / 1000;
    this.moved = performance.now();
    const ahead = (this.shown ?? real) + passed;
    const drift = real - ahead;
    this.shown = Math.abs(drift) > 0.3 ? real : ahead + drift * 0.1;
    return this.shown;
  }

  draw() {
    if (!this.width || !this.colours) return;
    const { context, scale, width, tall } = this;
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, width, tall);
    const middle = Math.round((tall - AXIS - WORDS) / 2);
    const frame = { middle, lane: middle - 14, below: middle + AXIS, rate: width < 500 ? 56 : 84, now: this.now() };
    frame.x = (time) => width - LATE - (frame.now - time) * frame.rate;
    frame.from = Math.max(0, frame.now - width / frame.rate);
    if (!this.timeline) return;
    this.drawAxis(frame);
    this.drawBars(frame);
    this.drawWords(frame);
    this.drawMarks(frame);
  }

  drawAxis({ middle, below, x, from, now, rate }) {
    const { context, width, colours } = this;
    context.fillStyle = colours.line;
    context.fillRect(0, middle, width, 1);
    context.fillRect(0, below, width, 1);
    context.font = `11px ${this.font}`;
    context.textBaseline = "middle";
    context.textAlign = "center";
    for (const time of ticks(from, now, rate < 60 ? 2 : 1)) {
      context.fillStyle = colours.line;
      context.fillRect(Math.round(x(time)), middle, 1, 5);
      context.fillRect(Math.round(x(time)), below - 4, 1, 5);
      context.fillStyle = colours.soft;
      context.fillText(clock(time), x(time), middle + AXIS / 2 + 1);
    }
  }

  drawBars({ middle, lane, below, x, from, rate }) {
    const { context, timeline, colours } = this;
    const wide = Math.max(2, BAR * COLUMN * rate - 2);
    for (let column = Math.floor(from / COLUMN / BAR) * BAR; column < timeline.columns; column += BAR) {
      const time = column * COLUMN;
      for (const [who, at, sign] of [["user", middle - 5, -1], ["agent", below + 6, 1]]) {
        const tall = Math.max(2, height(timeline.level(who, column, BAR)) * lane);
        context.fillStyle = timeline.speaks(who, time + COLUMN) ? colours[who] : colours.faint;
        context.beginPath();
        context.roundRect(x(time), sign < 0 ? at - tall : at, wide, tall, wide / 2);
        context.fill();
      }
    }
  }

  drawWords({ below, lane, x, rate }) {
    const { context, colours, width } = this;
    context.font = `600 14px ${this.font}`;
    context.textAlign = "left";
    context.textBaseline = "alphabetic";
    const zero = x(0);
    for (const { word, x: at, row } of this.placement(rate)) {
      if (zero + at < -400 || zero + at > width) continue;
      context.fillStyle = word.held ? colours.soft : colours.ink;
      context.fillText(word.text, zero + at, below + lane + 24 + 18 * row);
    }
  }

  /** The words with their places, from time 0 on; computed anew only when there are more of them, so that none jumps. */
  placement(rate) {
    const words = this.timeline.words;
    const state = `${rate} ${words.length} ${words.at(-1)?.time} ${words.at(-1)?.text}`;
    if (state !== this.placedFor) {
      const widthOf = ({ text }) => this.context.measureText(text).width;
      this.places = placed(joined(words), ({ time }) => time * rate, widthOf, 2, LATE);
      this.placedFor = state;
    }
    return this.places;
  }

  drawMarks({ x, from }) {
    const { context, timeline, colours, tall } = this;
    context.font = `600 11px ${this.font}`;
    context.textBaseline = "top";
    for (const { time, kind } of timeline.marks) {
      if (time < from - 2 || !MARKS[kind]) continue;
      const at = Math.round(x(time)) + 0.5;
      context.strokeStyle = colours.ink;
      context.lineWidth = 1;
      context.setLineDash([3, 3]);
      context.beginPath();
      context.moveTo(at, 4);
      context.lineTo(at, tall - 4);
      context.stroke();
      context.setLineDash([]);
      context.fillStyle = colours.ink;
      context.textAlign = "right";
      context.fillText(MARKS[kind], at - 6, 6);
    }
  }
}
