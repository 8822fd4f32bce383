"""A dialogue that cannot be used is told, and another one takes its place."""

from __future__ import annotations

import errno

import pytest

from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.text.sources import Dialogue, Exchange
from nemo_duplex.synthesis.tts.utterance import Utterance, Voice
from tests.synthesis.numbered_dialogues import Numbered, numbered
from tests.synthesis.tones import ToneEngine


def test_a_dialogue_with_a_turn_of_over_25_s_is_not_used_and_another_takes_its_place():
    """90 words of 0.3 s are 27 s. A dialogue of 420 characters passed, whatever it lasted."""
    made, plain = numbered(Numbered(lambda n: n % 4 == 0)), numbered(Numbered(lambda n: False))
    for set_name, index in (("train", 4), ("dev", 8), ("impatient", 8), ("train", 4)):
        cut = made.cut(set_name, index)
        assert int(cut.supervisions[0].text.removeprefix("Question ")[:-1]) % 4
        assert cut.custom["left_out"][f"n{index}"] == [
            "a turn of over 25 s of speech",
            "the user says 'word word word word word word word word ' ... for 27.0 s",
        ]
        assert made.cut(set_name, index).to_dict() == numbered(Numbered(lambda n: n % 4 == 0)).cut(set_name, index).to_dict()
    used = made.cut("train", 5)
    assert "left_out" not in used.custom and used.supervisions == plain.cut("train", 5).supervisions, (
        "Others stay as they were."
    )


def test_dev_and_impatient_replace_by_the_same_dialogue():
    made = numbered(Numbered(lambda n: n % 4 == 0))
    dev, impatient = made.cut("dev", 8), made.cut("impatient", 8)
    assert [s.text for s in dev.supervisions if s.speaker == "user"] == [s.text for s in impatient.supervisions]


def test_replacements_are_drawn_and_not_all_the_same():
    made = numbered(Numbered(lambda n: n < 20))
    assert len({made.spoken("train", index).sources for index in range(12)}) > 5


def test_the_limit_holds_for_the_agent_and_with_dialogues_after_each_other():
    made = numbered(Numbered(lambda n: False, agent="very long answer " * 28), duration=20.0)
    with pytest.raises(
        InputError, match="All of them: a turn of over 25 s of speech, such as dialogue n2: the agent says 'very long"
    ):
        made.cut("train", 2)
    conversation = numbered(Numbered(lambda n: n % 2 == 0), duration=40.0).spoken("train", 1).conversation
    assert conversation.duration == 40.0 and len(conversation.user) > 5
    assert all(int(turn.text.split()[1][:-1]) % 2 for turn in conversation.user)


@pytest.mark.parametrize(("words", "used"), [(83, True), (84, False)])
def test_25_s_is_the_limit(words, used):
    class Long(Numbered):
        def dialogue(self, split, index, rng):
            return Dialogue("d", (Exchange("a " * words, "b", "", "f"),))

    made = numbered(Long(lambda n: False))
    if used:
        assert made.spoken("dev", 0).conversation.user[0].duration == pytest.approx(24.9, abs=1e-3)
    else:
        with pytest.raises(InputError, match="for 25.2 s"):
            made.spoken("dev", 0)


def test_a_pause_does_not_make_a_turn_longer_than_25_s():
    class AlmostLong(Numbered):
        def dialogue(self, split, index, rng):
            return Dialogue(
                "d",
                (
                    Exchange("a " * 83, "b", "", "f", pauses=(2,)),
                    Exchange("a a a", "b", "", "f", pauses=(2,)),
                    Exchange("a a", "b", "", "f", pauses=(0,)),
                ),
            )

    first, second, third = numbered(AlmostLong(lambda n: False), pause=1.0).spoken("dev", 0).conversation.user
    assert first.duration == pytest.approx(24.9, abs=1e-3) and "pauses" not in first.custom
    assert second.duration > 1.1 and len(second.custom["pauses"]) == 1
    assert "pauses" not in third.custom, "Nor does one go before the first word."


def test_without_a_usable_dialogue_it_ends_in_one_line():
    class Mute(ToneEngine):
        def speak(self, text: str, voice: Voice):
            raise InputError("no sound of it")

    for engine, reason in ((Mute(), "a text that the engine does not speak, such as dialogue n5: no sound of it."), (None, "")):
        made = numbered(Numbered(lambda n: True), engine)
        with pytest.raises(InputError) as error:
            made.cut("train", 5)
        assert str(error.value).startswith(
            "Dialogue train-0-0000005: none of 200 dialogues drawn for it from train can be used. "
        )
        assert reason in str(error.value) and "\n" not in str(error.value)
    assert str(error.value).endswith("for 27.0 s. Split such turns into shorter ones.")


def test_an_error_of_an_engines_library_leaves_out_one_dialogue():
    class Broken(ToneEngine):
        def speak(self, text: str, voice: Voice):
            if "5" in text:
                raise ZeroDivisionError("of a filter")
            return super().speak(text, voice)

    cut = numbered(Numbered(lambda n: False), Broken()).cut("train", 5)
    reason, detail = cut.custom["left_out"]["n5"]
    assert reason == "a text that the engine does not speak" and detail.endswith("ZeroDivisionError: of a filter")
    assert detail.startswith("'Question 5") and cut.supervisions

    class FullDisk(ToneEngine):
        def speak(self, text: str, voice: Voice):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        numbered(Numbered(lambda n: False), FullDisk()).cut("train", 5)


def test_a_silent_engine_is_an_engine_that_does_not_speak():
    class Silent(ToneEngine):
        def speak(self, text: str, voice: Voice):
            spoken = super().speak(text, voice)
            return Utterance(text, 0 * spoken.audio, self.sample_rate)

    with pytest.raises(InputError, match="such as dialogue n5: The engine makes no sound of the text 'Question 5"):
        numbered(Numbered(lambda n: False), Silent()).cut("train", 5)
