// All conversations as a list that can be filtered. Rows come from the page's data, and are drawn a page at a time, when they are
// shown; the timeline and the events of a row, when it is opened. What comes from a corpus is set as text, never as markup.
(() => {
  const rows = JSON.parse(document.getElementById("rows").textContent);
  const form = document.querySelector(".filters");
  const list = document.querySelector(".list");
  const more = document.querySelector(".more");
  const found = document.querySelector(".found");
  const cards = new Map([...document.querySelectorAll("[data-example]")].map((card) => [Number(card.dataset.example), card]));
  const PAGE = 50;
  let kept = rows;
  let drawn = 0;

  const words = (text) => text.replaceAll("_", " ");
  const eventName = ([, event, verdict]) => words(verdict ? `${event}: ${verdict}` : event);
  rows.forEach((row) => {
    row.happened = new Set(row.events.map(eventName));
    row.searched = `${row.id} ${row.said}`.toLowerCase();
  });

  const element = (name, text, className) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  };
  const options = (select, counts) => {
    for (const [value, count] of counts) {
      const option = element("option", `${value} (${count})`);
      option.value = value;
      select.append(option);
    }
  };
  const counted = (values) => {
    const counts = new Map();
    for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
    return counts;
  };
  options(form.elements.set, counted(rows.map((row) => row.set)));
  options(form.elements.event, [...counted(rows.flatMap((row) => [...row.happened]))].sort());

  // ---- the drawing of a row that was opened
  const SVG = "http://www.w3.org/2000/svg"; // a name: nothing is read from there
  const svg = (name, attributes, title) => {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (title) {
      const told = document.createElementNS(SVG, "title");
      told.textContent = title;
      made.append(told);
    }
    return made;
  };
  const LEFT = 52;
  const SECOND = 40;
  const timeline = (row) => {
    const width = LEFT + row.duration * SECOND + 12;
    const made = svg("svg", { class: "lanes", width, height: 116, viewBox: `0 0 ${width} 116`, role: "img", "aria-label": `Timeline of ${row.id}` });
    const x = (time) => (LEFT + time * SECOND).toFixed(1);
    const step = row.duration > 120 ? 10 : row.duration > 30 ? 5 : 1;
    for (let second = 0; second <= row.duration; second += step) {
      made.append(svg("line", { class: "grid", x1: x(second), x2: x(second), y1: 4, y2: 94 }));
      const tick = svg("text", { class: "tick", x: x(second), y: 110 });
      tick.textContent = `${second} s`;
      made.append(tick);
    }
    [["user", 8, row.user, 26], ["agent", 54, row.agent, 26], ["text", 84, row.text, 4]].forEach(([lane, y, spans, height]) => {
      if (lane !== "text") {
        const name = svg("text", { class: `lane ${lane}`, x: 0, y: y + 17 });
        name.textContent = lane;
        made.append(name);
      }
      spans.forEach(([start, end]) => {
        const title = `${lane === "text" ? "text channel" : lane}: ${start.toFixed(2)} to ${end.toFixed(2)} s`;
        made.append(svg("rect", { class: `speech ${lane}`, x: x(start), y, width: ((end - start) * SECOND).toFixed(1), height, rx: 4 }, title));
      });
    });
    row.events.forEach((event) => {
      const kind = event[4] ? "bad" : ["success", "right", "ok"].includes(event[2]) ? "good" : "other";
      made.append(svg("circle", { class: `event ${kind}`, cx: x(event[0]), cy: 44, r: 5 }, `${event[0].toFixed(2)} s: ${eventName(event)}`));
    });
    return made;
  };
  const table = (row) => {
    const made = element("table");
    const head = made.createTHead().insertRow();
    for (const title of ["Time", "Event", "Verdict", "Latency"]) {
      const cell = element("th", title);
      cell.scope = "col";
      head.append(cell);
    }
    const body = made.createTBody();
    row.events.forEach(([time, event, verdict, latency, fault]) => {
      const line = body.insertRow();
      for (const text of [`${time.toFixed(2)} s`, words(event)]) line.insertCell().textContent = text;
      line.insertCell().append(verdict ? element("span", words(verdict), fault ? "chip bad" : "chip") : "");
      line.insertCell().textContent = latency === null ? "" : `${latency.toFixed(2)} s`;
    });
    return made;
  };
  const scrolled = (content, label) => {
    const made = element("div", undefined, "scroll");
    made.tabIndex = 0;
    made.setAttribute("role", "group");
    made.setAttribute("aria-label", label);
    made.append(content);
    return made;
  };
  const open = (details, row) => {
    details.append(scrolled(timeline(row), `Timeline of ${row.id}`));
    details.append(row.events.length ? scrolled(table(row), `Events of ${row.id}`) : element("p", "Nothing happened.", "muted"));
    if (row.example !== null) {
      const link = element("a", "picture and sound");
      link.href = `#example-${row.example}`;
      details.append(link);
    }
  };

  // ---- the list
  const rowElement = (row) => {
    const details = element("details", undefined, "row");
    const summary = element("summary");
    summary.append(element("span", row.id, "id"), element("small", `${row.set} · ${row.duration.toFixed(0)} s`));
    const chips = element("span", undefined, "chips");
    if (row.example !== null) chips.append(element("span", "with sound", "chip"));
    row.faults.forEach((fault) => chips.append(element("span", fault, "chip bad")));
    if (!row.faults.length) chips.append(element("span", "faultless", "chip good"));
    if (row.stop === "never") chips.append(element("span", "never stops", "chip"));
    else if (row.stop !== null) chips.append(element("span", `stop ${row.stop.toFixed(2)} s`, "chip"));
    if (row.response !== null) chips.append(element("span", `first response ${row.response.toFixed(2)} s`, "chip"));
    summary.append(chips);
    details.append(summary);
    details.addEventListener("toggle", () => details.open && details.childElementCount === 1 && open(details, row));
    return details;
  };
  const draw = () => {
    list.append(...kept.slice(drawn, drawn + PAGE).map(rowElement));
    drawn = Math.min(drawn + PAGE, kept.length);
    more.hidden = drawn === kept.length;
    more.textContent = `Show ${Math.min(PAGE, kept.length - drawn)} more of ${kept.length - drawn}`;
  };
  const time = (value) => (value === "never" ? Number.MAX_VALUE : (value ?? -Number.MAX_VALUE));
  const slowest = (key) => (a, b) => time(b[key]) - time(a[key]);
  const orders = new Map([["stop", slowest("stop")], ["response", slowest("response")], ["id", (a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0)]]);
  const filter = () => {
    const asked = form.elements;
    const terms = asked.text.value.toLowerCase().split(/\s+/).filter(Boolean);
    kept = rows.filter(
      (row) =>
        (!asked.set.value || row.set === asked.set.value) &&
        (!asked.event.value || row.happened.has(asked.event.value)) &&
        (!asked.faulty.checked || row.faults.length) &&
        (!asked.barge_in.checked || row.events.some(([, event]) => event === "barge_in")) &&
        terms.every((term) => row.searched.includes(term)),
    );
    if (orders.has(asked.order.value)) kept = [...kept].sort(orders.get(asked.order.value));
    const heard = new Set(kept.map((row) => row.example).filter((example) => example !== null));
    cards.forEach((card, example) => {
      card.hidden = !heard.has(example);
      if (card.hidden) card.querySelector("audio").pause();
    });
    found.textContent = `${kept.length} of ${rows.length} conversations, ${heard.size} with picture and sound`;
    list.replaceChildren();
    drawn = 0;
    draw();
  };
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(filter));
  more.addEventListener("click", () => {
    const first = drawn;
    draw();
    list.children[first].querySelector("summary").focus();
  });
  filter();
})();
