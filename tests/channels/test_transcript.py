"""The text channel is read once: by its grammar, whole or token by token, with the same turns, times and text."""

import json
import random
from pathlib import Path

import pytest

from nemo_duplex.channels.layout import ChannelLayout
from nemo_duplex.channels.transcript import (
    ChannelTurn,
    Transcript,
    TurnText,
    decode_text,
    decode_turns,
    read_channel,
)
from nemo_duplex.conversation import Turn
from nemo_duplex.data.text_tokenizer import HFTokenizer, train_tokenizer
from nemo_duplex.frames import FrameRate
from tests.hf_families import SENTENCES, byte_level, sentencepiece_like

PAD, BOS, EOS = 0, 1, 2
LAYOUT = ChannelLayout(text_vocab_size=200, text_pad=PAD, text_bos=BOS, text_eos=EOS, num_codebooks=4, codebook_size=10)
GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "turn_taking.json").read_text())


class Letters:
    """One id per letter, its code point."""

    def ids_to_text(self, ids):
        return "".join(map(chr, ids))


A, B, C, D = map(ord, "ABCD")


# ---- a whole channel


@pytest.mark.parametrize("case", GOLDEN["tokens"], ids=lambda case: case["id"])
def test_golden_channel(case):
    row = [PAD] * case["n_frames"]
    for marks, token in ((case["bos"], BOS), (case["eos"], EOS)):
        for frame in marks:
            row[frame] = token
    got = read_channel(row, LAYOUT)
    spans = [(t.start * case["frame_sec"], t.end * case["frame_sec"]) for t in got.turns]
    assert spans == [pytest.approx(span) for span in case["expected_segments"]]
    assert (got.unterminated, got.orphan_eos) == (case["unterminated"], case["orphan_eos"])


def test_turns_have_frames_and_ids():
    got = read_channel([PAD, BOS, A, B, PAD, C, EOS, PAD, BOS, D], LAYOUT)
    assert got.turns == (ChannelTurn(1, 6, (A, B, C), True, True), ChannelTurn(8, 10, (D,), True, False))
    assert (got.unterminated, got.orphan_eos) == (1, 0)


def test_a_second_bos_ends_the_turn_before_it():
    got = read_channel([BOS, A, BOS, B, EOS], LAYOUT)
    assert got.turns == (ChannelTurn(0, 2, (A,), True, False), ChannelTurn(2, 4, (B,), True, True))
    assert (got.unterminated, got.orphan_eos) == (1, 0)


def test_an_eos_that_no_bos_precedes_is_counted_and_ends_nothing():
    got = read_channel([PAD, EOS, BOS, A, EOS, EOS, PAD], LAYOUT)
    assert got.turns == (ChannelTurn(2, 4, (A,), True, True),)
    assert (got.unterminated, got.orphan_eos) == (0, 2)


def test_text_that_no_bos_precedes_is_no_turn_of_the_evaluation():
    got = read_channel([A, EOS, B, BOS, C, EOS], LAYOUT)
    assert got.turns == (ChannelTurn(3, 5, (C,), True, True),)
    assert (got.unterminated, got.orphan_eos) == (0, 1)


@pytest.mark.parametrize(("marks", "delay", "heard"), [("beside", 1, (7, 12)), ("beside", 3, (9, 14)), ("in_place", 1, (7, 11)),
                                                       ("in_place", 3, (9, 13))])  # fmt: skip
def test_a_turn_is_heard_after_its_lead(marks, delay, heard):
    """BOS in frame 5, EOS in frame 10; see the drawings of channels/layout.py."""
    layout = ChannelLayout(9, PAD, BOS, EOS, num_codebooks=1, codebook_size=1, speech_delay=delay, turn_marks=marks)
    assert ChannelTurn(5, 10).span(layout, FrameRate(10)) == pytest.approx([frame / 10 for frame in heard])


def test_a_turn_without_text_is_not_heard_backwards():
    layout = ChannelLayout(9, PAD, BOS, EOS, num_codebooks=1, codebook_size=1, turn_marks="in_place")
    assert ChannelTurn(5, 5).span(layout, FrameRate(10)) == (0.7, 0.7)


CHANNELS = {
    "two turns": ([PAD, BOS, A, B, EOS, PAD, BOS, C, PAD, EOS], ["AB", "C"], "AB C"),
    "nothing": ([PAD, EOS, BOS, PAD], [], ""),
    "no BOS": ([A, PAD, B, BOS, C], ["AB", "C"], "AB C"),
    "BOS after BOS": ([BOS, BOS, A, BOS, EOS, BOS, B], ["A", "B"], "A B"),
    "text after EOS": ([BOS, A, EOS, B, BOS, C, EOS], ["A", "B", "C"], "AB C"),
}


@pytest.mark.parametrize(("row", "turns", "text"), CHANNELS.values(), ids=CHANNELS)
def test_the_text_of_a_channel(row, turns, text):
    assert decode_turns(row, LAYOUT, Letters()) == turns
    assert decode_text(row, LAYOUT, Letters()) == text


# ---- token by token


def followed(row, layout=LAYOUT, tokenizer=None):
    """The transcript of a row, and what each token added to it."""
    transcript = Transcript(layout, tokenizer or Letters(), FrameRate(10))
    return transcript, [transcript.add(frame, token) for frame, token in enumerate(row)]


def test_a_live_transcript_says_what_each_token_adds_and_when_it_is_heard():
    transcript, added = followed([PAD, BOS, A, B, PAD, EOS, PAD, BOS, C, PAD])
    assert added == ["", "", "A", "B", "", "", "", "", "C", ""]
    # From two frames after BOS to two frames after EOS; of the turn that goes on, to what has been read.
    said = transcript.conversation(10)
    assert said.turns == (Turn("agent", 0.3, 0.7, "AB"), Turn("agent", 0.9, 1.2, "C"))
    assert said.duration == 1.2
    assert transcript.conversation(14).turns[1].end == 1.6


def test_a_live_transcript_has_the_text_that_no_bos_precedes():
    transcript, added = followed([PAD, A, EOS, B, BOS, C, EOS, PAD, PAD, PAD, PAD])
    assert "".join(added) == "ABC"
    assert transcript.conversation(11).turns == (
        Turn("agent", 0.3, 0.4, "A"),
        Turn("agent", 0.5, 0.6, "B"),
        Turn("agent", 0.6, 0.8, "C"),
    )
    assert transcript.conversation(11).duration == 1.1


def test_pads_may_be_left_out():
    """A recording is read by the frames that hold something."""
    row = [PAD, PAD, BOS, A, PAD, PAD, B, EOS, PAD]
    sparse = Transcript(LAYOUT, Letters(), FrameRate(10))
    for frame, token in enumerate(row):
        if token != PAD:
            sparse.add(frame, token)
    assert sparse.conversation(9) == followed(row)[0].conversation(9)
    assert sparse.conversation(9).turns == (Turn("agent", 0.4, 0.9, "AB"),)


@pytest.mark.parametrize("seed", range(20))
def test_whole_and_token_by_token_agree_on_any_channel(seed):
    row = random.Random(seed).choices([PAD, BOS, EOS, A, B, C], [4, 2, 2, 3, 3, 3], k=60)
    transcript, added = followed(row)
    live, whole = transcript.conversation(60).turns, read_channel(row, LAYOUT).turns
    assert [turn.text for turn in live if turn.text] == decode_turns(row, LAYOUT, Letters())
    assert "".join(added) == "".join(map(chr, (token for token in row if token > EOS)))
    spans = [turn.span(LAYOUT, FrameRate(10)) for turn in whole]
    assert spans and set(spans) <= {(turn.start, turn.end) for turn in live}


# ---- the text of one turn


OTHERS = ["né 😀!", "日本語", "  two spaces ", "a", "👩‍👩‍👧 x", "don't."]


class Counted:
    """A tokenizer, and how many tokens it was asked to decode."""

    def __init__(self, tokenizer):
        self._tokenizer, self.decoded = tokenizer, 0

    def ids_to_text(self, ids):
        self.decoded += len(ids)
        return self._tokenizer.ids_to_text(ids)


@pytest.fixture(scope="module", params=["byte level", "byte fallback", "sentencepiece"])
def tokenizer(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    if request.param == "sentencepiece":
        from nemo.collections.common.tokenizers import SentencePieceTokenizer

        (folder / "texts.txt").write_text("\n".join(SENTENCES))
        return SentencePieceTokenizer(str(train_tokenizer(folder / "texts.txt", folder / "tokenizer.model", 60)))
    specials = ("<pad>", "<bos>", "<eos>")
    made = byte_level(specials) if request.param == "byte level" else sentencepiece_like(("<unk>", *specials))
    made.save(str(folder / "tokenizer.json"))
    return HFTokenizer(folder / "tokenizer.json", *specials)


@pytest.mark.parametrize("seed", range(3))
def test_the_parts_are_the_text_of_all_tokens(tokenizer, seed):
    rng = random.Random(seed)
    words = " ".join(rng.choices([*SENTENCES, *OTHERS], k=120))
    tokens = tokenizer.text_to_ids(words)
    text = TurnText(tokenizer)
    shown = "".join([*(text.add(token) for token in tokens), text.rest()])
    assert len(tokens) > 500
    assert shown == str(text) == tokenizer.ids_to_text(tokens)


def test_half_a_character_is_held_back_until_it_is_whole_or_its_turn_ends(tmp_path):
    byte_level(("<pad>", "<bos>", "<eos>")).save(str(tmp_path / "tokenizer.json"))
    tokenizer = HFTokenizer(tmp_path / "tokenizer.json", "<pad>", "<bos>", "<eos>")
    layout = ChannelLayout(tokenizer.vocab_size, tokenizer.pad, tokenizer.bos, tokenizer.eos, num_codebooks=1, codebook_size=1)
    face = tokenizer.text_to_ids("😀")
    assert len(face) == 4, "one token per byte"
    row = [tokenizer.bos, *face, tokenizer.eos, tokenizer.bos, *face[:3], tokenizer.eos]
    transcript, added = followed(row, layout, tokenizer)
    assert added == ["", "", "", "", "😀", "", "", "", "", "", "\ufffd"]
    assert [turn.text for turn in transcript.conversation(11).turns] == ["😀", "\ufffd"]


def test_a_turn_without_end_costs_the_same_per_token(tokenizer):
    counted = Counted(tokenizer)
    text, tokens = TurnText(counted), tokenizer.text_to_ids(" ".join(SENTENCES * 30))[:1200]
    costs = []
    for token in tokens:
        text.add(token)
        costs.append(counted.decoded)
    assert costs[1199] - costs[899] < 1.1 * (costs[599] - costs[299])
    assert costs[-1] < 64 * len(tokens)


def test_bytes_that_never_make_a_character_cost_no_more(tokenizer):
    """What no trained model writes, and a random one does."""
    counted, rng = Counted(tokenizer), random.Random(0)
    half = [t for t in range(tokenizer.vocab_size) if "\ufffd" in tokenizer.ids_to_text([t])] or list(range(4, 50))
    text = TurnText(counted)
    for _ in range(1000):
        text.add(rng.choice(half))
    assert counted.decoded < 100 * 1000
    assert len(str(text)) > 100


def test_what_follows_such_bytes_is_shown_at_once(tmp_path):
    byte_level(("<pad>", "<bos>", "<eos>")).save(str(tmp_path / "tokenizer.json"))
    tokenizer = HFTokenizer(tmp_path / "tokenizer.json", "<pad>", "<bos>", "<eos>")
    half, letters = tokenizer.text_to_ids("😀")[0], tokenizer.text_to_ids("ok")
    text = TurnText(tokenizer)
    before = [text.add(half) for _ in range(64)]
    assert before == [""] * 63 + ["\ufffd" * 64], "held back until 64 are open"
    assert "".join(text.add(letter) for letter in letters) == "ok"
    assert str(text) == "\ufffd" * 64 + "ok"
