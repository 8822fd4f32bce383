"""From codes to audio: which frames are timed, what is compared with what, and how it reads."""

from __future__ import annotations

import json

import pytest
import torch

from nemo_duplex.benchmark import codec as benchmark
from nemo_duplex.benchmark.codec import CodecSetting, benchmark_codec, codec_tables
from nemo_duplex.codec.fsq_codec import FSQCodec
from nemo_duplex.inputs import InputError
from tests.codec.codecs import lively, of_kind
from tests.dummies import CODEC


@pytest.fixture
def file(tmp_path):
    lively(CODEC).save_to(tmp_path / "codec.nemo")
    return tmp_path / "codec.nemo"


def test_each_way_is_timed_by_the_frame_and_compared_with_the_whole(file, clock, monkeypatch):
    """A step takes 3 ms, NeMo's decode 10 ms and 1 ms a frame."""
    monkeypatch.setattr(benchmark, "time", clock)
    clock.strftime = lambda _: "2026-11-30"
    step = benchmark.FSQCodec.streaming_decoder

    def streaming_decoder(self, **options):
        assert options == {"check": False}
        decoder = step(self, **options)
        once = decoder.step

        def slow(codes, state):
            assert codes.shape == (1, 2, 1)
            clock.now += 0.003
            return once(codes, state)

        decoder.step = slow
        return decoder

    decode = benchmark.FSQCodec.restore_from

    def restore_from(path, map_location):
        codec = decode(path, map_location=map_location)
        once = codec.model.decode

        def slow(tokens, tokens_len):
            clock.now += 0.010 + 0.001 * tokens.shape[2]
            return once(tokens=tokens, tokens_len=tokens_len)

        object.__setattr__(codec.model, "decode", slow)
        return codec

    monkeypatch.setattr(benchmark.FSQCodec, "streaming_decoder", streaming_decoder)
    monkeypatch.setattr(benchmark.FSQCodec, "restore_from", restore_from)
    result = benchmark_codec(CodecSetting(str(file), seconds=4.0, windows=[0, 3, 24]))
    ways = result["ways"]
    assert result["frames"] == 50 and list(ways) == ["stream", "whole", "window 0", "window 3", "window 24"]
    expected = {"stream": 3, "whole": 1.2, "window 0": 11, "window 3": 14, "window 24": 35}
    for name, milliseconds in expected.items():
        assert ways[name]["p50"] == pytest.approx(milliseconds / 1e3) and ways[name]["ratio"] == pytest.approx(milliseconds / 3)
    assert ways["stream"]["difference"] <= 1e-5 and ways["whole"]["difference"] == 0
    assert ways["window 0"]["difference"] > ways["window 3"]["difference"] > ways["stream"]["difference"]
    assert ways["window 24"]["difference"] <= 1e-5, "It looks back further than the decoder."
    [table] = codec_tables(json.loads(json.dumps(result)))
    assert "2 x 36 at 12.5 Hz" in table.about[0] and table.columns[4] == "beside 3 ms"
    assert table.rows[1][:5] == ("whole", "1.2 ms", "1.2 ms", "1.2 ms", "0.40 x")


def test_the_windows_difference_is_that_of_the_frame_itself(file):
    """One frame decoded alone, against the same frame of the whole."""
    codec = FSQCodec.restore_from(file)
    codes = torch.randint(0, 36, (1, 2, 50), generator=torch.Generator().manual_seed(0))
    whole, _ = codec.decode(codes, torch.tensor([50]))
    alone = [codec.decode(codes[..., t : t + 1], torch.tensor([1]))[0] for t in range(25, 50)]
    expected = max((alone[i] - whole[:, (25 + i) * 1764 : (26 + i) * 1764]).abs().max().item() for i in range(25))
    found = benchmark_codec(CodecSetting(str(file), seconds=4.0, windows=[0]))["ways"]["window 0"]["difference"]
    assert found == pytest.approx(expected, rel=1e-4) and found > 1e-3


def test_a_nanocodec_by_the_script(script, tmp_path, capsys):
    keys = ["what=codec", "size=tiny", "seconds=4", "windows=[1]", "threads=1", f"out={tmp_path / 'codec.md'}"]
    assert script(*keys) == 0
    assert "NanoCodec, random weights, size tiny: 4 x 4032 at 12.5 Hz, 0.60 kbit/s" in capsys.readouterr().out
    result = json.loads((tmp_path / "codec.json").read_text())
    assert list(result["ways"]) == ["stream", "whole", "window 1"] and result["ways"]["stream"]["difference"] <= 1e-5
    assert "| window 1 |" in (tmp_path / "codec.md").read_text()


def test_what_cannot_be_measured(file, tmp_path):
    for setting, words in (
        (CodecSetting(str(file), "tiny"), "size= makes a NanoCodec .* Give one of them"),
        (CodecSetting(size="huge"), "size is .huge., expected one of tiny, small, paper"),
        (CodecSetting(str(file), windows=(-1,)), "windows=.*: expected numbers of past frames"),
        (CodecSetting(str(file), windows=()), "windows=.*: expected numbers of past frames"),
        (CodecSetting(str(file), seconds=1.0), "seconds=1: expected 4 or more"),
    ):
        with pytest.raises(InputError, match=words):
            benchmark_codec(setting)
    FSQCodec(of_kind("looking ahead")).save_to(tmp_path / "ahead.nemo")
    with pytest.raises(InputError, match="is not causal"):
        benchmark_codec(CodecSetting(str(tmp_path / "ahead.nemo"), seconds=4.0))
