"""Cuts become batches; a cut that cannot is named."""

import numpy as np
import pytest
import torch
from lhotse import CutSet, MonoCut, Recording
from lhotse.audio import AudioSource

from nemo_duplex.conversation import Conversation, Turn
from nemo_duplex.data.dataset import DuplexS2SDataset
from nemo_duplex.inputs import InputError
from tests.dummies import Letters, wav_bytes


def recording(name, seconds, rate, channels=1):
    samples = np.zeros((round(seconds * rate), channels), np.float32).squeeze()
    source = AudioSource("memory", list(range(channels)), wav_bytes(samples, rate))
    return Recording(name, [source], rate, round(seconds * rate), seconds)


TURNS = (Turn("agent", 0.4, 0.8, "ab"), Turn("user", 0.1, 0.3, "q"))


def cut(name="a", seconds=1.6, rate=16000, agent=True, turns=TURNS):
    supervisions = Conversation(name, seconds, turns).to_supervisions()
    made = MonoCut(name, 0, seconds, 0, recording=recording(name, seconds, rate), supervisions=supervisions)
    if agent:
        made.target_audio = recording(name + "-agent", seconds, 22050)
    return made


def batch_of(*cuts):
    return DuplexS2SDataset(Letters())[CutSet.from_cuts(cuts)]


def test_shapes_and_padding():
    batch = batch_of(cut("a"), cut("b", seconds=0.88, turns=()))
    assert batch.ids == ["a", "b"]
    assert batch.user_audio.shape == (2, 25600) and batch.user_audio_lens.tolist() == [25600, 14080]
    assert batch.agent_tokens.shape == (2, 20) and batch.num_frames.tolist() == [20, 11]
    assert batch.agent_tokens[0, 5:11].tolist() == [1, 97, 98, 0, 0, 2]
    assert batch.valid.sum().item() == 31
    assert batch.agent_codes is None and batch.agent_audio.shape == (2, 35280)


def test_other_rates_are_resampled():
    assert batch_of(cut(rate=8000)).user_audio.shape == (1, 25600)


def test_codes_that_lie_with_the_cut_are_taken(monkeypatch):
    given = torch.arange(40).reshape(20, 2)
    made = cut()
    made.target_codes = made.target_audio  # any field; what counts is that it is loaded, not how it is stored
    monkeypatch.setattr(MonoCut, "load_target_codes", lambda self: given.numpy(), raising=False)
    assert torch.equal(batch_of(made).agent_codes, given.T[None])
    monkeypatch.setattr(MonoCut, "load_target_codes", lambda self: given.numpy()[:-1], raising=False)
    with pytest.raises(InputError, match="Cut a has 19 frames of codes for 20"):
        batch_of(made)


def test_bad_cuts_are_named():
    with pytest.raises(InputError, match="Cut x has no agent channel"):
        batch_of(cut("x", agent=False))
    stranger = cut("y")
    stranger.supervisions[0].speaker = "assistant"
    with pytest.raises(InputError, match="Cut y.*'assistant'"):
        batch_of(stranger)
