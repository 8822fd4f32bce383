"""Recordings beside a codec that it was not trained on, and what two codecs make of them."""

import numpy as np
import pytest
import soundfile
import torch

from nemo_duplex.codec.fsq_codec import FSQCodec
from nemo_duplex.codec.held_out import compare_on, write_held_out
from nemo_duplex.codec.reconstruction import mel_distance
from nemo_duplex.codec.recordings import Recordings
from nemo_duplex.inputs import InputError
from tests.codec.codecs import hifigan_config, lively
from tests.dummies import CODEC, speech_like

RATE = 22050


@pytest.fixture
def recordings(tmp_path):
    for number in range(4):
        soundfile.write(tmp_path / f"{number}.wav", speech_like(0.5 + 0.1 * number, number, RATE).clamp(-1, 1).numpy(), RATE)
    (tmp_path / "2.txt").write_text("Guten Tag, grüß Gott!", encoding="utf-8")
    return tmp_path


def test_utterances_are_written_sample_by_sample_with_their_texts(recordings, tmp_path):
    read = Recordings(recordings, RATE)
    (tmp_path / "out" / "held_out").mkdir(parents=True)
    (tmp_path / "out" / "held_out" / "of before.flac").write_text("older")
    write_held_out(tmp_path / "out", read, [2, 0])
    folder = tmp_path / "out" / "held_out"
    assert sorted(p.name for p in folder.iterdir()) == ["000.flac", "000.txt", "001.flac"]
    assert (folder / "000.txt").read_text(encoding="utf-8") == "Guten Tag, grüß Gott!"
    for name, index in (("000", 2), ("001", 0)):
        samples, rate = soundfile.read(folder / f"{name}.flac", dtype="int16")
        assert rate == RATE and np.array_equal(samples, read.samples[index].numpy())


def test_two_codecs_on_the_same_recordings(recordings, tmp_path):
    before, after = lively(CODEC), lively(CODEC)
    with torch.no_grad():
        after.model.audio_decoder.head.weight.mul_(0.2)
    found = compare_on(before, after, recordings, tmp_path / "sounds", examples=2)
    read = Recordings(recordings, RATE)
    expected, nearer = {}, []
    for name, codec in {"before": before, "after": after}.items():
        distances = []
        for i in range(4):
            audio = read.audio(i)
            codes, frames = codec.encode(audio[None], torch.tensor([len(audio)]))
            distances.append(mel_distance(audio, codec.decode(codes, frames)[0][0, : len(audio)], RATE))
        expected[name] = round(float(np.mean(distances)), 4)
        nearer.append(distances)
    assert expected["before"] != expected["after"]
    assert found == {
        "recordings": 4,
        "mel_distance": expected,
        "nearer": sum(new < old for old, new in zip(*nearer)),
    }
    names = [f"{i:03d}-{name}.wav" for i in (0, 2) for name in ("after", "before", "recorded")]
    assert sorted(p.name for p in (tmp_path / "sounds").iterdir()) == names
    recorded, _ = soundfile.read(tmp_path / "sounds" / "002-recorded.wav", dtype="float32")
    sound, rate = soundfile.read(tmp_path / "sounds" / "002-after.wav", dtype="float32")
    assert rate == RATE and np.abs(recorded - read.audio(2).numpy()).max() < 1e-4 and len(sound) == len(recorded)
    codes, frames = after.encode(read.audio(2)[None], torch.tensor([len(recorded)]))
    assert np.abs(sound - after.decode(codes, frames)[0][0, : len(sound)].clamp(-1, 1).numpy()).max() < 1e-4
    assert compare_on(before, before, recordings, tmp_path / "sounds")["nearer"] == 0


def test_codecs_of_two_rates_are_not_compared(recordings, tmp_path):
    other = FSQCodec(hifigan_config(2, [3, 3, 2, 2], [4, 4, 3, 2], sample_rate=16000))
    with pytest.raises(InputError, match="22050 Hz and 16000 Hz: .* Give no data="):
        compare_on(lively(CODEC), other, recordings, tmp_path / "sounds")
