"""What a codec is trained on: read from either form, refused by name."""

from __future__ import annotations

import gzip
import io
import tarfile
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


def test_a_corpus_without_its_recordings_is_named(tmp_path):
    write_agent_shar(tmp_path, 2)
    next((tmp_path / "agent" / "shar").glob("recording.*")).unlink()
    with pytest.raises(
        InputError, match="^training data: none of 2 cuts can be used. All of them: no recording, such as cut agent-0"
    ):
        Recordings(tmp_path, RATE)


def test_a_corpus_gives_its_agent_utterances(tmp_path):
    write_agent_shar(tmp_path, 6)
    read = Recordings(tmp_path, RATE)
    assert read.ids == [f"cut agent-{i}" for i in range(6)]
    assert [len(samples) for samples in read.samples] == [int((0.3 + 0.1 * i) * RATE) for i in range(6)]
    torch.testing.assert_close(read.audio(2), torch.from_numpy(tone(0.5)), atol=1e-4, rtol=0)
    assert Recordings(tmp_path / "agent" / "shar", RATE).ids == read.ids
    assert read.texts == ["yes"] * 6


def test_a_tree_of_wavs(tmp_path, monkeypatch):
    (tmp_path / "b").mkdir()
    soundfile.write(tmp_path / "b" / "2.wav", tone(0.2), RATE)
    soundfile.write(tmp_path / "1.flac", tone(0.1), RATE)
    (tmp_path / "notes.txt").write_text("not audio")
    soundfile.write(tmp_path / "b" / "3.wav", np.array([1.5, -1.5, 0.5] * 74, np.float32), RATE, subtype="FLOAT")
    listed = Path.rglob
    monkeypatch.setattr(Path, "rglob", lambda self, pattern: sorted(listed(self, pattern), reverse=True))  # any order there is
    read = Recordings(tmp_path, RATE)
    assert [len(samples) for samples in read.samples] == [2205, 4410, 222]
    assert read.ids == [str(tmp_path / name) for name in ("1.flac", "b/2.wav", "b/3.wav")]
    assert read.audio(2)[:3].tolist() == pytest.approx([1.0, -1.0, 0.5], abs=1e-4), "Too loud is clipped, not wrapped around."
    assert read.seconds == pytest.approx(0.31, abs=1e-3)


def test_a_folder_without_audio(tmp_path):
    def refused(words):
        with pytest.raises(InputError) as error:
            Recordings(tmp_path / "data", RATE)
        assert words in str(error.value) and "\n" not in str(error.value)

    refused("there is no folder")
    (tmp_path / "data").mkdir()
    refused("is empty")
    (tmp_path / "data" / "notes.txt").write_text("x")
    soundfile.write(tmp_path / "data" / "._1.wav", tone(0.1), RATE)
    refused("no audio files (wav, flac, ogg, mp3)")


WAV = dict(format="WAV", subtype="FLOAT")
ODD = {  # name: (samples or bytes, rate), reason, detail, cure
    "a.wav": ((np.zeros(0), RATE), "no samples", "", "Remove it."),
    "b.wav": ((b"", 0), "no samples", "0 bytes", "Remove it."),
    "c.wav": (
        (b"RIFF not quite", 0),
        "not readable as audio",
        "Format not recognised",
        "Convert it to wav or flac, or remove it.",
    ),
    "d.m4a": ((b"ftypM4A ", 0), "not readable as audio", "Format not recognised", "Convert it to wav or flac, or remove it."),
    "e.wav": ((np.array([0.1, np.nan]), RATE), "samples that are no numbers", "", "Write it again."),
    "f.wav": ((np.full(400, 9e-5), 2 * RATE), "silence alone", "200 samples at 22050 Hz", "Remove it."),
    "g.wav": ((1e4 * tone(0.1), RATE), "samples far beyond full scale", "up to 5000", "Scale them to -1 ... 1."),
    "i.wav": ((np.array([0.5]), 2 * RATE), "too short to be speech", "1 samples at 22050 Hz", "Remove it."),
    "j.wav": ((tone(0.1)[:220], RATE), "too short to be speech", "220 samples at 22050 Hz", "Remove it."),
    "h.wav": (
        (np.stack([tone(0.1), tone(0.1, 0.4)], 1), RATE),
        "channels that differ",
        "2 channels",
        "Give channel=0 for the first of them, or the number of the speaker's.",
    ),
}


def write(path: Path, content: np.ndarray | bytes, rate: int) -> None:
    path.write_bytes(content) if isinstance(content, bytes) else soundfile.write(path, content, rate, **WAV)


@pytest.mark.parametrize("name", ODD)
def test_a_file_that_cannot_be_used_is_left_out(tmp_path, name):
    (content, rate), reason, detail, cure = ODD[name]
    write(tmp_path / name, content, rate)
    path = tmp_path / name
    with pytest.raises(InputError) as error:
        Recordings(tmp_path, RATE)
    what = f"{reason}, such as {path}: {detail}" if detail else f"{reason}, such as {path}"
    assert str(error.value) == f"training data: none of 1 files can be used. 1 of them: {what}. {cure}"
    soundfile.write(tmp_path / "good.wav", tone(0.1), RATE)
    read = Recordings(tmp_path, RATE)
    assert read.ids == [str(tmp_path / "good.wav")] and len(read.left_out) == 1
    found = f"{path}: {detail}" if detail else str(path)
    assert read.left_out.describe() == {reason: {"count": 1, "first": [found]}}
    assert read.summary() == ["training data: 1 utterances, 0.0 minutes, 1 left out", f"  1 x {reason}: {found}"]


def test_a_folder_of_odd_files_goes_on_until_they_are_more_than_the_share(tmp_path):
    for name, ((content, rate), *_) in ODD.items():
        write(tmp_path / name, content, rate)
    for i in range(2):
        soundfile.write(tmp_path / f"good{i}.wav", tone(0.1), RATE)
    assert len(Recordings(tmp_path, RATE, max_odd_rows=0.84)) == 2
    with pytest.raises(InputError) as error:
        Recordings(tmp_path, RATE, max_odd_rows=0.83)
    words = str(error.value)
    assert words.startswith(
        "training data: 10 of 12 files cannot be used, more than max_odd_rows=0.83 allows. 2 of them: no samples"
    )
    assert words.endswith("To go on with the other 2, set max_odd_rows=0.84.")


def test_any_rate_is_resampled_and_any_usual_format_read(tmp_path):
    """One second of a tone of 441 Hz; a file of a lower rate lacks what is above."""
    (tmp_path / "Take 1").mkdir()
    names = {
        "1.WAV": (44100, {"format": "WAV"}),
        "Take 1/2.flac": (48000, {}),
        "Take 1/3.ogg": (RATE, {}),
        "4.Mp3": (44100, {"format": "MP3"}),
        "5.opus": (48000, {"format": "OGG", "subtype": "OPUS"}),
        "6.aiff": (8000, {}),
        "7.wav": (16000, {}),
    }
    for name, (rate, form) in names.items():
        wave = 0.5 * np.sin(2 * np.pi * 441 * np.arange(rate) / rate)
        soundfile.write(tmp_path / name, wave, rate, **form)
    read = Recordings(tmp_path, RATE)
    assert read.ids == [
        str(tmp_path / name) for name in ("1.WAV", "4.Mp3", "5.opus", "6.aiff", "7.wav", "Take 1/2.flac", "Take 1/3.ogg")
    ]
    assert len(read.left_out) == 0
    expected = 0.5 * np.sin(2 * np.pi * 441 * np.arange(RATE) / RATE)
    for name, samples in zip(read.ids, range(len(read))):
        audio = read.audio(samples).numpy()
        lossless = not name.endswith(("Mp3", "opus", "ogg"))
        assert len(audio) == RATE if lossless else abs(len(audio) - RATE) < 2400, name
        middle = audio[5000:15000]
        if lossless:
            assert np.abs(middle - expected[5000:15000]).max() < 0.01, name
        else:
            assert abs(np.abs(np.fft.rfft(middle)).argmax() * RATE / 10000 - 441) < 2 and 0.4 < middle.max() < 0.6, name
    assert read.summary() == [
        f"training data: 7 utterances, {read.seconds / 60:.1f} minutes, 0 left out",
        "  resampled from 8000 to 22050 Hz: 1; they hold nothing above 4000 Hz",
        "  resampled from 16000 to 22050 Hz: 1; they hold nothing above 8000 Hz",
        "  resampled from 44100 to 22050 Hz: 2",
        "  resampled from 48000 to 22050 Hz: 2",
    ]


def test_which_channel(tmp_path):
    left, right, silence = tone(0.1, 0.5), tone(0.1, 0.25), np.zeros(2205, np.float32)

    def read(*channels, channel=None):
        soundfile.write(tmp_path / "a.wav", np.stack(channels, 1), RATE)
        return float(Recordings(tmp_path, RATE, channel).audio(0).abs().max())

    assert read(left, left) == pytest.approx(0.5, abs=1e-3)
    assert read(left, 0.99 * left) == pytest.approx(0.4975, abs=1e-3), "The same voice: the mean of both."
    assert read(silence, right) == pytest.approx(0.25, abs=1e-3), "A channel without sound is none."
    assert read(left, right, channel=1) == pytest.approx(0.25, abs=1e-3)
    assert read(left, right, channel=0) == pytest.approx(0.5, abs=1e-3)
    assert read(left, channel=3) == pytest.approx(0.5, abs=1e-3), "A mono file has the speaker alone."
    with pytest.raises(InputError, match="channels that differ, such as .*2 channels. Give channel=0"):
        read(left, right)
    with pytest.raises(
        InputError, match="fewer channels than channel= asks for, .*2, asked for 2. Give a channel= from 0 to 1"
    ):
        read(left, right, channel=2)
    with pytest.raises(InputError, match="silence alone"):
        read(silence, silence)


def test_a_long_recording_is_several_utterances(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(20.0), RATE)
    soundfile.write(tmp_path / "b.wav", tone(50.0), RATE)
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(name)
    read = Recordings(tmp_path, RATE)
    assert read.ids == [str(tmp_path / "a.wav")] + [f"{tmp_path / 'b.wav'} part {number}" for number in (1, 2, 3)]
    assert [len(samples) for samples in read.samples] == [20 * RATE, 367500, 367500, 367500]
    assert read.texts == ["a", "", "", ""], "Which part says what of a text is not known."
    whole = torch.cat([read.audio(i) for i in (1, 2, 3)])
    torch.testing.assert_close(whole, torch.from_numpy(tone(50.0)), atol=1e-4, rtol=0)
    assert read.split(40) == ([1, 2, 3], [0])


def test_cuts_of_a_shar_that_cannot_be_used_are_left_out(tmp_path):
    """A cut whose audio is broken, in a shard that is whole."""
    write_agent_shar(tmp_path, 6)
    tar = tmp_path / "agent" / "shar" / "recording.000000.tar"
    with tarfile.open(tar) as archive:
        members = [(member, archive.extractfile(member).read()) for member in archive.getmembers()]
    with tarfile.open(tar, "w") as archive:
        for member, content in members:
            if member.name == "agent-1.flac":
                content = b"\0" * len(content)
            archive.addfile(member, io.BytesIO(content))
    read = Recordings(tmp_path, RATE)
    assert read.ids == [f"cut agent-{i}" for i in (0, 2, 3, 4, 5)]
    ((reason, found),) = read.left_out.describe().items()
    assert (reason, found["count"]) == ("not readable as audio", 1) and found["first"][0].startswith("cut agent-1: ")


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
