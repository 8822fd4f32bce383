"""The sound of a channel: in memory, in a file, in a cut."""

import numpy as np
import pytest
import soundfile

from nemo_duplex.evaluation.sound import CutSound, Samples, SoundFile
from nemo_duplex.inputs import InputError
from tests.evaluation.agents import cut_of, dialogue


def test_each_channel_of_a_file_is_a_sound(tmp_path):
    both = np.stack([np.full(100, 0.25), np.full(100, -0.5)], axis=1)
    soundfile.write(tmp_path / "both.wav", both, 8000, subtype="PCM_16")
    for channel, level in enumerate((0.25, -0.5)):
        sound = SoundFile(tmp_path / "both.wav", 8000, channel).samples()
        assert sound.dtype == np.float32 and sound.tolist() == [level] * 100


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "torn.wav").write_bytes(b"RIFF")
    with pytest.raises(InputError, match="torn.wav cannot be read as audio"):
        SoundFile(tmp_path / "torn.wav", 8000).samples()


def test_memory_keeps_sixteen_bits():
    kept = Samples.of(np.array([0.0, -0.5, 3.0], np.float32), 16000)
    assert kept.values.tolist() == [0, -16383, 32767]
    assert kept.samples() == pytest.approx([0, -0.5, 1], abs=1e-4)


def test_both_channels_of_a_cut():
    cut = cut_of(dialogue("d"))
    user, agent = CutSound(cut, "recording"), CutSound(cut, "target_audio")
    assert (user.sample_rate, agent.sample_rate) == (16000, 22050)
    assert user.samples().shape == (256000,) and np.abs(user.samples()[16000:40000]).max() > 0.1
    assert agent.samples().shape == (352800,) and not agent.samples()[22050 : 2 * 22050].any()
