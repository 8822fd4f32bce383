"""Codes of a corpus: those of the whole agent channel, made once, complete or not there."""

from __future__ import annotations

import json
import tarfile

import numpy as np
import pytest
import torch
from lhotse import CutSet, Recording
from lhotse.cut import MonoCut
from lhotse.shar import SharWriter

from nemo_duplex.codec import precompute
from nemo_duplex.codec.fsq_codec import FSQCodec
from nemo_duplex.codec.precompute import add_codes
from nemo_duplex.inputs import InputError
from tests.codec.codecs import lively
from tests.dummies import CODEC, speech_like, wav_bytes


@pytest.fixture(scope="module")
def codec() -> FSQCodec:
    return lively(CODEC)


def recording(name, seconds, rate, seed=0, channels=1):
    audio = speech_like(seconds, seed, rate).numpy()
    return Recording.from_bytes(wav_bytes(np.stack([audio] * channels, axis=1), rate), name)


def write_corpus(folder, seconds=(0.8, 1.6, 0.4, 1.2, 0.8), agent_rate=22050, agent_channels=1):
    shar = folder / "train" / "shar"
    shar.mkdir(parents=True, exist_ok=True)
    with SharWriter(str(shar), fields={"recording": "flac", "target_audio": "flac"}, shard_size=2) as writer:
        for i, duration in enumerate(seconds):
            cut = MonoCut(f"cut-{i}", 0, duration, 0, recording=recording(f"cut-{i}", duration, 16000))
            cut.target_audio = recording(f"cut-{i}", duration, agent_rate, i, agent_channels)
            writer.write(cut)
    return shar


def test_an_agent_channel_that_is_named_and_not_there_is_refused(tmp_path, codec):
    shar = write_corpus(tmp_path)
    short, whole = (shar / f"target_audio.00000{i}.tar" for i in (1, 0))
    kept = short.read_bytes()
    short.unlink()
    with pytest.raises(InputError, match="holds no target_audio.000001.tar, the agent's channel"):
        add_codes(shar, codec)
    short.write_bytes(kept)
    with tarfile.open(whole) as tar, tarfile.open(tmp_path / "one.tar", "w") as one:
        for member in tar.getmembers()[:2]:  # of the first cut alone
            one.addfile(member, tar.extractfile(member))
    (tmp_path / "one.tar").replace(whole)
    with pytest.raises(
        InputError, match="shard 000000 of .* has 2 cuts and the agent's channel of 1. Copy or write the corpus"
    ):
        add_codes(shar, codec)
    assert not list(shar.glob("target_codes.*")), "nothing half-written"


def stored_codes(shar):
    return {cut.id: cut.load_target_codes() for cut in CutSet.from_shar(in_dir=str(shar))}


def test_cuts_carry_the_codes_of_their_agent_channel(tmp_path, codec):
    shar = write_corpus(tmp_path)
    assert add_codes(shar, codec, batch_size=2) == 5
    cuts = list(CutSet.from_shar(in_dir=str(shar)))
    assert len(cuts) == 5
    for cut in cuts:
        audio = torch.from_numpy(cut.load_target_audio())
        codes, _ = codec.encode(audio, torch.tensor([audio.shape[1]]))
        stored = cut.load_target_codes()
        assert stored.shape == (round(cut.duration / 0.08), 2) and stored.dtype == np.int16
        assert cut.target_codes.shape == list(stored.shape), "Nothing that padded a batch is stored."
        assert np.array_equal(stored, codes[0].T.numpy())
    # a shorter piece of a cut takes its own frames along
    piece = cuts[1].truncate(offset=0.4, duration=0.8)
    assert np.array_equal(piece.load_target_codes(), cuts[1].load_target_codes()[5:15])


def test_called_again_it_does_nothing(tmp_path, codec):
    shar = write_corpus(tmp_path)
    assert add_codes(shar, codec, batch_size=1) == 5
    times = {path.name: path.stat().st_mtime_ns for path in shar.iterdir()}
    assert add_codes(shar, codec) == 0
    assert times == {path.name: path.stat().st_mtime_ns for path in shar.iterdir()}
    assert [path.name for path in (shar.parent / "state").iterdir()] == ["target_codes.json"]


def test_interrupted_it_goes_on_and_the_corpus_stays_readable(tmp_path, codec, monkeypatch):
    shar = write_corpus(tmp_path)
    encode, calls = precompute._encode_shard, []

    def interrupted(shar, shard, codec, batch_size, path):
        calls.append(shard)
        count = encode(shar, shard, codec, batch_size, path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return count

    monkeypatch.setattr(precompute, "_encode_shard", interrupted)
    with pytest.raises(KeyboardInterrupt):
        add_codes(shar, codec)
    assert len(list(CutSet.from_shar(in_dir=str(shar)))) == 5 and not list(shar.glob("target_codes*"))
    assert add_codes(shar, codec) == 3  # the two shards that were not finished
    assert calls == ["000000", "000001", "000001", "000002"]
    assert len(stored_codes(shar)) == 5


@pytest.mark.parametrize("other", ["codec", "audio"])
def test_what_was_begun_for_another_codec_or_other_audio_is_not_taken_over(tmp_path, codec, monkeypatch, other):
    shar = write_corpus(tmp_path)
    encode = precompute._encode_shard

    def interrupted(shar, shard, *arguments):
        if shard == "000001":
            raise KeyboardInterrupt
        return encode(shar, shard, *arguments)

    monkeypatch.setattr(precompute, "_encode_shard", interrupted)
    with pytest.raises(KeyboardInterrupt):
        add_codes(shar, lively(CODEC, seed=7) if other == "codec" else codec)
    monkeypatch.undo()
    if other == "audio":
        for path in shar.iterdir():
            path.unlink()
        write_corpus(tmp_path, seconds=(1.6, 1.6, 0.4, 1.2, 0.8))
    assert add_codes(shar, codec) == 5, "the first shard too"
    first = next(iter(CutSet.from_shar(in_dir=str(shar))))
    audio = torch.from_numpy(first.load_target_audio())
    codes, _ = codec.encode(audio, torch.tensor([audio.shape[1]]))
    assert np.array_equal(first.load_target_codes(), codes[0].T.numpy())


def test_a_kill_while_codes_are_replaced_leaves_nothing_that_passes_for_done(tmp_path, codec, monkeypatch):
    shar = write_corpus(tmp_path)
    add_codes(shar, codec)
    other = lively(CODEC, seed=7)
    replace, moved = precompute.os.replace, []

    def killed(source, target):
        if precompute.FIELD in str(target) and target.parent == shar:
            moved.append(target)
            if len(moved) == 2:
                raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(precompute.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        add_codes(shar, other, replace=True)
    monkeypatch.undo()
    assert not (shar.parent / "state" / "target_codes.json").exists()
    add_codes(shar, codec)
    assert json.loads((shar.parent / "state" / "target_codes.json").read_text())["codec"] == codec.fingerprint
    codes, _ = codec.encode(
        torch.from_numpy(next(iter(CutSet.from_shar(in_dir=str(shar)))).load_target_audio()), torch.tensor([17640])
    )
    assert np.array_equal(stored_codes(shar)["cut-0"], codes[0].T.numpy())


def test_codes_of_another_codec_are_kept_unless_told(tmp_path, codec):
    shar = write_corpus(tmp_path)
    add_codes(shar, codec)
    before = stored_codes(shar)
    other = lively(CODEC, seed=7)
    with pytest.raises(InputError, match="holds codes of another codec"):
        add_codes(shar, other)
    assert add_codes(shar, other, replace=True) == 5
    after = stored_codes(shar)
    assert any(not np.array_equal(before[name], after[name]) for name in before)
    assert json.loads((shar.parent / "state" / "target_codes.json").read_text())["codec"] == other.fingerprint


def test_a_decoder_that_learns_keeps_the_codes_valid(tmp_path, codec):
    shar = write_corpus(tmp_path)
    add_codes(shar, codec)
    personal = FSQCodec(codec.config)
    personal.load_state_dict(codec.state_dict())
    with torch.no_grad():
        personal.model.audio_decoder.head.weight.mul_(1.1)
    assert add_codes(shar, personal) == 0


def test_audio_that_changed_is_noticed(tmp_path, codec):
    shar = write_corpus(tmp_path)
    add_codes(shar, codec)
    for path in shar.iterdir():
        path.unlink()
    write_corpus(tmp_path, seconds=(0.8, 0.8))
    assert add_codes(shar, codec) == 2
    write_corpus(tmp_path, seconds=(1.6, 1.6))
    with pytest.raises(InputError, match="holds codes of other audio"):
        add_codes(shar, codec)


def test_a_cut_that_does_not_fit_is_named(tmp_path, codec):
    def refused(shar, words):
        with pytest.raises(InputError, match=words) as error:
            add_codes(shar, codec)
        assert "\n" not in str(error.value) and not list(shar.glob("*target_codes*"))

    refused(
        write_corpus(tmp_path / "rate", agent_rate=16000), "Cut cut-0: the agent's channel has 16000 Hz, the codec 22050 Hz"
    )
    stereo = write_corpus(tmp_path / "stereo", agent_channels=2)
    refused(stereo, "Cut cut-0: the agent's channel has 2 channels, expected one")
    shar = write_corpus(tmp_path / "short", seconds=(0.8, 0.8))
    audio = shar / "target_audio.000000.tar"
    audio.write_bytes((write_corpus(tmp_path / "other", seconds=(0.8, 0.4)) / audio.name).read_bytes())
    refused(shar, "Cut cut-1: the agent's channel lasts 5 frames, the user's 10")
    audio.write_bytes(audio.read_bytes()[:-12000])
    refused(shar, "cannot be read")


def test_folders_that_are_no_corpus(tmp_path, codec):
    with pytest.raises(InputError, match="there is no folder"):
        add_codes(tmp_path / "none", codec)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match="holds no cuts"):
        add_codes(tmp_path, codec)
    shar = write_corpus(tmp_path)
    (shar / "target_audio.000001.tar").unlink()
    with pytest.raises(InputError, match="holds no target_audio.000001.tar"):
        add_codes(shar, codec)


def test_a_corpus_as_the_errors_say_it_should_be_gets_its_codes(tmp_path, codec):
    shar = write_corpus(tmp_path)
    audio = shar / "target_audio.000000.tar"
    kept = audio.rename(tmp_path / "kept.tar")
    with pytest.raises(InputError, match="Copy it too, or write the corpus again"):
        add_codes(shar, codec)
    kept.rename(audio)
    assert add_codes(shar, codec) == 5
    (shar / "target_codes.000001.tar").write_bytes(b"broken")
    for codes in shar.glob("target_codes.*"):  # "Delete its target_codes and make them again"
        codes.unlink()
    assert add_codes(shar, codec) == 5 and len(stored_codes(shar)) == 5
