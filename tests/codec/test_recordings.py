"""What a codec is trained on: read from either form, refused by name."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from lhotse import Recording, SupervisionSegment
from lhotse.cut import MonoCut
from lhotse.shar import SharWriter

from nemo_duplex.codec.recordings import Crops, Recordings
from nemo_duplex.inputs import InputError

RATE = 22050


def tone(seconds: float, level: float = 0.5) -> np.ndarray:
    return (level * np.sin(np.arange(int(seconds * RATE)) * 0.1)).astype(np.float32)


def write_agent_shar(folder, count, rate=RATE):
    shar = folder / "agent" / "shar"
    shar.mkdir(parents=True)
    with SharWriter(str(shar), fields={"recording": "flac"}, shard_size=4) as writer:
        for i in range(count):
            path = folder / f"{i}.wav"
            soundfile.write(path, tone(0.3 + 0.1 * i), rate)
            recording = Recording.from_file(path, recording_id=f"agent-{i}")
            spoken = SupervisionSegment(f"agent-{i}", f"agent-{i}", 0, recording.duration, text="yes", speaker="agent")
            writer.write(MonoCut(f"agent-{i}", 0, recording.duration, 0, [spoken], recording=recording))
            path.unlink()


def test_a_corpus_gives_its_agent_utterances(tmp_path):
    write_agent_shar(tmp_path, 6)
    read = Recordings(tmp_path, RATE)
    assert read.ids == [f"cut agent-{i}" for i in range(6)]
    assert [len(samples) for samples in read.samples] == [int((0.3 + 0.1 * i) * RATE) for i in range(6)]
    torch.testing.assert_close(read.audio(2), torch.from_numpy(tone(0.5)), atol=1e-4, rtol=0)
    assert Recordings(tmp_path / "agent" / "shar", RATE).ids == read.ids


def test_a_tree_of_wavs(tmp_path, monkeypatch):
    (tmp_path / "b").mkdir()
    soundfile.write(tmp_path / "b" / "2.wav", tone(0.2), RATE)
    soundfile.write(tmp_path / "1.flac", tone(0.1), RATE)
    (tmp_path / "notes.txt").write_text("not audio")
    soundfile.write(tmp_path / "b" / "3.wav", np.array([1.5, -1.5, 0.5], np.float32), RATE, subtype="FLOAT")
    listed = Path.rglob
    monkeypatch.setattr(Path, "rglob", lambda self, pattern: sorted(listed(self, pattern), reverse=True))  # any order there is
    read = Recordings(tmp_path, RATE)
    assert [len(samples) for samples in read.samples] == [2205, 4410, 3]
    assert read.ids == [str(tmp_path / name) for name in ("1.flac", "b/2.wav", "b/3.wav")]
    assert read.audio(2).tolist() == pytest.approx([1.0, -1.0, 0.5], abs=1e-4), "Too loud is clipped, not wrapped around."
    assert read.seconds == pytest.approx(0.3, abs=1e-3)


def test_bad_data_is_named(tmp_path):
    def refused(words):
        with pytest.raises(InputError) as error:
            Recordings(tmp_path / "data", RATE)
        assert words in str(error.value) and "\n" not in str(error.value)

    refused("there is no folder")
    (tmp_path / "data").mkdir()
    refused("is empty")
    (tmp_path / "data" / "notes.txt").write_text("x")
    refused("no wav or flac files")
    wav = tmp_path / "data" / "a.wav"
    soundfile.write(wav, tone(0.1), 16000)
    refused("a.wav has 16000 Hz, expected 22050 Hz")
    soundfile.write(wav, np.stack([tone(0.1)] * 2, 1), RATE)
    refused("a.wav has 2 channels")
    soundfile.write(wav, np.array([0.1, np.nan], np.float32), RATE, subtype="FLOAT")
    refused("a.wav is not a number in places")
    soundfile.write(wav, np.zeros(0), RATE)
    refused("a.wav is empty")
    wav.write_bytes(b"RIFF not quite")
    refused("a.wav is unreadable")


def test_a_broken_shar_is_named(tmp_path):
    write_agent_shar(tmp_path, 2)
    shar = tmp_path / "agent" / "shar"
    tar = shar / "recording.000000.tar"
    tar.write_bytes(tar.read_bytes()[:700])
    with pytest.raises(InputError, match="not a readable Shar folder"):
        Recordings(tmp_path, RATE)
    with gzip.open(shar / "cuts.000000.jsonl.gz", "wt") as file:
        file.write("no json\n")
    with pytest.raises(InputError, match="not a readable Shar folder"):
        Recordings(tmp_path, RATE)


def recordings(tmp_path, count=12):
    for i in range(count):
        soundfile.write(tmp_path / f"{i:02d}.wav", tone(0.2 + 0.02 * i), RATE)
    return Recordings(tmp_path, RATE)


def test_held_out_utterances_are_not_trained_on(tmp_path):
    kept, held_out = recordings(tmp_path, 30).split(40)
    assert held_out == [0, 10, 20] and sorted(kept + held_out) == list(range(30))
    assert Recordings(tmp_path, RATE).split(2)[1] == [0, 15]


def test_one_utterance_is_enough(tmp_path):
    assert recordings(tmp_path, 1).split(40) == ([0], [0])


def test_crops_repeat_with_the_seed_and_stick_out_at_most_the_margin(tmp_path):
    data = recordings(tmp_path)
    crops = [next(it) for it in [iter(Crops(data, list(range(12)), 3000, 500, (0, 1)))] for _ in range(50)]
    again = [next(it) for it in [iter(Crops(data, list(range(12)), 3000, 500, (0, 1)))] for _ in range(50)]
    other = [next(it) for it in [iter(Crops(data, list(range(12)), 3000, 500, (0, 2)))] for _ in range(50)]
    assert all(torch.equal(a, b) for a, b in zip(crops, again))
    assert not all(torch.equal(a, b) for a, b in zip(crops, other))
    assert all(crop.shape == (3000,) and crop.dtype == torch.float32 for crop in crops)
    for side in (crops, [crop.flip(0) for crop in crops]):
        outside = [int((crop != 0).nonzero()[0]) for crop in side]
        assert 100 < max(outside) <= 501, "Crops stick out at both ends."


def test_every_second_is_drawn_as_often_as_any_other(tmp_path):
    soundfile.write(tmp_path / "long.wav", np.full(9000, 0.5, np.float32), RATE)
    soundfile.write(tmp_path / "short.wav", np.full(1000, 0.25, np.float32), RATE)
    crops = iter(Crops(Recordings(tmp_path, RATE), [0, 1], 500, 0, (0,)))
    drawn = torch.stack([next(crops) for _ in range(300)])
    assert drawn.min() > 0.2, "Without a margin crops lie inside."
    levels = drawn.amax(dim=1).tolist()
    assert 0.85 < sum(level > 0.4 for level in levels) / 300 < 0.95
    soundfile.write(tmp_path / "a.wav", np.full(1000, 0.9, np.float32), RATE)  # the first one, which is not trained on
    crops = iter(Crops(Recordings(tmp_path, RATE), [1, 2], 500, 0, (0,)))
    levels = [float(next(crops).max()) for _ in range(300)]
    assert 0.85 < sum(0.4 < level < 0.6 for level in levels) / 300 < 0.95 and max(levels) < 0.6


def test_an_utterance_shorter_than_a_crop_is_filled_up(tmp_path):
    data = recordings(tmp_path, 1)
    crop = next(iter(Crops(data, [0], 10000, 0, (0,))))
    assert torch.equal(crop[: len(data.samples[0])], data.audio(0)) and crop[len(data.samples[0]) :].abs().max() == 0
