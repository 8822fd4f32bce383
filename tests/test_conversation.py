"""Turns, how they are cut, and their way through a Lhotse cut."""

from __future__ import annotations

import json
import multiprocessing
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
from lhotse import CutSet, MonoCut, Recording, SupervisionSegment
from lhotse.supervision import AlignmentItem
from lhotse.utils import fastcopy

from nemo_duplex import conversation
from nemo_duplex.conversation import Conversation, Turn, Word
from nemo_duplex.frames import FrameRate
from nemo_duplex.inputs import InputError
from tests.dummies import wav_bytes

TEXT = "No, Paris. It is big!"
WORDS = (
    Word("No,", 0, 2.0, 2.4),
    Word("Paris.", 4, 2.4, 3.0),
    Word("It", 11, 3.2, 3.4),
    Word("is", 14, 3.4, 3.6),
    Word("big!", 17, 3.6, 4.0),
)


def answer(**changes) -> Turn:
    return Turn(**{**dict(speaker="agent", start=2.0, end=4.0, text=TEXT, words=WORDS, custom={"answer": "Paris"}), **changes})


def cut_of(conversation: Conversation, custom: dict | None = None) -> MonoCut:
    """A cut as it is after a trip through JSON."""
    data = wav_bytes(np.zeros(round(16000 * conversation.duration)), 16000)
    recording = Recording.from_bytes(data, recording_id=conversation.id)
    supervisions = [SupervisionSegment.from_dict(json.loads(json.dumps(s.to_dict()))) for s in conversation.to_supervisions()]
    return MonoCut(conversation.id, 0, conversation.duration, 0, supervisions=supervisions, recording=recording, custom=custom)


@pytest.mark.parametrize(
    "time, kept",
    [(2.1, "No,"), (2.9, "No, Paris."), (3.1, "No, Paris."), (3.2, "No, Paris."), (3.3, "No, Paris. It"), (3.9, TEXT)],
)
def test_a_cut_keeps_the_words_begun_with_their_punctuation(time, kept):
    cut = answer().cut_at(time)
    assert cut.text == kept
    assert cut.full_text == TEXT and cut.was_cut
    assert cut.end == time and cut.start == 2.0
    assert all(word.end <= time for word in cut.words)
    assert cut.custom == {"answer": "Paris"}


def test_a_cut_before_the_first_word_leaves_no_text():
    late = tuple(word.shifted(0.5) for word in WORDS)
    assert answer(words=late, end=4.5).cut_at(2.3).text == ""


def test_a_cut_without_word_times_falls_on_a_words_edge():
    turn = Turn("agent", 0.0, 2.0, "one two three four")
    assert turn.cut_at(1.0).text == "one two"
    assert turn.cut_at(0.01).text == ""


@pytest.mark.parametrize(
    ("text", "time", "before", "after"),
    [
        ("one two three four", 0.8, "one", "three four"), ("one  two\nthree four", 1.0, "one  two", "three four"),
        ("今天天气很好。", 1.0, "今天天气", "气很好。"), ("今天 天气", 1.2, "今天", "天气"),
        ("今天 天气", 1.6, "今天 天", "气"),
        ("我用Python写", 1.0, "我用", "Python写"), ("カメラはどこ", 1.0, "カメラ", "はどこ"), ("ดีมาก", 1.2, "ดีม", "าก"),
        ("안녕하세요 여러분", 1.0, "", "여러분"),
        ("か゚\u3099き", 1.0, "", "き"), ("今天", 0.01, "", "今天"), ("，今", 1.99, "，今", ""),
    ],
)  # fmt: skip
def test_a_cut_without_word_times_falls_between_characters_where_there_are_no_blanks(text, time, before, after):
    turn = Turn("agent", 0.0, 2.0, text)
    assert (turn.cut_at(time).text, turn.cut_before(time).text) == (before, after)


@pytest.mark.parametrize("language", ["hi", "en", None])
def test_the_language_of_a_turn_is_written_and_read(language):
    """Recordings of sessions said "en" once; now they say none, because it is not known. Both are read."""
    turn = replace(answer(), language=language)
    cut = cut_of(Conversation("c", 5.0, (turn,)))
    assert cut.supervisions[0].language == language
    read = Conversation.from_cut(cut).agent[0]
    assert read.language == language and read.cut_at(3.0).language == language and read.shifted(1.0).language == language


def test_a_cut_twice_remembers_the_whole():
    assert answer().cut_at(3.5).cut_at(2.5).full_text == TEXT


@pytest.mark.parametrize("time", [1.0, 2.0, 4.0, 5.0])
def test_a_cut_outside_the_turn_is_refused(time):
    with pytest.raises(ValueError, match="Cannot cut a turn of 2.000 to 4.000 s"):
        answer().cut_at(time)


def test_shifted_moves_the_words_too():
    moved = answer().shifted(1.5)
    assert (moved.start, moved.end) == (3.5, 5.5)
    assert moved.words[0].start == 3.5 and moved.words[0].offset == 0


@pytest.mark.parametrize(
    "wrong, message",
    [(dict(speaker="assistant"), "got 'assistant'"), (dict(start=-1.0), "forwards"), (dict(end=1.0), "forwards")],
)
def test_a_wrong_turn_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        answer(**wrong)


def test_turns_are_ordered_and_sorted_out_by_speaker():
    user = Turn("user", 0.0, 1.4, "Where?")
    both = Conversation("c", 5.0, (answer(), user))
    assert both.turns == (user, answer())
    assert both.user == (user,) and both.agent == (answer(),)


def test_turns_are_in_order_of_their_start():
    """A short turn inside of a long one comes after it; of two that start together the agent's comes first."""
    long, short = Turn("user", 0.0, 4.0, "long"), Turn("agent", 1.0, 1.5, "short")
    user, agent = Turn("user", 2.0, 2.1), Turn("agent", 2.0, 3.0)
    assert Conversation("c", 5.0, (user, short, agent, long)).turns == (long, short, agent, user)


def test_a_turn_beyond_the_end_is_refused():
    with pytest.raises(ValueError, match="Conversation c lasts 3.000 s, but a turn of it ends at 4.000 s"):
        Conversation("c", 3.0, (answer(),))
    assert Conversation("c", 3.9995, (answer(),)).turns, "less than a millisecond is rounding"


def test_round_trip_through_a_cut():
    turns = (
        Turn("user", 0.1, 1.4, "Where?", custom={"voice": "v1", "pauses": [[0.5, 0.9]]}),
        answer().cut_at(3.3),
        Turn("user", 2.6, 3.9, "Stop.", custom={"barge_in": True}),
    )
    about = {"family": "capitals", "seed": 3, "snr": 20.5, "room": True, "events": [1.5, 2.0], "voices": {"user": "v1"}}
    made = Conversation("dev-000001", 6.4, turns, about)
    back = Conversation.from_cut(cut_of(made, about))
    assert back == made
    assert (back.turns[1].full_text, back.turns[1].custom) == (TEXT, {"answer": "Paris"})


def test_only_what_json_knows_is_kept_of_a_cut():
    made = Conversation("c", 5.0, (answer(),))
    assert Conversation.from_cut(cut_of(made, {"a": 1, "recording": object()})).custom == {"a": 1}


def test_supervisions_say_who_speaks_when():
    user, agent = Conversation("c7", 5.0, (Turn("user", 0.1, 1.4, "Where?"), answer())).to_supervisions()
    assert (user.id, user.speaker, user.start, user.duration, user.text) == ("c7-00", "user", 0.1, 1.3, "Where?")
    assert (agent.id, agent.speaker, agent.recording_id, agent.custom) == ("c7-01", "agent", "c7", {"answer": "Paris"})
    assert [(w.symbol, w.start, w.duration) for w in agent.alignment["word"][:2]] == [("No,", 2.0, 0.4), ("Paris.", 2.4, 0.6)]
    assert user.custom is None and user.alignment is None


def test_time_marks_in_the_text_are_left_out():
    """As in corpora of NeMo: `<|0|> Hey <|3|>`."""
    cut = cut_of(Conversation("c", 5.0, (replace(answer(), words=()),)))
    cut.supervisions[0].text = "<|0|> Hey,  you <|12|> there <|3|>"
    assert Conversation.from_cut(cut).turns[0].text == "Hey, you there"
    cut.supervisions[0].text = "two  spaces"
    assert Conversation.from_cut(cut).turns[0].text == "two  spaces"


def test_a_word_that_is_said_twice_is_found_twice():
    turn = answer(text="no no, no", words=tuple(Word("no", at, 2 + at / 10, 2.1 + at / 10) for at in (0, 3, 7)))
    words = Conversation.from_cut(cut_of(Conversation("c", 5.0, (turn,)))).turns[0].words
    assert [w.offset for w in words] == [0, 3, 7]


@pytest.mark.parametrize("value", [5, ["a"], {"text": "a"}, True])
def test_what_is_no_text_is_refused_with_its_place(value):
    """Lhotse reads any JSON value as the text of a supervision."""
    for change in ({"text": value}, {"custom": {"full_text": value}}):
        cut = cut_of(Conversation("c", 5.0, (Turn("user", 0.0, 1.0, "q"), answer())))
        cut.supervisions[1] = fastcopy(cut.supervisions[1], **change)
        with pytest.raises(InputError, match=rf"Cut c: supervision \S+ says {re.escape(repr(value))}, expected a text"):
            Conversation.from_cut(cut)


def test_speakers_of_other_corpora_have_roles():
    cut = cut_of(Conversation("c", 5.0, (Turn("user", 0.0, 1.0, "q"), answer())))
    cut.supervisions[0].speaker, cut.supervisions[1].speaker = "Bob", "assistant"
    back = Conversation.from_cut(cut, {"Bob": "user", "assistant": "agent"})
    assert [turn.speaker for turn in back.turns] == ["user", "agent"]
    with pytest.raises(InputError, match="speaker 'Bob', expected one of 'user', 'agent'"):
        Conversation.from_cut(cut)


def test_an_aligner_that_spells_otherwise_keeps_the_times():
    turn = answer(words=(Word("no", 0, 2.0, 2.4), Word("Paris", 4, 2.4, 3.0)))
    words = Conversation.from_cut(cut_of(Conversation("c", 5.0, (turn,)))).turns[0].words
    assert [(w.text, w.start, w.end) for w in words] == [("no", 2.0, 2.4), ("Paris", 2.4, 3.0)]
    assert words[1].offset == 4


def test_a_foreign_speaker_is_an_error_that_names_the_cut():
    cut = cut_of(Conversation("chat-7", 5.0, (answer(),)))
    cut.supervisions[0].speaker = "assistant"
    with pytest.raises(InputError, match="Cut chat-7: supervision chat-7-00 has speaker 'assistant'"):
        Conversation.from_cut(cut)


# ---- times that do not fit the audio


@pytest.fixture
def said(monkeypatch, caplog):
    """What the log says, as in a run of its own."""
    monkeypatch.setattr(conversation, "_said", {what: multiprocessing.Value("b", False) for what in conversation._said})
    caplog.set_level("WARNING", logger=conversation.__name__)
    return lambda: [record.getMessage() for record in caplog.records]


def read(*times, duration=5.0, text="one two three four", speaker="agent", **changes):
    """The turns of a cut whose supervisions have these (start, end); no word times unless given."""
    segments = [
        SupervisionSegment(f"s{i}", "r", start, end - start, text=text, speaker=speaker, **changes)
        for i, (start, end) in enumerate(times)
    ]
    return Conversation.from_cut(MonoCut("c7", 0.0, duration, 0, supervisions=segments)).turns


@pytest.mark.parametrize("late", [0.0, 1e-9, 0.0005, 0.005, 0.3, 0.5])
def test_a_turn_that_ends_a_little_after_the_audio_ends_with_it(said, late):
    (turn,) = read((3.0, 5.0 + late))
    assert (turn.start, turn.end, turn.text, turn.full_text, turn.custom) == (3.0, 5.0, "one two three four", None, {})
    assert said() == []


def test_a_turn_that_ends_much_later_is_unfinished(said):
    (turn,) = read((3.0, 7.0), custom={"voice": "v"})
    assert (turn.start, turn.end, turn.text, turn.full_text) == (3.0, 5.0, "one two", "one two three four")
    assert turn.custom == {"voice": "v", "unfinished": True}
    assert said() == [
        "Cut c7 has turns (1) that end more than 0.5 s after the audio: taken as unfinished. "
        "Further cuts with such turns are not named."
    ]


def test_each_kind_is_said_once_with_its_count(said):
    for _ in range(3):
        read((1.0, 9.0), (2.0, 9.0), (5.5, 6.0), (1.0, 1.03), (float("nan"), 2.0), (-2.0, 1.0))
    assert [message.split(":")[0] for message in said()] == [
        "Cut c7 has turns (2) that end more than 0.5 s after the audio",
        "Cut c7 has turns (1) that lie outside of the audio",
        "Cut c7 has turns (1) that are shorter than a frame",
        "Cut c7 has turns (1) that have times that are not numbers or run backwards",
        "Cut c7 has turns (1) that begin more than 0.5 s before the audio",
    ]


def test_a_process_that_was_forked_says_nothing_again(said):
    def in_worker():
        sys.exit(read((1.0, 9.0))[0].end != 5.0)

    worker = multiprocessing.get_context("fork").Process(target=in_worker)
    worker.start(), worker.join()
    assert worker.exitcode == 0
    read((1.0, 9.0))
    assert said() == []


def test_a_turn_that_began_before_the_audio_has_only_the_words_said_in_it(said):
    """Lhotse keeps the whole supervision when it cuts audio. Two of three seconds are gone: "four" alone is heard."""
    (turn,) = read((-2.0, 1.0))
    assert (turn.start, turn.end, turn.text, turn.custom) == (0.0, 1.0, "four", {"begun_before": True})
    (turn,) = read((-1e-3, 1.0))
    assert (turn.start, turn.text, turn.custom) == (0.0, "one two three four", {})
    (turn,) = read((-0.5, 1.5))
    assert (turn.start, turn.end, turn.text, turn.custom) == (0.0, 1.5, "two three four", {})
    (turn,) = read((-0.51, 1.5))
    assert turn.custom == {"begun_before": True}


def test_word_times_decide_what_was_said_before_the_audio():
    """A word of which the larger part is heard is kept, with its punctuation."""
    for shift, text, first in (
        (2.1, TEXT, 0),
        (2.3, "Paris. It is big!", 0),
        (2.69, "Paris. It is big!", 0),
        (2.71, "It is big!", 0),
    ):
        supervision = Conversation("c", 9.0, (answer(),)).to_supervisions()[0].with_offset(-shift)
        (turn,) = Conversation.from_cut(MonoCut("c", 0.0, 9.0, 0, supervisions=[supervision])).turns
        assert (turn.start, round(turn.end, 6), turn.text) == (0.0, round(4.0 - shift, 6), text)
        assert turn.words[0].offset == first and turn.words[0].start >= 0
        assert [turn.text[w.offset :].startswith(w.text) for w in turn.words] == [True] * len(turn.words)
        assert [w.start for w in turn.words] == pytest.approx([max(0, w.start - shift) for w in WORDS[-len(turn.words) :]])


def test_a_turn_that_was_cut_off_loses_the_same_words_of_its_full_text():
    (turn,) = read((-2.0, 2.0), text="one two three four", custom={"full_text": "one two three four five."})
    assert (turn.text, turn.full_text) == ("three four", "three four five.")
    (turn,) = read((-2.0, 2.0), text="one two three four", custom={"full_text": "something else"})
    assert (turn.text, turn.full_text) == ("three four", "three four")


def test_a_turn_at_both_ends_of_the_audio_is_cut_at_both(said):
    (turn,) = read((-5.0, 15.0), text="one two three four five six seven eight nine ten")
    assert (turn.start, turn.end) == (0.0, 5.0)
    assert turn.custom == {"begun_before": True, "unfinished": True}
    assert turn.text == "four five"


@pytest.mark.parametrize(
    "times",
    [(5.0, 6.0), (7.0, 8.0), (-2.0, -1.0), (-1.0, 0.0), (-1.0, 1e-20), (5.0 - 1e-9, 6.0)]
    + [(1.0, 1.0), (1.0, 1.079), (-1.0, 0.05), (4.95, 7.0), (4.95, 5.2)]
    + [(float("nan"), 1.0), (1.0, float("nan")), (1.0, float("inf")), (float("-inf"), 1.0), (2.0, 1.0)],
)
def test_a_turn_of_which_less_than_a_frame_is_heard_is_left_out(times):
    assert read(times) == ()
    assert len(read(times, (1.0, 2.0))) == 1


def test_a_frame_is_a_turn_and_frames_may_be_longer():
    assert len(read((1.0, 1.08), (4.92, 5.0))) == 2
    cut = MonoCut("c", 0.0, 5.0, 0, supervisions=[SupervisionSegment("s", "r", 1.0, 0.12, text="a", speaker="user")])
    assert Conversation.from_cut(cut).turns and not Conversation.from_cut(cut, frame_rate=FrameRate(6.25)).turns


def test_windows_of_a_conversation_say_its_words_once():
    """Ten windows of Lhotse's over one long turn: together they have its words, each where it is heard."""
    times = [(f"w{i}", 0.5 + 0.25 * i, 0.7 + 0.25 * i) for i in range(36)]
    text = " ".join(name for name, *_ in times)
    words = tuple(Word(name, text.index(name), start, end) for name, start, end in times)
    whole = cut_of(Conversation("c", 10.0, (Turn("agent", 0.5, 9.5, text, words=words),)))
    windows = [Conversation.from_cut(window) for window in CutSet.from_cuts([whole]).cut_into_windows(1.0)]
    assert [len(window.turns) for window in windows] == [1] * 10
    assert " ".join(window.agent[0].text for window in windows) == text
    assert [w.text for window in windows for w in window.agent[0].words] == [name for name, *_ in times]


def test_words_with_times_that_are_not_numbers_and_pauses_are_left_out():
    items = [("", 2.0, 0.1), ("<eps>", 2.1, 0.1), ("no", 2.2, float("nan")), ("PARIS", 2.4, 0.6), ("[noise]", 3.0, 0.1)]
    alignment = {"word": [AlignmentItem(*item) for item in [*items, ("it", 3.2, 0.2)]]}
    (turn,) = read((2.0, 4.0), text=TEXT, alignment=alignment)
    assert [(w.text, w.offset) for w in turn.words] == [("PARIS", 4), ("it", 11)]


@pytest.mark.parametrize("times", [("1.44", 1.0), (1.44, "1.0"), (None, 1.0), (1.44, None)])
def test_times_that_are_text_or_missing_are_no_times(times):
    right = SupervisionSegment("s", "r", 1.0, 1.0, text=TEXT, speaker="user")
    odd = SupervisionSegment("o", "r", *times, text=TEXT, speaker="agent")
    cut = MonoCut("c", 0.0, 5.0, 0, supervisions=[odd, right])
    assert [(t.speaker, t.start, t.end) for t in Conversation.from_cut(cut).turns] == [("user", 1.0, 2.0)]
    words = [AlignmentItem("It", *times), AlignmentItem(None, 2.0, 0.1), AlignmentItem("paris", 2.4, 0.6)]
    (turn,) = read((2.0, 4.0), text=TEXT, alignment={"word": words})
    assert [(w.text, w.start, w.end) for w in turn.words] == [("paris", 2.4, 3.0)]
    (turn,) = read((2.0, 4.0), text=TEXT, alignment={"word": None})
    assert turn.words == ()


def test_a_speaker_that_is_a_list_is_named():
    odd = SupervisionSegment("o", "r", 1.0, 1.0, text=TEXT, speaker=["agent"])
    with pytest.raises(InputError, match=r"^Cut c: supervision o has speaker \['agent'\], expected one of 'user', 'agent'"):
        Conversation.from_cut(MonoCut("c", 0.0, 5.0, 0, supervisions=[odd]))


def test_words_after_the_audio_are_not_said():
    items = [AlignmentItem("No", 4.0, 0.5), AlignmentItem("Paris", 4.9, 0.4)]
    (turn,) = read((4.0, 5.3), text="No, Paris.", alignment={"word": items})
    assert (turn.text, turn.custom, [(w.start, w.end) for w in turn.words]) == ("No, Paris.", {}, [(4.0, 4.5), (4.9, 5.0)])
    items[1] = AlignmentItem("Paris", 5.1, 0.2)
    (turn,) = read((4.0, 5.3), text="No, Paris.", alignment={"word": items})
    assert (turn.text, turn.full_text, turn.custom, len(turn.words)) == ("No", None, {}, 1)


@pytest.mark.parametrize("direction", ["left", "right", "both"])
def test_words_of_padded_and_joined_cuts_are_where_they_are_heard(direction):
    """Lhotse moves the supervisions, and leaves their word times where they were."""
    whole = cut_of(Conversation("c", 5.0, (answer(),)))
    for cut in (whole, whole.truncate(offset=1.5)):
        padded = cut.pad(duration=8.0, direction=direction)
        (turn,) = Conversation.from_cut(padded).turns
        assert [w.start - turn.start for w in turn.words] == pytest.approx([w.start - 2.0 for w in WORDS])
    first, second = Conversation.from_cut(whole.append(whole.with_id("d"))).turns
    assert [w.start for w in second.words] == pytest.approx([w.start + 5.0 for w in first.words])


def test_a_turn_ends_with_the_audio_of_its_part_where_padding_follows():
    whole = cut_of(Conversation("c", 5.0, (answer(),)))
    for padded, offset in (
        (whole.truncate(duration=3.3).pad(6.0), 0.0),
        (whole.truncate(duration=3.3).pad(6.0, direction="left"), 2.7),
        (whole.truncate(duration=3.3).append(whole.with_id("d")), 0.0),
    ):
        turn = Conversation.from_cut(padded).turns[0]
        assert (turn.start, turn.end) == pytest.approx((2.0 + offset, 3.3 + offset))
        assert turn.text == "No, Paris. It" and turn.custom["unfinished"] is True


def test_word_times_that_count_from_elsewhere_begin_with_their_turn():
    """A part of a long recording, written as a cut of its own: its supervisions were moved, its word times were not."""
    alignment = {"word": [AlignmentItem(w.text, w.start + 100, w.end - w.start) for w in WORDS]}
    (turn,) = read((1.0, 3.0), text=TEXT, alignment=alignment)
    assert [w.start for w in turn.words] == pytest.approx([w.start - 1.0 for w in WORDS])
    alignment = {"word": [AlignmentItem(w.text, w.start - 0.3, w.end - w.start) for w in WORDS]}
    (turn,) = read((2.0, 4.0), text=TEXT, alignment=alignment)
    assert [w.start for w in turn.words] == pytest.approx([w.start - 0.3 for w in WORDS]), "annotations are not exact"
