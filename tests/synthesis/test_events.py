"""Sounds that are no turns: where they may be, who makes them, how loud they are, and that each has its entry."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import soundfile

from nemo_duplex.conversation import Conversation
from nemo_duplex.frames import FRAME_RATE
from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis import events
from nemo_duplex.synthesis.cuts import DialogueCuts
from nemo_duplex.synthesis.dialogue_spec import DialogueSpec, Events
from nemo_duplex.synthesis.events import Sound, heard, noise_digest, noise_files, rms
from nemo_duplex.synthesis.mix import Acoustics
from nemo_duplex.synthesis.text.sources import Dialogue, Exchange
from nemo_duplex.synthesis.text.spontaneous import BACKCHANNELS, SIDE_TALK
from nemo_duplex.synthesis.timing import Rhythm
from tests.synthesis.tones import ToneEngine, cast_of

CLEAN = Acoustics(noise=0.0, room=0.0, leak=0.0, level_db=(-20.0, -20.0))
LONG = "This is a long answer, and it goes on for a while, so that a listener has time to say something in between."


class Long:
    """Three exchanges with answers of 6.6 s."""

    def dialogue(self, split, index, rng) -> Dialogue:
        return Dialogue(f"long-{index}", tuple(Exchange(f"Question number {i}?", LONG, "", "f") for i in range(3)))


def cuts(events: Events, acoustics: Acoustics = CLEAN, engine: ToneEngine | None = None, **spec) -> DialogueCuts:
    spec.setdefault("rhythm", Rhythm(barge_in=0.0))
    return DialogueCuts(
        DialogueSpec(events=events, acoustics=acoustics, quiet=spec.pop("quiet", 0.0), **spec), Long(), cast_of(engine)
    )


def events_of(source: DialogueCuts, kind: str, set_name: str = "train", count: int = 12) -> list[tuple[Conversation, dict]]:
    conversations = [source.spoken(set_name, index).conversation for index in range(count)]
    return [(c, event) for c in conversations for event in c.custom.get("events", ()) if event["kind"] == kind]


def answer_at(conversation: Conversation, event: dict):
    return next((t for t in conversation.agent if t.start <= event["start"] and event["end"] <= t.end + 1e-3), None)


def free_of_user_turns(conversation: Conversation, event: dict) -> bool:
    return all(event["end"] <= t.start + 1e-3 or t.end - 1e-3 <= event["start"] for t in conversation.user)


def test_backchannels_come_while_the_agent_speaks_at_the_end_of_its_phrases():
    found = events_of(cuts(Events(backchannel=1.0)), "backchannel")
    assert len(found) > 36, "More than one in a long answer."
    for conversation, event in found:
        answer = answer_at(conversation, event)
        assert answer is not None and free_of_user_turns(conversation, event)
        assert event["speaker"] == "user" and event["text"] in BACKCHANNELS["en"] and -10 <= event["level_db"] <= -2
        assert event["end"] - event["start"] == pytest.approx(0.3 * len(event["text"].replace("-", " ").split()), abs=0.02)
        assert event["start"] - answer.start >= 2.0 - 1e-3
        assert min(abs(event["start"] - w.end) for w in answer.words) < 1e-3, "Where a word ends."
    at_commas = [
        any(abs(e["start"] - w.end) < 1e-3 and w.text in ("answer", "while") for w in answer_at(c, e).words) for c, e in found
    ]
    assert np.mean(at_commas) > 0.2


def test_an_answer_of_a_backchannel_goes_on_as_without_it():
    with_, without = cuts(Events(backchannel=1.0, cough=1.0)), cuts(Events())
    for index in range(3):
        a, b = with_.cut("train", index), without.cut("train", index)
        assert a.supervisions == b.supervisions
        assert np.array_equal(a.load_target_audio(), b.load_target_audio())
        assert not np.array_equal(a.load_audio(), b.load_audio())


def test_backchannels_and_coughs_end_before_a_barge_in():
    source = cuts(Events(backchannel=1.0, cough=1.0), rhythm=Rhythm(barge_in=1.0))
    found = [*events_of(source, "backchannel"), *events_of(source, "cough")]
    assert len(found) > 10
    for conversation, event in found:
        assert answer_at(conversation, event) is not None
        later = [t.start for t in conversation.user if t.start > event["start"]]
        assert event["end"] <= min(later, default=np.inf) - 0.3 + 1e-3


def test_coughs_are_of_all_kinds_while_the_agent_speaks():
    found = events_of(cuts(Events(cough=1.0)), "cough")
    assert {event["text"] for _, event in found} == {"cough", "laugh", "throat"} and len(found) == 36
    for conversation, event in found:
        assert answer_at(conversation, event) is not None and -8 <= event["level_db"] <= 6


def test_side_talk_has_its_room_between_turns_and_the_agent_is_silent():
    found = events_of(cuts(Events(side_talk=1.0)), "side_talk")
    assert len(found) == 36, "After every answer, also the last."
    asked = 0
    for conversation, event in found:
        assert event["speaker"] == "user"
        for turn in conversation.turns:
            assert turn.end <= event["start"] - 0.3 + 1e-3 or turn.start >= event["end"] + 0.3 - 1e-3
        assert conversation.duration >= event["end"] + 1.0 - 1e-3
        asked += event["text"].startswith("Question number")
        assert event["text"] in SIDE_TALK["en"] or event["text"].startswith("Question number")
    assert 4 < asked < 20, "What a user asks the agent is said to others, too."


def test_side_talk_in_a_cut_of_given_length_ends_with_it():
    found = events_of(cuts(Events(side_talk=1.0), duration=12.8), "side_talk", count=40)
    assert len(found) > 20 and max(event["end"] for _, event in found) <= 12.8
    assert all(event["start"] < event["end"] for _, event in found)


def test_a_voice_near_by_is_not_the_users():
    said = []

    class Noting(ToneEngine):
        def speak(self, text, voice):
            said.append((text, voice.id))
            return super().speak(text, voice)

    source = cuts(Events(background_voice=1.0), engine=Noting())
    for index in range(12):
        said.clear()
        conversation = source.spoken("train", index).conversation
        found = [event for event in conversation.custom["events"] if event["kind"] == "background_voice"]
        assert found and {event["speaker"] for event in found} == {"other"}
        assert all(event["end"] <= conversation.duration for event in found)
        others = {voice for text, voice in said if text in SIDE_TALK["en"]}
        assert conversation.custom["voice"] not in others and len(others) <= 1


def test_babble_is_heard_from_the_start_to_the_end_at_its_level():
    source = cuts(Events(babble=1.0, babble_db=(-12.0, -12.0)))
    cut = source.cut("train", 0)
    (event,) = [e for e in cut.custom["events"] if e["kind"] == "babble"]
    assert (event["start"], event["end"], event["level_db"]) == (0.0, round(cut.duration, 4), -12.0)
    channel = cut.load_audio()[0]
    turn = cut.supervisions[0]
    before = channel[1600 : round(turn.start * 16000)]
    assert 20 * np.log10(np.sqrt(np.mean(np.square(before)))) == pytest.approx(-32, abs=4), "Dulled by the way."


def test_impatient_has_the_babble_of_dev_and_nothing_of_the_agents_time():
    source = cuts(Events(0.5, babble=1.0, backchannel=1.0, cough=1.0, side_talk=1.0, background_voice=1.0))
    dev, made = source.spoken("dev", 3), source.spoken("impatient", 3)
    assert {s.kind for s in made.sounds} == {"babble"}
    level = {name: next(s.level_db for s in spoken.sounds if s.kind == "babble") for name, spoken in (("d", dev), ("i", made))}
    assert level["d"] == level["i"]


def test_a_recording_of_noise_is_heard_throughout(tmp_path):
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "street.wav", 0.1 * rng.standard_normal(8000), 8000)
    cut = cuts(Events(noise=1.0, noise_db=(-10.0, -10.0), noise_folder=str(tmp_path))).cut("train", 0)
    (event,) = [e for e in cut.custom["events"] if e["kind"] == "noise"]
    assert event == {
        "kind": "noise",
        "speaker": "other",
        "start": 0.0,
        "end": cut.duration,
        "level_db": -10.0,
        "text": "street.wav",
    }
    channel = cut.load_audio()[0]
    thirds = [np.square(part).mean() for part in np.array_split(channel[: round(cut.supervisions[0].start * 16000)], 3)]
    assert min(thirds) > 0.3 * max(thirds) > 0
    first = noise_digest(str(tmp_path))
    noise_digest.cache_clear()
    soundfile.write(tmp_path / "street.wav", 0.1 * rng.standard_normal(8000), 8000)
    assert noise_digest(str(tmp_path)) != first


def test_a_folder_without_recordings_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("no sound")
    with pytest.raises(InputError, match=f"events.noise_folder: {tmp_path} holds no WAV or FLAC files."):
        noise_files(str(tmp_path))
    soundfile.write(tmp_path / "silent.wav", np.zeros(100), 16000)
    noise_files.cache_clear()
    with pytest.raises(InputError, match="silent.wav is silent. Remove it."):
        cuts(Events(noise=1.0, noise_folder=str(tmp_path))).cut("train", 0)


def test_cuts_without_turns_have_sounds_too():
    source = cuts(Events(cough=1.0, side_talk=1.0, background_voice=1.0), quiet=1.0, duration=12.8)
    cut = source.cut("train", 0)
    kinds = {event["kind"] for event in cut.custom["events"]}
    assert not cut.supervisions and {"cough", "side_talk", "noise"} <= kinds
    assert not cut.load_target_audio().any()
    assert all(0 <= e["start"] < e["end"] <= 12.8 for e in cut.custom["events"])


ALL = Events(hesitation=0.7, backchannel=0.7, cough=0.7, side_talk=0.7, background_voice=0.7, babble=0.5)


@pytest.mark.parametrize("kind", ["backchannel", "cough", "side_talk", "background_voice", "babble"])
def test_no_kind_depends_on_another(kind):
    alone = Events(**{kind: getattr(ALL, kind)}, side_talk=ALL.side_talk) if kind != "side_talk" else Events(side_talk=0.7)
    for index in range(6):
        both = [cuts(spec).spoken("train", index) for spec in (replace(ALL, hesitation=0.0), alone)]
        a, b = ([s.event(1e9) for s in spoken.sounds if s.kind == kind] for spoken in both)
        if kind == "cough":  # one that would lie on a backchannel is left out
            assert all(event in b for event in a)
        else:
            assert a == b


def test_a_share_is_a_share_of_the_answers_or_the_dialogues():
    source = cuts(replace(ALL, hesitation=0.0, backchannel=0.3, cough=0.3, side_talk=0.3, background_voice=0.3, babble=0.3))
    spoken = [source.spoken("train", index) for index in range(40)]
    for kind, of in (("backchannel", 120), ("cough", 120), ("side_talk", 120), ("background_voice", 40), ("babble", 40)):
        with_it = 0
        for s in spoken:
            starts = [sound.start for sound in s.sounds if sound.kind == kind]
            whole = kind in ("background_voice", "babble")
            with_it += (
                bool(starts)
                if whole
                else sum(
                    any(t.start <= x < until for x in starts)
                    for t, until in zip(s.conversation.agent, [*(t.start for t in s.conversation.agent[1:]), 1e9])
                )
            )
        assert with_it / of == pytest.approx(0.3, abs=0.12), kind


def test_everything_at_once_keeps_the_promises_of_a_cut():
    source = cuts(ALL, Acoustics(level_db=(-12.0, -12.0), leak=1.0), duration=25.6)
    for index in range(4):
        cut = source.cut("train", index)
        user, agent = cut.load_audio()[0], cut.load_target_audio()[0]
        assert len(user) == 25.6 * 16000 and len(agent) == 25.6 * 22050
        assert np.abs(user).max() < 1 and np.abs(agent).max() < 1
        events = cut.custom["events"]
        assert [e["start"] for e in events] == sorted(e["start"] for e in events)
        for event in events:
            assert {"kind", "speaker", "start", "end"} <= set(event) and 0 <= event["start"] < event[
                "end"
            ] <= cut.duration + 1e-6
        assert all("hesitations" not in s.custom for s in cut.supervisions)
        assert Conversation.from_cut(cut).duration == FRAME_RATE.time(FRAME_RATE.count(25.6))


def test_a_hesitation_has_its_entry_in_the_time_of_the_cut():
    source = cuts(Events(hesitation=1.0))
    found = events_of(source, "hesitation")
    assert len(found) == 36
    for conversation, event in found:
        turn = next(t for t in conversation.user if t.start - 1e-3 <= event["start"] <= t.end)
        assert event["end"] <= turn.end and event["speaker"] == "user" and event["text"]


def test_sounds_are_placed_at_their_level_to_the_sample():
    tone = np.tile(np.array([0.5, -0.5], dtype=np.float32), 400)
    sounds = [Sound("cough", "user", 0.5, tone, 16000, -6.0), Sound("babble", "other", 0.0, tone, 16000, 0.0, far=True)]
    channel = heard(sounds, 16000, 16000, far=False)
    assert np.flatnonzero(channel)[[0, -1]].tolist() == [8000, 8799]
    assert rms(channel) == pytest.approx(10 ** (-6 / 20), rel=1e-5)
    assert heard(sounds[:1], 16000, 16000, far=True) is None
    assert len(heard([replace(sounds[0], start=0.99)], 16000, 16000, far=False)) == 16000, "What is beyond the end is left out."


def test_the_agents_leaking_voice_has_a_time_for_each_answer():
    source = cuts(Events(), replace(CLEAN, leak=1.0, leak_delay=(0.1, 0.1), leak_decay=(0.2, 0.2), leak_drive=(1.0, 1.0)))
    cut = source.cut("train", 0)
    answers = [s for s in cut.supervisions if s.speaker == "agent"]
    leaks = [event for event in cut.custom["events"] if event["kind"] == "leak"]
    assert [(e["start"], e["end"]) for e in leaks] == [
        (pytest.approx(a.start + 0.1, abs=1e-3), pytest.approx(min(a.end + 0.3, cut.duration), abs=1e-3)) for a in answers
    ]
    channel = cut.load_audio()[0]
    for event in leaks:
        start, end = round(event["start"] * 16000), round((event["end"] - 0.25) * 16000)
        assert (
            np.abs(channel[start - 1000 : start - 40]).max() < 1e-4
            and np.abs(channel[start : start + 400]).max() > 1e-3
            and np.abs(channel[end - 400 : end]).max() > 1e-3
        )


def test_recordings_of_noise_in_memory_have_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(events, "_MOST_BYTES", 2 * 4 * 16000)
    monkeypatch.setattr(events, "_recordings", type(events._recordings)())
    files = [tmp_path / f"{name}.wav" for name in "abc"]
    for file in files:
        soundfile.write(file, np.full(16000, 0.1), 16000)
    first, second = map(events._recording, files[:2])
    assert events._recording(files[0]) is first
    events._recording(files[2])
    assert list(events._recordings) == [files[0], files[2]], "the one that was not used for longest is gone"
    assert events._recording(files[0]) is first and events._recording(files[1]) is not second
    soundfile.write(tmp_path / "long.wav", np.full(80000, 0.1), 16000)
    assert events._recording(tmp_path / "long.wav") is events._recording(tmp_path / "long.wav") and len(events._recordings) == 1
