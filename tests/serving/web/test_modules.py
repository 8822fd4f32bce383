"""The modules of the page, in the browser that runs them, against values that are known."""

import base64
import io
import json

import numpy as np
import pytest
import soundfile

pytestmark = pytest.mark.slow


# ------------------------------------------------------------------ resampler.js

RESAMPLED = """
const line = new resampler.StreamResampler({from}, {to});
const input = Float32Array.from({{length: {count}}}, (_, n) => Math.sin(2 * Math.PI * {tone} * n / {from}));
const parts = [];
for (let at = 0, k = 0; at < input.length; at += {chunk}, k++) parts.push(...line.push(input.subarray(at, at + {chunk})));
return parts;
"""


def resampled(modules, from_rate, to_rate, tone=1000, chunk=882, count=24000):
    body = RESAMPLED.format(**{"from": from_rate, "to": to_rate, "tone": tone, "chunk": chunk, "count": count})
    return np.array(modules.module(body, "resampler"))


@pytest.mark.parametrize("from_rate, to_rate", [(48000, 24000), (44100, 24000), (24000, 48000), (24000, 44100), (16000, 24000)])
def test_a_tone_keeps_its_time_and_level_at_another_rate(modules, from_rate, to_rate):
    made = resampled(modules, from_rate, to_rate)
    reach = int(np.ceil(24 * max(1, from_rate / to_rate)))
    assert len(made) == -(-(24000 - reach) * to_rate // from_rate)  # what is due: `reach` of the input is awaited
    expected = np.sin(2 * np.pi * 1000 * np.arange(len(made)) / to_rate)
    assert np.abs(made - expected)[200:].max() < 2e-3


def test_what_the_lower_rate_cannot_hold_is_removed(modules):
    assert np.abs(resampled(modules, 48000, 24000, tone=15000))[200:].max() < 1e-3


def test_chunks_of_any_size_give_the_same(modules):
    whole = resampled(modules, 44100, 24000, chunk=24000)
    for chunk in (1, 128, 999):
        assert np.array_equal(resampled(modules, 44100, 24000, chunk=chunk), whole)


def test_equal_rates_change_nothing(modules):
    assert len(resampled(modules, 24000, 24000, count=1000)) == 1000


def test_samples_of_16_bits_are_read_and_written_exactly(modules):
    made = modules.module(
        "const bytes = Uint8Array.from([0, 0, 1, 0, 255, 255, 0, 128, 255, 127]).buffer;"
        "const read = resampler.fromInt16(bytes);"
        "return [[...read], [...resampler.toInt16(read)], [...resampler.toInt16(Float32Array.from([2, -2, 0.5]))]]",
        "resampler",
    )
    assert made[0] == [0, 1 / 32768, -1 / 32768, -1, 32767 / 32768]
    assert made[1] == [0, 1, -1, -32768, 32767]
    assert made[2] == [32767, -32768, 16384]


# ------------------------------------------------------------------ jitter_buffer.js

BUFFER = """
const buffer = new jitter_buffer.JitterBuffer(1000, 0.05);            // 1 sample is 1 ms
const heard = [];
const pull = (count) => {{ const out = new Float32Array(count); buffer.pull(out); heard.push(...out); }};
const push = (count, value, tag = null) => buffer.push(new Float32Array(count).fill(value), tag);
{}
const {{depth, margin, underruns, started: tags, leftOut}} = buffer;
return {{heard, depth, margin, underruns, tags, leftOut}};
"""


def buffered(modules, script):
    return modules.module(BUFFER.format(script), "jitter_buffer")


def test_playback_begins_a_margin_after_the_first_sound_and_tags_come_back_when_heard(modules):
    done = buffered(modules, "pull(10); push(80, 1, 'a'); push(80, 2, 'b'); for (let n = 0; n < 14; n++) pull(10);")
    assert done["heard"] == [0] * 60 + [1] * 80 + [2] * 10
    assert (done["tags"], done["depth"], done["underruns"]) == (["a", "b"], 70, 0)


def test_sound_that_is_late_by_less_than_the_margin_is_in_time(modules):
    done = buffered(
        modules, "push(80, 1); for (let n = 0; n < 12; n++) pull(10); push(80, 1); for (let n = 0; n < 8; n++) pull(10);"
    )
    assert done["heard"] == [0] * 50 + [1] * 150 and done["underruns"] == 0


def test_an_underrun_is_counted_once_and_raises_the_margin_by_what_was_missing(modules):
    done = buffered(modules, "push(80, 1); for (let n = 0; n < 20; n++) pull(10); push(80, 1); pull(30);")
    assert done["underruns"] == 1
    assert done["margin"] == pytest.approx(0.05 + 0.07 + 0.02)
    assert done["heard"][200:] == [0] * 20 + [1] * 10  # 20 ms of safety
    assert done["heard"][120:130] == pytest.approx([1 - n / 10 for n in range(10)])  # faded, as nothing followed


def test_a_stream_that_ended_does_not_run_dry_and_the_next_has_its_margin(modules):
    done = buffered(modules, "push(20, 1); pull(30); buffer.end(); pull(100); pull(100); push(20, 2); pull(60); pull(5);")
    assert done["underruns"] == 0 and done["heard"][-65:] == [0] * 50 + [2] * 15


def test_a_flush_fades_and_then_time_passes_in_silence(modules):
    done = buffered(
        modules,
        "push(80, 1); pull(50); pull(10); heard.length = 0; const n = buffer.flush(0.01); pull(10); pull(65); heard.push(n);",
    )
    assert done["heard"][:10] == pytest.approx([1 - (n + 1) / 10 for n in range(10)])
    assert done["heard"][10:75] == [0] * 65
    assert done["heard"][75] == 70  # samples that were dropped
    assert done["underruns"] == 1  # after 70 ms nothing waits


def test_what_waits_beyond_the_margin_is_left_out_where_the_agent_is_quiet(modules):
    quiet = buffered(modules, "push(400, 0); for (let n = 0; n < 250; n++) { push(10, 0); pull(10); }")
    loud = buffered(modules, "push(400, 0.5); for (let n = 0; n < 250; n++) { push(10, 0.5); pull(10); }")
    assert loud["depth"] == 450 and loud["leftOut"] == 0
    assert quiet["depth"] == pytest.approx(70, abs=10) and quiet["leftOut"] == 450 - quiet["depth"]


def test_no_more_than_a_second_waits(modules):
    done = buffered(modules, "push(700, 1); push(700, 1);")
    assert done["depth"] == 50 and done["leftOut"] == 1400


# ------------------------------------------------------------------ tape.js

WAV = """
const tape_ = new tape.Tape(24000);
for (let n = 0; n < 1203; n++) tape_.add(new Float32Array(7).fill(0.25), new Float32Array(7).fill(n === 1202 ? -1 : 0));
const bytes = new Uint8Array(await tape_.wav().arrayBuffer());
return [btoa(Array.from(bytes, (b) => String.fromCharCode(b)).join("")), tape_.seconds];
"""


def test_the_tape_is_a_stereo_wav_of_exactly_what_was_heard(modules):
    data, seconds = modules.module(WAV, "tape")
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(data)), dtype="float32")
    assert (rate, samples.shape, seconds) == (24000, (8421, 2), 8421 / 24000)
    assert (samples[:, 0] == 0.25).all()
    assert (samples[:-7, 1] == 0).all() and (samples[-7:, 1] == -1).all()


# ------------------------------------------------------------------ barge_in.js

BARGE_IN = """
const rule = new barge_in.BargeIn();
const none = {speaking: false, turn_started: false, turn_ended: false, user_started: false, user_stopped: false};
return frames.map((marks) => {
  const frame = {...none};
  for (const mark of marks.split(" ")) if (mark) frame[mark] = true;
  const {flush, hold} = rule.frame(frame);
  return (flush ? "flush " : "") + (hold ? "hold" : "");
}).map((text) => text.trim());
"""


def barged(modules, *frames):
    return modules.module(f"const frames = {list(frames)}; {BARGE_IN}", "barge_in")


def test_the_agent_is_held_from_the_users_first_frame_until_its_turn_ends(modules):
    done = barged(modules, "speaking", "speaking user_started", "speaking", "speaking turn_ended", "", "", "", "speaking")
    assert done == ["", "flush hold", "hold", "hold", "hold", "hold", "", ""]  # two frames for the end of its sound
    done = barged(modules, "speaking user_started", "speaking turn_ended", "turn_started speaking", "speaking")
    assert done == ["flush hold", "hold", "", ""]


def test_an_agent_that_goes_on_is_heard_again_when_the_user_is_quiet(modules):
    done = barged(modules, "speaking user_started", "speaking", "speaking user_stopped", "speaking")
    assert done == ["flush hold", "hold", "", ""]


def test_an_agent_that_goes_on_is_heard_again_after_two_seconds(modules):
    done = barged(modules, "speaking user_started", *["speaking"] * 30)
    assert done == ["flush hold", *["hold"] * 24, *[""] * 6]


def test_a_new_turn_is_heard_even_while_the_user_speaks(modules):
    assert barged(modules, "speaking user_started", "speaking turn_started turn_ended", "speaking") == ["flush hold", "", ""]
    assert barged(modules, "speaking turn_started user_started", "speaking") == ["flush", ""]


# ------------------------------------------------------------------ transcript.js

TALK = """
const talk = new transcript.Transcript();
talk.start("user", 0.5); talk.end("user", 1.75);
talk.start("agent", 2); talk.say(" The cat", 2.1); talk.say("  <is> black & white.", 2.4);
talk.open("agent").interrupted = true;
talk.start("user", 2.9); talk.end("agent", 3.1);
talk.say(" Yes.", 3661.25);
"""


def test_the_transcript_as_text_in_the_order_of_its_turns(modules):
    assert modules.module(f"{TALK} return talk.asText();", "transcript") == (
        "0:00  You: (speaking)\n"
        "0:02  Agent: The cat <is> black & white. … (interrupted)\n"
        "0:02  You: (speaking)\n"
        "1:01:01  Agent: Yes.\n"
    )


def test_the_transcript_as_subtitles(modules):
    assert modules.module(f"{TALK} return talk.asVtt(3662);", "transcript") == (
        "WEBVTT\n\n00:00:00.500 --> 00:00:01.750\n<v You>(speaking)\n\n"
        "00:00:02.000 --> 00:00:03.100\n<v Agent>The cat &lt;is&gt; black &amp; white. … (interrupted)\n\n"
        "00:00:02.900 --> 01:01:02.000\n<v You>(speaking)\n\n"
        "01:01:01.250 --> 01:01:02.000\n<v Agent>Yes.\n"
    )


def test_all_turns_end_with_the_call(modules):
    ended = modules.module(f"{TALK} return [talk.endAll(3662).map((t) => t.who), talk.turns.map((t) => t.end)];", "transcript")
    assert ended == [["user", "agent"], [1.75, 3.1, 3662, 3662]]


# ------------------------------------------------------------------ timeline.js, picture.js


def test_the_timeline_keeps_levels_and_who_speaks_when(modules):
    done = modules.module(
        "const t = new timeline.Timeline(); for (let n = 0; n < 9000; n++) t.add(n / 9000, 0.5);"
        "t.start('user', 1); t.end('user', 2); t.start('user', 3);"
        "return [t.seconds, t.level('user', 8000, 3), t.level('user', 0, 3), t.level('agent', 8999, 5),"
        "  t.level('agent', 9000, 5),"
        "  [0.9, 1, 1.9, 2, 2.9, 3, 99].map((time) => t.speaks('user', time))]",
        "timeline",
    )
    assert done[0] == 180
    assert done[1:5] == [pytest.approx(8002 / 9000), 0, 0.5, 0]
    assert done[5] == [False, True, True, False, False, True, True]


def test_heights_are_decibels(modules):
    heights = modules.module("return [0, 0.001, 10 ** (-33 / 20), 0.51, 1].map(timeline.height)", "timeline")
    assert heights == pytest.approx([0, 0, 0.5, 1, 1], abs=1e-6)


def test_pieces_become_words_and_words_do_not_cover_each_other(modules):
    words = modules.module(
        "return picture.joined([{time: 1, text: ' Feb', held: false}, {time: 1.1, text: 'ruary', held: false},"
        " {time: 1.2, text: ' is', held: false}, {time: 1.3, text: 'n', held: true}, {time: 1.4, text: ' ', held: false}])"
        ".map(({time, text}) => [time, text])",
        "picture",
    )
    assert words == [[1, "February"], [1.2, "is"], [1.3, "n"]]
    places = modules.module(
        "return picture.placed([0, 10, 20, 30, 300], (x) => x, () => 60, 2, 46, 5).map(({x, row}) => [x, row])", "picture"
    )
    assert places == [[0, 0], [10, 1], [65, 0], [75, 1], [300, 0]]


def test_the_axis_has_a_label_every_step(modules):
    assert modules.module("return [picture.ticks(0, 3.2, 1), picture.ticks(10.5, 14, 2)]", "picture") == [
        [0, 1, 2, 3],
        [12, 14],
    ]


# ------------------------------------------------------------------ connection.js, gauges.js, problems.js


def test_the_address_stands_beside_the_page(modules):
    done = modules.module(
        "const o = {rate: 24000, record: true, key: 'secret'};"
        "return [connection.talkAddress(new URL('https://x.org/agents/'), o, true).href,"
        " connection.talkAddress(new URL('http://x.org/'), {rate: 8000}, false).href]",
        "connection",
    )
    assert done == ["wss://x.org/agents/api/talk?rate=24000&record=1", "http://x.org/api/talk?rate=8000"]


def test_a_key_goes_by_subprotocol_if_it_can_be_one(modules):
    assert modules.module(
        "return [connection.subprotocols('k.1'), connection.subprotocols(''),"
        " ['k.1', 'a b', 'a,b', '', 'ä'].map(connection.isKey)]",
        "connection",
    ) == [["nemo-duplex", "openai-insecure-api-key.k.1"], ["nemo-duplex"], [True, False, False, False, False]]


def test_tries_to_connect_again_come_less_and_less_often(modules):
    waits = modules.module("return [1, 2, 3, 4, 5, 6, 7].map(connection.backoff)", "connection")
    assert waits == [0.5, 1, 2, 4, 8, 8, 8]


def test_gauges_say_their_unit_and_what_is_not_well(modules):
    done = modules.module(
        "return [['step', 0.04], ['step', 0.079], ['answer', 0.5], ['bargeIn', 120], ['buffer', 0.4]]"
        ".map((a) => gauges.reading(...a))",
        "gauges",
    )
    assert [one["text"] for one in done] == ["40 ms", "79 ms", "0.50 s", "120 ms", "400 ms"]
    assert [one["fullness"] for one in done] == pytest.approx([0.5, 0.9875, 0.25, 0.6, 0.8])
    assert [one["isWell"] for one in done] == [True, False, True, True, False]


@pytest.mark.parametrize(
    "answer, key, title, more",
    [
        ({"status": 0}, "", "The server cannot be reached.", {"again": 0}),
        ({"status": 401}, "", "This server asks for a key.", {"key": True}),
        ({"status": 401}, "x", "The server does not know this key.", {"key": True}),
        ({"status": 503, "message": "All 2 lines are busy.", "retryAfter": 7}, "", "The server is full.", {"again": 7}),
        ({"status": 503, "message": "The server is shutting down."}, "", "The server is shutting down.", {"again": 5}),
        ({"status": 429, "message": "Too many."}, "", "Too many calls from here.", {}),
        ({"status": 403, "message": "No."}, "", "The server does not allow calls from this page.", {}),
        ({"status": 500, "message": ""}, "", "The server refused the call.", {}),
    ],
)
def test_every_refusal_has_its_words(modules, answer, key, title, more):
    said = modules.module(
        f"return problems.ofServer({json.dumps({'message': ''} | answer)}, {str(bool(key)).lower()})", "problems"
    )
    assert said.pop("title") == title and said.pop("cure")
    assert {name: value for name, value in said.items() if value is not None} == more


def test_what_the_browser_lacks_is_named(modules):
    worlds = (
        "[{isSecureContext: false}, {isSecureContext: true}, {isSecureContext: true, AudioContext: 1, AudioWorkletNode: 1}]"
    )
    titles = modules.module(f"return {worlds}.map((w) => problems.lacking(w)?.title ?? null)", "problems")
    assert titles == [
        "The browser allows no microphone on this address.",
        "This browser cannot play and record live sound.",
        None,
    ]
