// The numbers of a call beside the picture: what was measured lately, and whether it is well.

const STEP_BUDGET = 0.08; // seconds: a frame

const milliseconds = (seconds) => `${Math.round(1000 * seconds)} ms`;

/** The largest of the values that came within the last `seconds`. */
export class Lately {
  constructor(seconds) {
    this.seconds = seconds;
    this.values = []; // {at, value}
  }

  add(value, now) {
    this.values.push({ at: now, value });
    while (this.values[0].at < now - 1000 * this.seconds) this.values.shift();
  }

  get most() {
    return this.values.length ? Math.max(...this.values.map(({ value }) => value)) : null;
  }
}

// Each gauge: the text of a value, how full its bar is (0..1), and from where on it is not well.
const GAUGES = {
  answer: { text: (s) => `${s.toFixed(2)} s`, full: (s) => s / 2, bad: 1 },
  lateness: { text: milliseconds, full: (s) => s / 0.4, bad: 0.5 },
  step: { text: milliseconds, full: (s) => s / STEP_BUDGET, bad: 0.9 },
  buffer: { text: milliseconds, full: (s) => s / 0.5, bad: 0.7 },
  roundTrip: { text: milliseconds, full: (s) => s / 0.4, bad: 0.6 },
  bargeIn: { text: (ms) => `${Math.round(ms)} ms`, full: (ms) => ms / 200, bad: 1 },
};

/** The fullness and the words of a gauge. */
export function reading(name, value) {
  const { text, full, bad } = GAUGES[name];
  const fullness = Math.min(1, Math.max(0, full(value)));
  return { text: text(value), fullness, isWell: full(value) <= bad };
}

export class Gauges {
  constructor(root) {
    this.root = root;
    this.clear();
  }

  clear() {
    this.lately = { lateness: new Lately(2), step: new Lately(2), buffer: new Lately(1) };
    this.last = {};
    this.troubles = { underruns: 0, skipped: 0, unsent: 0 };
    for (const name of Object.keys(GAUGES)) this.show(name, null);
    this.showTroubles();
  }

  /** Takes any of: lateness, step, skipped, depth, underruns, unsent, roundTrip, answer, bargeIn. */
  add(measured) {
    const now = performance.now();
    if (measured.depth !== undefined) this.lately.buffer.add(measured.depth, now);
    for (const name of ["lateness", "step"]) if (measured[name] !== undefined) this.lately[name].add(measured[name], now);
    for (const name of ["answer", "roundTrip", "bargeIn"]) if (measured[name] !== undefined) this.last[name] = measured[name];
    for (const name of Object.keys(this.troubles)) if (measured[name] !== undefined) this.troubles[name] = measured[name];
    if (!this.timer) this.timer = setTimeout(() => this.refresh(), 250);
  }

  refresh() {
    this.timer = null;
    for (const [name, lately] of Object.entries(this.lately)) this.show(name, lately.most);
    for (const [name, value] of Object.entries(this.last)) this.show(name, value);
    this.showTroubles();
  }

  show(name, value) {
    const gauge = this.root.querySelector(`[data-gauge="${name}"]`);
    const meter = gauge.querySelector("[role=meter]");
    const { text, fullness, isWell } = value === null ? { text: "–", fullness: 0, isWell: true } : reading(name, value);
    gauge.querySelector(".value").textContent = text;
    gauge.classList.toggle("bad", !isWell);
    meter.firstElementChild.style.transform = `scaleX(${fullness})`;
    meter.setAttribute("aria-valuenow", Math.round(100 * fullness));
    meter.setAttribute("aria-valuetext", value === null ? "not measured yet" : text);
  }

  showTroubles() {
    const { underruns, skipped, unsent } = this.troubles;
    const parts = [
      `${underruns} ${underruns === 1 ? "underrun" : "underruns"}`,
      `${skipped.toFixed(1)} s skipped by the server`,
      ...(unsent > 0 ? [`${unsent.toFixed(1)} s could not be sent`] : []),
    ];
    this.root.querySelector(".troubles").textContent = parts.join(" · ");
  }
}
