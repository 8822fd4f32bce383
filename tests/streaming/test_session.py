"""The invariant of the project: what a session says equals offline inference, whatever the chunks and whoever else calls."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nemo_duplex.channels.transcript import Transcript
from nemo_duplex.frames import FRAME_RATE
from nemo_duplex.inputs import InputError
from tests.dummies import speech_like, tiny_model

CHUNKS = {"1 frame": [1280], "odd": [1, 7, 1279, 333, 2048], "10 s": [160000], "20 ms": [320]}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model"))


def offline(model, *signals):
    lens = torch.tensor([len(s) for s in signals])
    return model.offline_inference(torch.nn.utils.rnn.pad_sequence(list(signals), batch_first=True), lens)


def stream(model, signal, chunks):
    session, frames, start, i = model.open_session(), [], 0, 0
    while start < len(signal):
        size = chunks[i % len(chunks)]
        frames += session.push(signal[start : start + size].numpy())
        start, i = start + size, i + 1
    return frames + session.flush(), session


@pytest.mark.parametrize("chunks", CHUNKS.values(), ids=CHUNKS)
def test_a_session_equals_offline_inference(model, chunks):
    signal = speech_like(9.5)[: 9 * 16000 + 4321]  # past the attention window, and no whole number of frames
    whole = offline(model, signal)
    frames, _ = stream(model, signal, chunks)
    assert [f.index for f in frames] == list(range(int(whole["tokens_len"][0])))
    assert [f.token for f in frames] == whole["tokens_text"][0].tolist()
    assert np.array_equal(np.stack([f.codes for f in frames]), whole["tokens_audio"][0].numpy())
    assert np.abs(np.concatenate([f.audio for f in frames]) - whole["audio"][0].numpy()).max() < 1e-4
    assert (whole["tokens_audio"] < model.layout.codebook_size).any(), "A silent model would prove nothing."
    assert whole["tokens_text"].unique().numel() > 3


def test_offline_rows_do_not_depend_on_each_other(model):
    signals = [speech_like(s, seed) for seed, s in enumerate((3.0, 5.13, 0.04))]
    together = offline(model, *signals)
    for i, signal in enumerate(signals):
        alone = offline(model, signal)
        frames = int(alone["tokens_len"][0])
        assert int(together["tokens_len"][i]) == frames == -(-len(signal) // 1280)
        assert torch.equal(together["tokens_text"][i, :frames], alone["tokens_text"][0])
        assert torch.equal(together["tokens_audio"][i, :frames], alone["tokens_audio"][0])
        samples = int(alone["audio_len"][0])
        assert int(together["audio_len"][i]) == samples == frames * 1764
        assert (together["audio"][i, :samples] - alone["audio"][0]).abs().max() < 1e-4
        assert together["text"][i] == alone["text"][0]


def test_two_sessions_do_not_disturb_each_other(model):
    first, second = speech_like(3, seed=1), speech_like(3, seed=2)
    a, b = model.open_session(), model.open_session()
    heard = {"a": [], "b": []}
    for start in range(0, 48000, 1600):
        heard["a"] += a.push(first[start : start + 1600].numpy())
        heard["b"] += b.push(second[start : start + 1600].numpy())
    for name, signal, session in (("a", first, a), ("b", second, b)):
        tokens = [f.token for f in heard[name] + session.flush()]
        assert tokens == offline(model, signal)["tokens_text"][0].tolist()


def test_the_text_of_the_frames_is_the_text_of_the_transcript(model):
    frames, session = stream(model, speech_like(8), [1280])
    turns = session.transcript.agent
    assert turns, "A silent model would prove nothing."
    assert "".join(f.text for f in frames).replace(" ", "") == "".join(t.text for t in turns).replace(" ", "")
    assert all(turn.end <= session.transcript.duration for turn in turns)


def test_silence_is_a_session_too(model):
    session = model.open_session()
    assert session.flush() == [] and session.transcript.duration == 0


def test_bad_pushes_are_refused_in_one_line(model):
    session = model.open_session()
    with pytest.raises(InputError, match=r"float32 samples of shape \(S,\), got int16 of shape .10,.. Divide int16 by 32768"):
        session.push(np.zeros(10, np.int16))
    with pytest.raises(InputError, match=r"shape \(2, 10\)"):
        session.push(np.zeros((2, 10), np.float32))
    with pytest.raises(InputError, match="not finite"):
        session.push(np.array([0.0, np.nan], np.float32))
    session.push(np.zeros(10, np.float32))
    session.flush()
    with pytest.raises(InputError, match="flushed"):
        session.push(np.zeros(10, np.float32))
    session.close()
    session.close()
    with pytest.raises(InputError, match="closed"):
        session.flush()


class Bytes:
    """A tokenizer of one id per byte, as byte-level BPE has them for what it rarely saw."""

    def ids_to_text(self, ids):
        return bytes(ids).decode(errors="replace")


def test_a_character_is_shown_when_all_of_it_is_there():
    layout = SimpleNamespace(text_bos=1, text_eos=2, text_pad=0, text_lead=2, text_tail=1, speech_delay=1)
    model = SimpleNamespace(layout=layout, tokenizer=Bytes(), perception=SimpleNamespace(frame_rate=FRAME_RATE))
    transcript = Transcript(model.layout, model.tokenizer, model.perception.frame_rate)
    tokens = [1, *"né😀".encode(), 0, ord("!"), 0xC3, 2, ord("o"), 0xC3]
    shown = [transcript.add(i, token) for i, token in enumerate(tokens)]
    assert shown == ["", "n", "", "é", "", "", "", "😀", "", "!", "", "\ufffd", "o", ""]
    assert [turn.text for turn in transcript.conversation(len(tokens)).agent] == ["né😀!\ufffd", "o\ufffd"]
