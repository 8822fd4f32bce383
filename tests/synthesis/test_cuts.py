from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest

from nemo_duplex.conversation import Conversation, Turn
from nemo_duplex.synthesis.cuts import DialogueCuts, SpokenConversation, _with_sounds, utterance_cut
from nemo_duplex.synthesis.dialogue_spec import DialogueSpec
from nemo_duplex.synthesis.mix import Acoustics, resample
from nemo_duplex.synthesis.spoken_turns import agent_utterance
from nemo_duplex.synthesis.text.grammar import Grammar
from nemo_duplex.synthesis.text.sources import Dialogue, Exchange
from nemo_duplex.synthesis.timing import Rhythm
from nemo_duplex.synthesis.tts.espeak import EspeakEngine
from nemo_duplex.synthesis.tts.utterance import Utterance
from nemo_duplex.synthesis.tts.voices import NUM_SPEAKERS, voice_data
from tests.synthesis.numbered_dialogues import Numbered, numbered
from tests.synthesis.tones import ToneEngine, cast_of

CLEAN = Acoustics(noise=0.0, room=0.0, leak=0.0)


def cuts(**spec) -> DialogueCuts:
    return DialogueCuts(DialogueSpec(**spec), Grammar(), cast_of())


def test_channels_have_the_same_frames():
    for set_name, index in (("train", 0), ("dev", 0), ("impatient", 0), ("train", 1)):
        cut = cuts(duration=6.4).cut(set_name, index)
        user, agent = cut.load_audio(), cut.load_target_audio()
        assert (cut.recording.sampling_rate, cut.target_audio.sampling_rate) == (16000, 22050)
        assert user.shape[1] % 1280 == 0
        assert cut.custom["voice"].startswith("train" if set_name == "train" else "dev")
        assert user.shape[1] // 1280 == agent.shape[1] // 1764 == round(cut.duration / 0.08)
        assert cut.duration == 6.4 or set_name != "train"


def test_all_speakers_of_a_split_are_drawn():
    source = cuts(quiet=0.0, duration=4.0)
    for split in ("train", "dev"):
        numbers = [int(source.spoken(split, index).conversation.custom["voice"].removeprefix(split)) for index in range(150)]
        assert min(numbers) < 0.05 * NUM_SPEAKERS[split] and 0.95 * NUM_SPEAKERS[split] < max(numbers) < NUM_SPEAKERS[split]


def test_supervisions_are_where_the_sound_is():
    cut = cuts(acoustics=CLEAN, pause=0.0).cut("dev", 3)
    conversation = Conversation.from_cut(cut)
    for speaker, audio, rate in (("user", cut.load_audio()[0], 16000), ("agent", cut.load_target_audio()[0], 22050)):
        speaking = np.zeros(len(audio), dtype=bool)
        for turn in conversation.of(speaker):
            start, end = round(turn.start * rate), round(turn.end * rate)
            speaking[start:end] = True
            assert np.sqrt(np.mean(np.square(audio[start:end]))) > 0.01
        edge = round(0.01 * rate)  # the resampler's filter rings
        outside = ~np.convolve(speaking, np.ones(2 * edge + 1), "same").astype(bool)
        assert outside.any() and np.abs(audio[outside]).max() < 1e-3


class Padding(ToneEngine):
    """An engine of others: 0.4 s of a low hiss before and after the speech, and no word times."""

    def speak(self, text, voice):
        spoken = super().speak(text, voice)
        hiss = 1e-4 * np.random.default_rng(0).standard_normal(round(0.4 * self.sample_rate)).astype(np.float32)
        return Utterance(text, np.concatenate([hiss, spoken.audio, hiss]), self.sample_rate)


def test_turns_are_where_the_sound_is_whatever_silence_an_engine_adds():
    cuts = DialogueCuts(DialogueSpec(acoustics=CLEAN, pause=0.0, rhythm=Rhythm(barge_in=0.0)), Grammar(), cast_of(Padding()))
    cut = cuts.cut("dev", 3)
    for speaker, audio, rate in (("user", cut.load_audio()[0], 16000), ("agent", cut.load_target_audio()[0], 22050)):
        for turn in Conversation.from_cut(cut).of(speaker):
            start, end = round(turn.start * rate), round(turn.end * rate)
            loud = np.flatnonzero(np.abs(audio[start:end]) > 0.01 * np.abs(audio).max())
            assert loud[0] <= 0.012 * rate and end - start - loud[-1] <= 0.012 * rate
    assert agent_utterance("Two words.", cast_of(Padding())).duration == pytest.approx(2 * 0.3 + 0.02, abs=2e-3)


def test_turns_come_back_from_the_cut():
    source, unseen = cuts(pause=1.0), 0
    for index in range(8):
        made, read = source.spoken("dev", index).conversation, Conversation.from_cut(source.cut("dev", index))
        assert len(made.turns) == len(read.turns) >= 4
        for a, b in zip(made.turns, read.turns):
            assert (a.speaker, a.text, a.full_text) == (b.speaker, b.text, b.full_text)
            assert (b.start, b.end) == pytest.approx((a.start, a.end), abs=1e-5)
            assert dict(a.custom) == dict(b.custom)
            assert [w.text for w in a.words] == [w.text for w in b.words] and b.words
        assert all({"answer", "family", "seen", "exchange", "voice", "gap"} <= set(t.custom) for t in read.turns)
        assert {"seed", "index", "voice", "engine", "source", "surroundings"} <= set(read.custom)
        whole = [t for t in read.agent if not t.was_cut]
        assert [t.custom["whole_duration"] for t in whole] == pytest.approx([t.duration for t in whole], abs=1e-3)
        unseen += sum(not t.custom["seen"] for t in read.user)
    assert unseen > 2, "Questions that train never asks."


def test_pauses_lie_inside_user_turns_and_are_silent():
    source, found, places = cuts(acoustics=CLEAN, pause=1.0), 0, set()
    allowed = {exchange.user: exchange.pauses for exchange in Grammar().exchanges}
    for index in range(6):
        cut = source.cut("dev", index)
        audio = cut.load_audio()[0]
        for turn in Conversation.from_cut(cut).user:
            for start, end in turn.custom.get("pauses", []):
                found += 1
                assert turn.start < start < end < turn.end
                assert 0.2 <= end - start <= 0.7
                after = next(word for word in turn.words if word.start > start + 0.1)
                assert after.start == pytest.approx(end, abs=1e-3)
                places.add(allowed[turn.text].index(after.offset))
                assert np.abs(audio[round((start + 0.01) * 16000) : round((end - 0.01) * 16000)]).max() < 1e-3
    assert found > 10 and places >= {0, 1}, "Not always at the first place where the text allows one."


def test_shares_are_what_was_asked_for():
    def count(key, **spec) -> int:
        conversations = [cuts(**spec).spoken("train", i).conversation for i in range(30)]
        if key == "quiet":
            return sum(not c.turns for c in conversations)
        return sum(key in t.custom for c in conversations for t in c.user)

    assert count("pauses", pause=0.0) == 0 and count("quiet", quiet=0.0) == 0
    assert 2 < count("quiet", quiet=0.2) < 11
    users = sum(len(cuts(quiet=0.0).spoken("train", i).conversation.user) for i in range(30))
    assert 0.2 < count("pauses", quiet=0.0) / users < 0.4 and 0.8 < count("pauses", quiet=0.0, pause=1.0) / users <= 1


def test_cuts_of_a_given_length_are_filled_with_one_dialogue_after_the_other():
    conversation = cuts(duration=40.0, quiet=0.0).spoken("train", 0).conversation
    assert conversation.duration == 40.0 and conversation.turns[-1].end > 30.0
    names = conversation.custom["source"].split()
    assert len(names) > 1 and len(set(names)) == len(names) and names[0] == "grammar-0000000"


def test_the_agent_leaks_into_the_users_channel_at_the_users_rate():
    cut = cuts(acoustics=Acoustics(noise=0.0, room=0.0, leak=1.0, leak_db=(-30.0, -30.0)), rhythm=Rhythm(barge_in=0.0)).cut(
        "dev", 0
    )
    answer = Conversation.from_cut(cut).agent[0]
    start, end = round((answer.start + 0.15) * 16000), round((answer.end - 0.15) * 16000)
    leaked, spoken = cut.load_audio()[0][start:end], resample(cut.load_target_audio()[0], 22050, 16000)[start:end]
    assert 20 * np.log10(leaked.std() / spoken.std()) == pytest.approx(-30, abs=1)


def test_the_user_speaks_in_the_voice_of_the_dialogue_and_the_agent_in_its_own():
    said = []

    class Noting(ToneEngine):
        def speak(self, text, voice):
            said.append((text, voice.id))
            return super().speak(text, voice)

    conversation = DialogueCuts(DialogueSpec(quiet=0.0), Grammar(), cast_of(Noting())).spoken("dev", 0).conversation
    assert {voice for text, voice in said if text in {t.text for t in conversation.user}} == {conversation.custom["voice"]}
    assert {voice for text, voice in said if text in {t.full_text or t.text for t in conversation.agent}} == {"agent"}


def test_splits_draw_different_numbers():
    train, dev = (cuts(quiet=0.0).spoken(split, 0).conversation for split in ("train", "dev"))
    assert train.user[0].start != dev.user[0].start and train.custom["voice"][-3:] != dev.custom["voice"][-3:]


def test_a_quiet_cut_has_noise_and_a_silent_agent():
    cut = cuts(quiet=1.0, duration=6.4).cut("train", 0)
    assert not cut.supervisions and cut.load_audio().any() and not cut.load_target_audio().any()
    assert cuts(quiet=1.0).cut("dev", 0).supervisions  # dev has none


def test_impatient_is_dev_with_less_patience():
    source = cuts()
    for index in range(4):
        dev, made = source.cut("dev", index), source.cut("impatient", index)
        questions = Conversation.from_cut(dev).user
        turns = Conversation.from_cut(made).turns
        assert made.custom["source"] == dev.id and made.custom["voice"] == dev.custom["voice"]
        assert made.custom["surroundings"]["level_db"] == dev.custom["surroundings"]["level_db"]
        assert [t.text for t in turns] == [t.text for t in questions] and all(t.speaker == "user" for t in turns)
        assert turns[0].start == pytest.approx(questions[0].start, abs=1e-6)
        answers = [t.full_text or t.text for t in Conversation.from_cut(dev).agent]
        assert made.custom["references"] == [[answer] for answer in answers]
        assert not made.load_target_audio().any()


def test_a_dialogue_depends_on_its_number_and_the_seed_alone():
    a, b = cuts(duration=6.4), cuts(duration=6.4)
    b.cut("train", 9)
    b.cut("dev", 2)
    first, again = a.cut("train", 4), b.cut("train", 4)
    assert first.supervisions == again.supervisions
    assert np.array_equal(first.load_audio(), again.load_audio())
    assert np.array_equal(first.load_target_audio(), again.load_target_audio())
    assert not np.array_equal(first.load_audio(), cuts(duration=6.4, seed=1).cut("train", 4).load_audio())


def test_an_answer_is_the_same_samples_wherever_it_is_given():
    """Then a codec gives it the same codes, and the model one thing to learn."""
    source = DialogueCuts(DialogueSpec(), OneQuestion(), cast_of(EspeakEngine(voice_data())))
    spoken = []
    for index in range(3):
        cut = source.cut("train", index)
        agent = cut.load_target_audio()[0]
        for turn in Conversation.from_cut(cut).agent:
            if not turn.was_cut:
                spoken.append(agent[round(turn.start * 22050) : round(turn.end * 22050)])
    assert len(spoken) >= 2 and len({audio.tobytes() for audio in spoken}) == 1


def test_an_engine_without_word_times_has_no_pauses():
    made = DialogueCuts(DialogueSpec(pause=1.0), Grammar(), cast_of(Padding()))
    conversation = made.spoken("dev", 0).conversation
    assert not any("pauses" in turn.custom for turn in conversation.user)
    assert [t.text for t in conversation.user] == [t.text for t in cuts(pause=1.0).spoken("dev", 0).conversation.user]


# --- languages -------------------------------------------------------------------------------------------------------------


def test_supervisions_say_the_language_that_is_spoken():
    class Hindi(Numbered):
        def dialogue(self, split, index, rng):
            return Dialogue("d", (Exchange("क्या हाल है?", "अच्छा है।", "", "f"), Exchange("How are you?", "Fine.", "", "f")))

    made = DialogueCuts(DialogueSpec(rhythm=Rhythm(barge_in=0.0)), Hindi(lambda n: False), cast_of(EspeakEngine(voice_data())))
    cut = made.cut("dev", 0)
    assert [s.language for s in cut.supervisions] == ["hi", "hi", "en", "en"]
    assert [turn.language for turn in Conversation.from_cut(cut).turns] == ["hi", "hi", "en", "en"]
    assert all(s.language is None for s in cuts().cut("dev", 0).supervisions), "Tones are in no language."


def test_a_dialogue_speaks_its_language():
    asked = []

    class Asked(ToneEngine):
        def speak(self, text, voice):
            asked.append(voice.language)
            return super().speak(text, voice)

    numbered(Numbered(lambda n: False), Asked()).spoken("dev", 0)
    assert asked == ["en", "en"]
    DialogueCuts(DialogueSpec(quiet=0.0), OneQuestion(), cast_of(Asked())).spoken("dev", 0)
    assert set(asked[2:]) == {None}


# --- the agent alone, and unasked ------------------------------------------------------------------------------------------


def test_a_cut_of_an_utterance():
    cut = utterance_cut("agent-0", Utterance("Goodbye.", np.full(22050, 0.25, np.float32), 22050, (), "en"))
    assert (cut.id, cut.duration, cut.recording.sampling_rate) == ("agent-0", 1.0, 22050)
    assert (cut.supervisions[0].text, cut.supervisions[0].speaker, cut.supervisions[0].language) == ("Goodbye.", "agent", "en")
    assert np.abs(cut.load_audio() - 0.25).max() < 1e-3


class OneQuestion:
    def dialogue(self, split, index, rng) -> Dialogue:
        exchange = Exchange("What is the capital of France?", "The capital of France is Paris.", "Paris", "capital")
        return Dialogue(f"one-{index}", (exchange, replace(exchange), replace(exchange)))


class Announcements:
    def dialogue(self, split, index, rng) -> Dialogue:
        said = Exchange("", "The train is late.", "", "announcement", given=True)
        return Dialogue("d", (said, Exchange("Which train is it?", "The one to Rome.", "Rome", "f")))


def test_where_the_agent_speaks_unasked_the_user_is_silent():
    made = DialogueCuts(DialogueSpec(quiet=0.0, acoustics=CLEAN, rhythm=Rhythm(barge_in=0.0)), Announcements(), cast_of())
    cut = made.cut("train", 0)
    conversation = Conversation.from_cut(cut)
    assert [(t.speaker, t.text) for t in conversation.turns] == [
        ("agent", "The train is late."), ("user", "Which train is it?"), ("agent", "The one to Rome."),
    ]  # fmt: skip
    assert [t.custom.get("given") for t in conversation.turns] == [True, None, None]
    before = cut.load_audio()[0][: round((conversation.user[0].start - 0.01) * 16000)]
    assert len(before) > 16000 and not np.abs(before).max() > 1e-3


# --- what is off changes nothing ---------------------------------------------------------------------------------------------


class Fixed:
    """Two to four exchanges of fixed words, however the built-in dialogues grow."""

    def dialogue(self, split, index, rng) -> Dialogue:
        answer = "The number that comes after it is {} plus one more."
        user = "What is the number after {} of them?"
        count = int(rng.integers(2, 5))
        exchanges = (Exchange(user.format(i), answer.format(i), str(i), "f", pauses=(8, 12)) for i in range(count))
        return Dialogue(f"fixed-{index}", tuple(exchanges))


#: SHA-256 before there were events: of the supervisions and the surroundings, of the user's samples in 16 bits, of the agent's.
BEFORE = {
    ("train", 0, None): ("f6ad23caf5ad", "99a027f227a3", "a5849fcfff95"),
    ("train", 1, None): ("2aa667f05e49", "4fc2860fb4bc", "e081f4eb4dee"),
    ("dev", 0, None): ("4ec0d436361f", "c55621e06bc5", "5b4476bbebb7"),
    ("dev", 2, None): ("bbc7b8af4c3a", "5b2150635fd6", "cce80f213fb5"),
    ("impatient", 0, None): ("3e67bd3b94a0", "658fbf8eae8e", "3d29c5027176"),
    ("train", 0, 12.8): ("6236cc7981ba", "38340176c9eb", "d8db7cd3e6f5"),
}


@pytest.mark.parametrize("set_name, index, duration", BEFORE)
def test_with_all_that_is_new_off_a_cut_has_the_bytes_that_it_had(set_name, index, duration):
    cut = DialogueCuts(DialogueSpec(duration=duration), Fixed(), cast_of()).cut(set_name, index)
    written = json.dumps([s.to_dict() for s in cut.supervisions], sort_keys=True)
    written += json.dumps(cut.custom["surroundings"], sort_keys=True)
    samples = [(audio[0] * 32768).round().astype(np.int16).tobytes() for audio in (cut.load_audio(), cut.load_target_audio())]
    made = tuple(hashlib.sha256(data).hexdigest()[:12] for data in (written.encode(), *samples))
    assert made == BEFORE[set_name, index, duration]


# --- dialogues in a row ------------------------------------------------------------------------------------------------------


def test_pairs_of_a_source_are_concatenated_to_two_turns():
    """The paper's Table 1: two question and answer pairs of one dataset, at random."""
    single, double = (numbered(Numbered(lambda n: False, count=5), concatenate=count) for count in (1, 2))
    seconds = []
    for index in range(20):
        one, two = single.spoken("train", index), double.spoken("train", index)
        assert len(one.conversation.user) == 1 and len(two.conversation.user) == 2 == len(two.conversation.agent)
        assert one.conversation.user[0] == two.conversation.user[0], "The first pair stays what it was."
        assert two.sources[0] == f"n{index % 5}" and two.sources[1] != two.sources[0]
        assert two.conversation.custom["source"] == " ".join(two.sources)
        seconds.append(two.sources[1])
        gap = two.conversation.user[1].start - two.conversation.agent[0].end
        assert two.conversation.user[1].custom["gap"] == pytest.approx(gap, abs=1e-3)
    assert len(set(seconds)) == 5
    assert [s for s in double.cut("dev", 3).supervisions if s.speaker == "user"][1].text.startswith("Question")


def test_a_source_of_one_dialogue_is_concatenated_with_itself():
    assert numbered(Numbered(lambda n: False, count=1), concatenate=3).spoken("train", 0).sources == ("n0", "n0", "n0")


def test_what_is_an_event_is_in_no_turn_though_there_is_no_event():
    turn = Turn("user", 0.0, 1.0, "hm", custom={"hesitations": [], "voice": "v"})
    made = _with_sounds(SpokenConversation(Conversation("c", 2.0, (turn,)), {}), ()).conversation
    assert made.turns[0].custom == {"voice": "v"} and "events" not in made.custom
