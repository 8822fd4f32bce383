"""Codes to audio for one caller, frame by frame as a session needs it: what it costs, and how near it comes to the whole.

stream      `FSQCodec.streaming_decoder`, whose state remembers what the next frame needs
whole       all frames at once by NeMo's own `decode`, when the conversation is over: the least that a frame can cost
window n    the last frame of n past frames and this one, decoded again for each frame: a decoder without a state
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from nemo_duplex.benchmark.machine import check_device, cpu_threads, describe_machine, wait_for
from nemo_duplex.benchmark.measured_models import Size, check_size, nanocodec_config
from nemo_duplex.benchmark.table import Table, measured_on, milliseconds, percentiles
from nemo_duplex.codec.fsq_codec import FSQCodec
from nemo_duplex.frames import Seconds
from nemo_duplex.inputs import InputError
from nemo_duplex.scripts.demo import BUNDLED_CODEC

#: Frames that are decoded by windows: some cost a second each.
_WINDOW_FRAMES = 25
_WHOLE_REPEATS = 3
#: Frames that are not measured: caches fill, libraries choose their kernels.
_WARM_UP = 5


@dataclass(frozen=True)
class CodecSetting:
    """What is measured; the keys of `conf/benchmark.yaml` that say "codec" or nothing.

    Args:
        model: `.nemo` of a codec, or of an agent with one inside; None: the bundled one.
        size: of a NanoCodec with random weights instead: "tiny" or "paper".
        seconds: of speech that is decoded.
        windows: past frames of each window.
        device, threads: `cpu` or `cuda`; of the CPU.
    """

    model: str | None = None
    size: Size | None = None
    seconds: Seconds = 20.0
    windows: Sequence[int] = field(default_factory=lambda: [4, 16])
    device: str = "cpu"
    threads: int = 1

    def check(self) -> None:
        """Refuses what cannot be measured, before anything is.

        Raises:
            InputError: naming the key.
        """
        check_device(self.device)
        check_size(self.size)
        if self.size and self.model:
            raise InputError("size= makes a NanoCodec with random weights, model= names a codec. Give one of them.")
        if not self.windows or not all(isinstance(n, int) and n >= 0 for n in self.windows):
            raise InputError(f"windows={self.windows}: expected numbers of past frames, 0 or more.")
        if self.seconds < 4:
            raise InputError(f"seconds={self.seconds:g}: expected 4 or more.")


def benchmark_codec(setting: CodecSetting) -> dict[str, Any]:
    """Decodes random codes in each way.

    Returns:
        `machine`, `date`, `setting`, `codec` (in words), `frames`, and `ways`: of each, Seconds a frame (`p50`, `p95`, `p99`),
        their `ratio` to the stream's and `difference`, the largest one to the whole, full scale 1. Plain data.

    Raises:
        InputError: for a setting that is not possible, or a codec that cannot stream.
    """
    setting.check()
    if setting.size is None:
        codec = FSQCodec.restore_from(setting.model or BUNDLED_CODEC, map_location=setting.device)
    else:
        torch.manual_seed(0)
        codec = FSQCodec(nanocodec_config(setting.size)).to(setting.device)
    frames = codec.frame_rate.count(setting.seconds)
    shape = (1, codec.num_codebooks, frames)
    codes = torch.randint(0, codec.codebook_size, shape, generator=torch.Generator().manual_seed(0)).to(codec.device)
    with cpu_threads(setting.threads), torch.inference_mode():
        whole, times = _whole(codec, codes)
        ways = {"stream": _stream(codec, codes, whole), "whole": {**_spread(times), "difference": 0.0}}
        ways |= {f"window {past}": _window(codec, codes, whole, past) for past in setting.windows}
    return {
        "machine": describe_machine(setting.device),
        "date": time.strftime("%Y-%m-%d"),
        "setting": asdict(setting),
        "codec": _in_words(codec, setting),
        "frames": frames,
        "ways": {name: {**way, "ratio": way["p50"] / ways["stream"]["p50"]} for name, way in ways.items()},
    }


def _stream(codec: FSQCodec, codes: torch.Tensor, whole: torch.Tensor) -> dict[str, float]:
    decoder = codec.streaming_decoder(check=False)

    def streamed(frames: torch.Tensor) -> tuple[torch.Tensor, list[Seconds]]:
        state, pieces, times = decoder.init_state(1), [], []
        for frame in frames.split(1, dim=2):
            start = time.perf_counter()
            piece, state = decoder.step(frame, state)
            wait_for(codec.device.type)
            times.append(time.perf_counter() - start)
            pieces.append(piece)
        return torch.cat(pieces, dim=1), times

    streamed(codes[..., :_WARM_UP])
    audio, times = streamed(codes)
    return {**_spread(times), "difference": _difference(audio, whole)}


def _whole(codec: FSQCodec, codes: torch.Tensor) -> tuple[torch.Tensor, list[Seconds]]:
    """What NeMo makes of all codes, (1, S), and Seconds a frame of each repeat."""
    times = []
    for _ in range(1 + _WHOLE_REPEATS):
        audio, took = _decoded(codec, codes)
        times.append(took / codes.shape[2])
    return audio, times[1:]


def _window(codec: FSQCodec, codes: torch.Tensor, whole: torch.Tensor, past: int) -> dict[str, float]:
    """Frames from the middle of the speech, where all windows are full."""
    middle, size, times, differences = codes.shape[2] // 2, codec.samples_per_frame, [], []
    for frame in range(middle - _WARM_UP, middle + min(_WINDOW_FRAMES, middle)):
        part = codes[..., max(0, frame - past) : frame + 1]
        audio, took = _decoded(codec, part)
        if frame >= middle:
            times.append(took)
            differences.append(_difference(audio[:, -size:], whole[:, frame * size : (frame + 1) * size]))
    return {**_spread(times), "difference": max(differences)}


def _decoded(codec: FSQCodec, codes: torch.Tensor) -> tuple[torch.Tensor, Seconds]:
    """What NeMo's decode makes of codes, (1, S), and how long it took."""
    lens = torch.tensor([codes.shape[2]], device=codes.device)
    start = time.perf_counter()
    audio, _ = codec.model.decode(tokens=codes, tokens_len=lens)
    wait_for(codec.device.type)
    return audio, time.perf_counter() - start


def _spread(times: Sequence[Seconds]) -> dict[str, float]:
    return dict(zip(("p50", "p95", "p99"), np.percentile(times, [50, 95, 99]).tolist()))


def _difference(one: torch.Tensor, other: torch.Tensor) -> float:
    return (one - other).abs().max().item()


def _in_words(codec: FSQCodec, setting: CodecSetting) -> str:
    what = f"NanoCodec, random weights, size {setting.size}" if setting.size else str(setting.model or "the bundled codec")
    millions = sum(p.numel() for p in codec.model.audio_decoder.parameters()) / 1e6
    books = f"{codec.num_codebooks} x {codec.codebook_size} at {float(codec.frame_rate.hz):g} Hz"
    return f"{what}: {books}, {codec.kbps:.2f} kbit/s, decoder of {millions:.1f} million parameters"


def codec_tables(result: Mapping[str, Any]) -> list[Table]:
    """What was measured, a row for each way."""
    about = [
        result["codec"],
        measured_on(result),
        f"{result['frames']} frames of one caller; windows: {_WINDOW_FRAMES} frames from the middle",
    ]
    rows = [
        (name, *percentiles(way), f"{way['ratio']:.2f} x", f"{way['difference']:.1e}") for name, way in result["ways"].items()
    ]
    least = milliseconds(result["ways"]["stream"]["p50"])
    columns = ("a frame", "p50", "p95", "p99", f"beside {least}", "largest difference to the whole")
    return [Table("Codes to audio", about, columns, rows)]
