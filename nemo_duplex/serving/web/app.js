// The page: buttons and fields in, what a conversation tells out. It holds no rules of its own.

import { askServer, fetchRecording, isKey } from "./connection.js";
import { Conversation, WIRE_RATE } from "./conversation.js";
import { Gauges } from "./gauges.js";
import { Picture } from "./picture.js";
import { lacking, ofServer } from "./problems.js";
import { microphones } from "./sound.js";
import { clock, said } from "./transcript.js";

const $ = (id) => document.getElementById(id);
const page = new URL(".", document.baseURI);
const picture = new Picture($("picture"));
const gauges = new Gauges($("gauges"));
let conversation = null;
let key = sessionStorage.getItem("key") ?? "";
let awake = null; // keeps the screen on
let shownTurns = new Map(); // turn -> its list item

const isOn = () => conversation !== null && !conversation.isOver;
const sourceIsFile = () => document.querySelector("[name=source]:checked").value === "file";

// ------------------------------------------------------------------ what the user does

$("start").onclick = () => (isOn() ? conversation.stop() : start());

function start() {
  const source = sourceIsFile() ? { file: $("file").files[0], heard: $("hear-file").checked } : { deviceId: $("device").value };
  if (sourceIsFile() && !source.file) {
    fail({ title: "No file is chosen.", cure: "Choose an audio file, or the microphone." });
    $("file").focus();
    return;
  }
  const lack = lacking(window);
  if (lack) return fail(lack);
  tellProblem(null);
  gauges.clear();
  shownTurns = new Map();
  $("turns").replaceChildren();
  $("announcer").replaceChildren();
  $("no-turns").hidden = false;
  $("save-recording").hidden = true;
  const options = { record: $("record").checked, key };
  conversation = new Conversation(page, options, { state: showState, turn: showTurn, measured: (m) => measure(m), note: showNote });
  picture.show(null);
  conversation.start(source).then(listMicrophones);
}

$("mute").onclick = () => {
  const muted = !conversation.sound.muted;
  conversation.sound.muted = muted;
  $("mute").setAttribute("aria-pressed", muted);
};

$("hush").onclick = () => conversation.order({ type: "stop" });

$("setup").onchange = () => {
  $("file-options").hidden = !sourceIsFile();
  $("microphone-options").hidden = sourceIsFile();
};

$("device").onchange = () => isOn() && conversation.sound.useMicrophone($("device").value).catch(({ title, cure }) => showNote(`${title} ${cure}`));

$("key-form").onsubmit = (event) => {
  event.preventDefault();
  key = $("key").value.trim();
  if (!isKey(key)) return fail({ title: "This cannot be a key.", cure: "A key has letters, digits and signs, no spaces.", key: true });
  sessionStorage.setItem("key", key);
  askFirst().then(() => $("key-form").hidden && $("start").focus());
};

document.onvisibilitychange = () => {
  if (document.visibilityState === "visible" && isOn()) {
    keepAwake(true);
    conversation.sound.context?.resume();
  }
};
document.addEventListener("pointerdown", () => isOn() && conversation.sound.context?.state !== "running" && conversation.sound.context?.resume());
window.addEventListener("online", () => isOn() && conversation.hurry());
navigator.mediaDevices?.addEventListener?.("devicechange", listMicrophones);

// ------------------------------------------------------------------ what happens

const STATES = {
  starting: () => (sourceIsFile() ? "Reading the file …" : "Waiting for the microphone …"),
  connecting: () => "Connecting …",
  waiting: ({ place }) => `All lines are busy. You are number ${place} in the queue.`,
  live: ({ again }) => (again ? "Connected again: the agent starts anew" : "Connected"),
  again: ({ problem, seconds }) => `${problem.title} Next try in ${Math.max(1, Math.round(seconds))} s.`,
  over: ({ problem }) => (!problem ? "Stopped" : conversation.tape.frames ? "The call is over" : "No call"),
};

function showState(state, detail = {}) {
  $("status").dataset.state = detail.problem && state === "over" ? "failed" : state;
  $("status-text").textContent = STATES[state](detail);
  const on = state !== "over";
  $("start").textContent = on ? "Stop" : "Start again";
  $("start").dataset.does = on ? "stop" : "start";
  for (const field of document.querySelectorAll("#setup input")) field.disabled = on;
  $("mute").disabled = $("hush").disabled = state !== "live";
  $("invitation").hidden = on || conversation.tape.frames > 0;
  if (state === "live") begin(detail);
  if (state === "again" && detail.problem.cure) showNote(detail.problem.cure);
  if (state === "over") end(detail.problem);
}

function begin({ recording }) {
  picture.show(conversation.timeline);
  picture.run();
  keepAwake(true);
  showNote(recording ? "The server records this call." : "");
  for (const id of ["save-audio", "save-text", "save-vtt"]) $(id).disabled = false;
}

function end(problem) {
  picture.stop();
  keepAwake(false);
  showNote("");
  $("mute").setAttribute("aria-pressed", "false");
  if (problem) fail(problem);
  $("save-recording").hidden = conversation.recordings.length === 0;
}

function measure(measured) {
  gauges.add(measured);
  $("clock-text").textContent = clock(conversation.tape.seconds);
}

function showTurn(turn) {
  let item = shownTurns.get(turn);
  if (!item) {
    item = document.createElement("li");
    item.className = turn.who;
    item.append(Object.assign(document.createElement("time"), { textContent: clock(turn.start) }), document.createElement("span"));
    shownTurns.set(turn, item);
    const later = [...shownTurns].find(([other]) => other.start > turn.start)?.[1] ?? null;
    $("turns").insertBefore(item, later);
    $("no-turns").hidden = true;
  }
  const name = Object.assign(document.createElement("b"), { textContent: turn.who === "user" ? "You " : "Agent " });
  const words = turn.who === "user" ? (turn.end === null ? "speak …" : `spoke for ${(turn.end - turn.start).toFixed(1)} s`) : turn.text && said(turn);
  item.lastElementChild.replaceChildren(name, words || "…");
  $("scroll").scrollTop = $("scroll").scrollHeight;
  if (turn.who === "agent" && turn.end !== null) announce(`Agent: ${said(turn)}`);
}

/** For screen readers: whole turns, not every syllable. */
function announce(text) {
  const line = document.createElement("p");
  line.textContent = text;
  $("announcer").append(line);
  while ($("announcer").childElementCount > 5) $("announcer").firstElementChild.remove();
}

function showNote(text) {
  $("note").textContent = text;
}

/** Shows what went wrong; null takes it away. */
function tellProblem(problem) {
  $("alert").hidden = problem === null;
  $("alert").replaceChildren();
  if (problem === null) return;
  $("alert").append(Object.assign(document.createElement("b"), { textContent: problem.title }), problem.cure);
}

function fail(problem) {
  tellProblem(problem);
  $("key-form").hidden = !problem.key;
  if (problem.key) $("key").focus();
}

// ------------------------------------------------------------------ downloads

function save(blob, name) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

$("save-audio").onclick = () => save(conversation.tape.wav(), "conversation.wav");
$("save-text").onclick = () => save(new Blob([conversation.transcript.asText()], { type: "text/plain" }), "conversation.txt");
$("save-vtt").onclick = () => save(new Blob([conversation.transcript.asVtt(conversation.tape.seconds)], { type: "text/vtt" }), "conversation.vtt");

$("save-recording").onclick = async () => {
  showNote("Fetching the recording …");
  try {
    for (const id of conversation.recordings) save(await fetchRecording(page, id, key), `call-${id}.zip`);
    showNote("");
  } catch (error) {
    showNote(error.message);
  }
};

// ------------------------------------------------------------------ around a call

async function keepAwake(on) {
  try {
    if (!on) {
      await awake?.release();
      awake = null;
    } else awake = (await navigator.wakeLock?.request("screen")) ?? null;
  } catch {
    // the battery is low, or the page is hidden: the call goes on without
  }
}

async function listMicrophones() {
  const chosen = $("device").value;
  const first = new Option("System default", "");
  $("device").replaceChildren(first, ...(await microphones()).map(({ id, name }) => new Option(name, id)));
  $("device").value = chosen;
  if ($("device").selectedIndex < 0) $("device").value = "";
}

/** What the server says before anybody calls. */
async function askFirst() {
  const answer = await askServer(page, { rate: WIRE_RATE, key });
  if (isOn()) return;
  $("record-label").hidden = !answer.recordings;
  const promise = answer.recordings ? "The server keeps nothing unless you ask it to." : "The server keeps no recording.";
  $("record-hint").textContent = answer.status === 200 ? promise : "";
  $("key-form").hidden = answer.status !== 401;
  if (answer.status !== 200) fail(ofServer(answer, key !== ""));
  else tellProblem(null);
}

const lack = lacking(window);
if (lack) fail(lack);
else askFirst();
listMicrophones();
