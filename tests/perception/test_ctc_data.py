"""Utterances of the user: cut where nothing else is said, with margins that vary, in batches of similar length."""

import numpy as np
import pytest
import torch
from lhotse import CutSet, MonoCut, Recording
from lhotse.audio import AudioSource

from nemo_duplex.conversation import Conversation, Turn, Word
from nemo_duplex.inputs import InputError
from nemo_duplex.perception.acoustics import Augmentation
from nemo_duplex.perception.ctc_data import (
    UNKNOWN,
    UtteranceBatches,
    as_heard,
    collate,
    read_utterances,
    token_path,
    token_times,
)
from tests.dummies import Letters, wav_bytes

RATE = 16000
TURNS = (Turn("user", 1.0, 2.0, "one two"), Turn("agent", 2.6, 3.4, "yes"), Turn("user", 3.0, 4.5, "three"))


def cut(name="a", seconds=6.0, rate=RATE, channels=1, turns=TURNS):
    """A conversation whose user channel tells the time: sample s has the value s / 1000 (mod 1) / 2."""
    ramp = (np.arange(round(seconds * rate)) / 1000 % 1 / 2).astype(np.float32)
    samples = np.stack([ramp] * channels, axis=1).squeeze()
    source = AudioSource("memory", list(range(channels)), wav_bytes(samples, rate))
    recording = Recording(name, [source], rate, len(ramp), seconds)
    supervisions = Conversation(name, seconds, turns).to_supervisions()
    return MonoCut(name, 0, seconds, 0, recording=recording, supervisions=supervisions)


def shar(folder, *cuts):
    folder.mkdir(parents=True, exist_ok=True)
    CutSet.from_cuts(cuts).to_shar(folder, fields={"recording": "wav"})
    return folder


def test_turns_and_conversations(tmp_path):
    turns, conversations = read_utterances(shar(tmp_path, cut("a"), cut("b", turns=TURNS[1:2]), cut("c", turns=TURNS[2:])))
    assert [(u.id, u.text) for u in turns] == [("a", "one two"), ("a", "three"), ("c", "three")]
    assert [(u.id, u.text) for u in conversations] == [("a", "one two three"), ("c", "three")]
    first, second, _ = turns
    assert (first.first, first.last, first.earliest, first.latest) == (16000, 32000, 0, 40000)
    assert (second.first, second.last, second.earliest, second.latest) == (48000, 72000, 40000, 96000)
    assert conversations[0].duration == 3.5
    assert first.audio.dtype == np.int16 and np.shares_memory(first.audio, second.audio)


def test_a_corpus_without_its_recordings_is_named(tmp_path):
    folder = shar(tmp_path, cut())
    next(folder.glob("recording.*")).unlink()
    with pytest.raises(InputError, match=r"^Cut a has no user channel: its recording is missing. Copy the recording.\*.tar"):
        read_utterances(folder)


def test_the_audio_is_that_of_the_turn(tmp_path):
    turns, _ = read_utterances(shar(tmp_path, cut()))
    whole = turns[0].whole()
    expected = torch.from_numpy(np.arange(16000 - 9600, 32000 + 8000) / 1000 % 1 / 2)  # the margin after it ends half-way
    assert len(whole) == len(expected)
    torch.testing.assert_close(torch.from_numpy(whole), expected.float(), atol=1e-3, rtol=0)


def test_turns_that_the_audio_does_not_hold_whole_have_the_words_that_it_holds(tmp_path):
    """Lhotse cuts audio and keeps supervisions whole. Of 2 s before the cut three words are gone, of "five" its sound is."""
    made = cut(
        turns=(Turn("user", 0.0, 1.0, "one two three four"), Turn("user", 2.0, 3.0, "two"), Turn("user", 5.0, 6.0, "five"))
    )
    before, _, after = made.supervisions
    before.start, before.duration, after.duration = -3.0, 4.0, 9.0
    turns, (whole,) = read_utterances(shar(tmp_path, made))
    assert [(u.text, u.first, u.last) for u in turns] == [("four", 0, 16000), ("two", 32000, 48000)]
    assert whole.text == "four two"


def test_overlapping_turns_have_all_of_their_audio(tmp_path):
    overlapping = (Turn("user", 1.0, 5.0, "long"), Turn("user", 1.5, 2.0, "short"))
    turns, (whole,) = read_utterances(shar(tmp_path, cut(turns=overlapping)))
    for utterance in (*turns, whole):
        assert utterance.earliest <= utterance.first < utterance.last <= utterance.latest
    assert (whole.first, whole.last) == (16000, 80000)


def test_what_is_around_varies_but_no_word_is_lost(tmp_path):
    utterance = read_utterances(shar(tmp_path, cut()))[0][0]
    lengths = {len(utterance.draw(np.random.default_rng(seed))[0]) for seed in range(30)}
    assert len(lengths) > 20 and min(lengths) >= 16000 + 4800 and max(lengths) <= 25600 + 8000


def test_what_is_drawn_begins_at_the_sample_that_is_named(tmp_path):
    turns = (Turn("user", 0.1, 0.5, "one"), Turn("user", 2.1, 2.9, "two"))
    for utterance in read_utterances(shar(tmp_path, cut(turns=turns)))[0]:
        for seed in range(20):
            audio, first = utterance.draw(np.random.default_rng(seed))
            assert utterance.earliest <= first <= utterance.first
            np.testing.assert_allclose(audio, utterance.audio[first : first + len(audio)] / 32768, atol=1e-4)
            ((begin, end),) = utterance.spans(first)
            np.testing.assert_array_equal(audio[begin:end], utterance.speech())


def batches(tmp_path, seconds=8.0, seed=0):
    many = [cut(f"c{i}", turns=(Turn("user", 0.5, 0.7 + 0.1 * i, "x" * (i + 1)),)) for i in range(20)]
    return UtteranceBatches(read_utterances(shar(tmp_path, *many))[0], Letters(), seconds, seed)


def test_an_epoch_holds_every_utterance_in_batches_of_similar_length(tmp_path):
    made = batches(tmp_path)
    epoch = [made.batch(i) for i in range(made._epoch_batches)]
    assert sorted(length for batch in epoch for length in batch.token_lens.tolist()) == list(range(1, 21))
    assert all(batch.audio.numel() <= 8.0 * RATE for batch in epoch)
    padding = 1 - sum(b.audio_lens.sum() for b in epoch) / sum(b.audio.numel() for b in epoch)
    assert padding < 0.25
    for batch in epoch:
        for row, length, tokens, count in zip(batch.audio, batch.audio_lens, batch.tokens, batch.token_lens):
            assert row[length:].abs().sum() == 0 and row[:length].abs().sum() > 0
            assert tokens[:count].tolist() == [ord("x")] * count


def test_the_seed_and_the_index_decide_a_batch(tmp_path):
    once, again, other = batches(tmp_path / "1"), batches(tmp_path / "2"), batches(tmp_path / "3", seed=1)
    far = once.batch(100)
    assert torch.equal(once.batch(3).audio, again.batch(3).audio)
    assert torch.equal(far.audio, again.batch(100).audio)
    assert not all(torch.equal(once.batch(i).token_lens, other.batch(i).token_lens) for i in range(5))


def test_cuts_and_levels_change_with_the_seed_and_the_order_with_the_epoch(tmp_path):
    utterances = read_utterances(shar(tmp_path / "one", cut()))[0][:1]
    one, other = (UtteranceBatches(utterances, Letters(), 9.0, seed).batch(0).audio for seed in (0, 1))
    assert one.shape != other.shape or not torch.equal(one, other)
    made = batches(tmp_path / "many")
    first, second = ([made.batch(n * made._epoch_batches + i).token_lens.tolist() for i in range(4)] for n in (0, 1))
    assert first != second


def test_an_utterance_longer_than_a_batch_has_one_of_its_own(tmp_path):
    made = batches(tmp_path, seconds=1.0)
    assert [len(made.batch(i).audio) for i in range(20)] == [1] * 20


class Pieces(Letters):
    """One piece per word, with the word's length as its id."""

    vocab_size = 9

    def text_to_tokens(self, text):
        return ["\u2581" + word for word in text.split()]

    def tokens_to_ids(self, tokens):
        return [len(token) - 1 for token in tokens]


def test_a_path_has_every_token_where_it_is_spoken_in_the_audio_drawn(tmp_path):
    """The word that ends at 1.5 s of the conversation is in the frame that holds 1.5 s less what was cut off before."""
    words = (Word("abc", 0, 1.0, 1.5), Word("de", 4, 1.6, 2.0))
    told = cut("told", turns=(Turn("user", 1.0, 2.0, "abc de", words=words),))
    untold = cut("untold", turns=(Turn("user", 1.0, 2.0, "abc de"),))
    (utterance, other), _ = read_utterances(shar(tmp_path, told, untold))
    made = UtteranceBatches([utterance], Pieces(), seconds=9.0, seed=0)
    seen = set()
    for index in range(20):
        batch = made.batch(index)
        _, start = utterance.draw(np.random.default_rng((0, index)))
        path = batch.paths[0]
        assert len(path) == -(-batch.audio.shape[1] // 1280)
        assert path[int((1.5 - start / RATE) / 0.08)] == 3 and path[int((2.0 - start / RATE) / 0.08)] == 2
        assert (path == made.tokenizer.vocab_size).sum() == len(path) - 2
        seen.add(start % 2560)
    assert len(seen) > 15, "The encoder's encoder chunks must fall differently on the same words."
    assert (UtteranceBatches([other], Pieces(), seconds=9.0, seed=0).batch(0).paths == UNKNOWN).all()


def test_a_path_follows_the_speed_at_which_an_utterance_is_heard(tmp_path):
    words = (Word("abc", 0, 1.0, 1.5), Word("de", 4, 1.6, 2.0))
    (utterance,), _ = read_utterances(shar(tmp_path, cut(turns=(Turn("user", 1.0, 2.0, "abc de", words=words),))))
    made = UtteranceBatches([utterance], Pieces(), 9.0, 0, Augmentation(speed=(1.25, 1.25)))
    for index in range(10):
        batch = made.batch(index)
        clean, start = utterance.draw(np.random.default_rng((0, index)))
        assert batch.audio.shape[1] == -(-len(clean) * 4 // 5)
        assert batch.paths[0][int((1.5 - start / RATE) / 1.25 / 0.08)] == 3
        assert batch.paths[0][int((2.0 - start / RATE) / 1.25 / 0.08)] == 2


def test_what_happens_to_utterances_is_that_of_the_configuration(tmp_path):
    utterances = read_utterances(shar(tmp_path, cut()))[0][:1]
    plain, softer = (
        UtteranceBatches(utterances, Letters(), 9.0, 0, augmentation).batch(0).audio
        for augmentation in (Augmentation(), Augmentation(gain_db=(-20.0, -20.0)))
    )
    torch.testing.assert_close(softer, plain / 10)


def test_a_text_as_an_ear_writes_it():
    """In small letters, without punctuation; a word of two parts has one time; times that do not fit are left out."""
    times = ((0.0, 0.4), (0.4, 0.9), (0.9, 1.0))
    given = [Word(w, o, *t) for w, o, t in zip(("It's", "well-known", "Sir"), (0, 5, 17), times)]
    heard = as_heard(Turn("user", 0.0, 1.0, "It's well-known, Sir!", words=tuple(given)))
    assert heard.text == "its well known sir"
    assert [(w.text, w.offset, w.end) for w in heard.words] == [("its", 0, 0.4), ("well known", 4, 0.9), ("sir", 15, 1.0)]
    assert as_heard(Turn("user", 0.0, 1.0, "It's well-known, Sir!", words=tuple(given[:2]))).words == ()


@pytest.mark.parametrize(
    "bad, message",
    [
        ({"rate": 8000}, "Cut a: the user channel has 8000 Hz and 1 channels, expected 16000 Hz and one"),
        ({"turns": (Turn("user", 1.0, 2.0, " "),)}, "Cut a: a turn of the user has no text"),
        ({"turns": (Turn("agent", 1.0, 2.0, "yes"),)}, "hold no turns of a speaker 'user'. Add them.$"),
    ],
)
def test_what_cannot_be_learnt_from_is_named(tmp_path, bad, message):
    with pytest.raises(InputError, match=message):
        read_utterances(shar(tmp_path, cut(**bad)))


def test_a_corpus_with_what_the_messages_advise_is_read(tmp_path):
    """Converted, with the text, with the user's turn, with its recording."""
    turns, _ = read_utterances(shar(tmp_path / "converted", cut(rate=8000).resample(16000)))
    assert [u.text for u in turns] == ["one two", "three"]
    folder = shar(tmp_path / "added", cut(turns=(Turn("agent", 1.0, 2.0, "yes"), Turn("user", 3.0, 4.0, "no"))))
    assert [u.text for u in read_utterances(folder)[0]] == ["no"]
    recordings = next(folder.glob("recording.*"))
    kept = recordings.read_bytes()
    recordings.unlink()
    with pytest.raises(InputError, match="its recording is missing"):
        read_utterances(folder)
    recordings.write_bytes(kept)
    assert [u.text for u in read_utterances(folder)[0]] == ["no"]


def test_no_corpus(tmp_path):
    with pytest.raises(InputError, match="there is no folder"):
        read_utterances(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match="holds no Lhotse Shar"):
        read_utterances(tmp_path)


def test_a_broken_shard_is_named(tmp_path):
    folder = shar(tmp_path, cut())
    tar = next(folder.glob("recording.*.tar"))
    tar.write_bytes(tar.read_bytes()[:3000])
    with pytest.raises(
        InputError, match=f"^(data: a shard in {folder} cannot be read|Cut a: its audio cannot be read) .*again"
    ) as error:
        read_utterances(folder)
    assert "\n" not in str(error.value)


def test_a_batch_is_padded_to_its_longest():
    batch = collate(
        [np.ones(2, np.float32), np.ones(3, np.float32)],
        [torch.tensor([7, 8]), torch.tensor([9])],
        [torch.tensor([1]), torch.ones(2).long()],
    )
    assert batch.audio.tolist() == [[1, 1, 0], [1, 1, 1]] and batch.audio_lens.tolist() == [2, 3]
    assert batch.tokens.tolist() == [[7, 8], [9, 0]] and batch.token_lens.tolist() == [2, 1]
    assert batch.paths.tolist() == [[1, UNKNOWN], [1, 1]]
    moved = batch.to("meta")
    assert (
        moved.audio.is_meta
        and moved.paths.is_meta
        and collate([np.ones(2, np.float32)], [torch.ones(1)]).to("meta").paths is None
    )


# ---------------------------------------------------------------------- tokens at the time at which they are spoken

SPOKEN = Turn(
    "user", 1.0, 2.4, "What is up?", words=(Word("What", 0, 1.0, 1.4), Word("is", 5, 1.4, 1.6), Word("up", 8, 2.0, 2.4))
)


class WhatIsUp:
    """Cuts `What is up?` as SentencePiece would."""

    pieces = ["▁Wh", "at", "▁is", "▁up", "?"]

    def text_to_tokens(self, text):
        assert "".join(self.pieces).replace("▁", " ").strip() == text
        return self.pieces

    def tokens_to_ids(self, tokens):
        return [10 + self.pieces.index(t) for t in tokens]


def test_a_token_is_there_when_its_last_character_is():
    tokens, times = zip(*token_times(SPOKEN, WhatIsUp()))
    assert tokens == (10, 11, 12, 13, 14)
    assert times == pytest.approx((1.2, 1.4, 1.6, 2.4, 2.4))


def test_the_path_has_one_token_per_frame():
    path = token_path([SPOKEN], 40, WhatIsUp(), blank=0).tolist()
    assert {i: t for i, t in enumerate(path) if t} == {15: 10, 17: 11, 20: 12, 30: 13, 31: 14}
    assert token_path([SPOKEN], 31, WhatIsUp(), blank=0).tolist()[30] == 13, "What comes after the last frame is dropped."


def test_without_word_times_there_is_no_path():
    assert token_times(Turn("user", 0, 1, "What is up?"), WhatIsUp()) == []


def test_what_stands_between_words_belongs_to_the_word_before_it():
    tokenizer = WhatIsUp()
    tokenizer.pieces = ["▁What", "▁is", "▁", "up", "?"]
    assert [time for _, time in token_times(SPOKEN, tokenizer)] == pytest.approx((1.4, 1.6, 1.6, 2.4, 2.4))
