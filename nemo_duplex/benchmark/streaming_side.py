"""One side of the streaming benchmark, in a process of its own: `python -m nemo_duplex.benchmark.streaming_side SIDE FOLDER`.

    in_tree    NeMo's model: a whole recording at once; and, as a server would that has nothing else, the history anew per frame
    ours       the same weights: the same recording, streamed in 80 ms pushes
    stages     our model alone, at full size

The in-tree side goes before ours and leaves its checkpoint in the folder.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nemo_duplex.benchmark.callers import speech_of
from nemo_duplex.benchmark.machine import copy_bandwidth, matmul_rate, read_bandwidth
from nemo_duplex.benchmark.streaming import Setting
from nemo_duplex.frames import FRAME_RATE, Seconds

_USER_RATE = 16000


@torch.inference_mode()
def in_tree(folder: Path, setting: Setting) -> dict[str, Any]:
    """NeMo's model: `offline_inference`, and a frame after each length of history."""
    from nemo.collections.speechlm2.models import DuplexS2SModel

    torch.manual_seed(0)
    model = DuplexS2SModel(json.loads((folder / "model.json").read_text()))
    nn.init.normal_(model.audio_head.weight, std=0.02)
    model.save_pretrained(folder / "checkpoint")
    model.to(setting.device).eval()
    audio = _audio(setting)[None].to(setting.device)
    lens = torch.tensor([audio.shape[1]], device=setting.device)
    short = audio[:, : 2 * _USER_RATE]
    model.offline_inference(short, torch.tensor([short.shape[1]], device=setting.device))
    start = time.perf_counter()
    answer = model.offline_inference(audio, lens)
    _wait(setting)
    return {
        "seconds": time.perf_counter() - start,
        "tokens": answer["tokens_text"][0].tolist(),
        "codes": answer["tokens_audio"][0].tolist(),
        "histories": [_frame_after(model, audio, answer["tokens_audio"], seconds, setting) for seconds in setting.histories],
    }


def _frame_after(model: nn.Module, audio: Tensor, codes: Tensor, seconds: Seconds, setting: Setting) -> dict[str, float]:
    """One frame of a server that hears all audio so far, steps its language model, and decodes all codes so far."""
    from transformers import DynamicCache

    frames = round(seconds / FRAME_RATE.seconds)
    heard = audio[:, : round(seconds * _USER_RATE)]
    heard_lens = torch.tensor([heard.shape[1]], device=setting.device)
    said = codes[:, :frames].clamp(max=model._codebook_size - 1).transpose(1, 2)
    said_lens = torch.tensor([said.shape[2]], device=setting.device)
    embeddings, _ = model.perception(input_signal=heard, input_signal_length=heard_lens)
    cache = model(embeddings, cache=DynamicCache())["cache"]
    return {
        "history": seconds,
        "encode": _took(lambda: model.perception(input_signal=heard, input_signal_length=heard_lens), setting),
        "llm": _took(lambda: model(embeddings[:, -1:], cache=cache), setting),
        "decode": _took(lambda: model.audio_codec.decode(tokens=said, tokens_len=said_lens), setting),
    }


def _took(work: Callable[[], Any], setting: Setting, repeats: int = 3) -> Seconds:
    """The median of some repeats, one where it takes long."""
    seconds: list[Seconds] = []
    while len(seconds) < repeats and sum(seconds) < 10:
        _wait(setting)
        start = time.perf_counter()
        work()
        _wait(setting)
        seconds.append(time.perf_counter() - start)
    return median(seconds)


def ours(folder: Path, setting: Setting) -> dict[str, Any]:
    """The same weights, streamed."""
    from nemo_duplex.models.interop import from_in_tree

    model = from_in_tree(folder / "checkpoint").to(setting.device).eval()
    warm = model.open_session()
    for frame in _audio(setting)[: 2 * _USER_RATE].split(model.perception.samples_per_frame):
        warm.push(frame)
    session, frames, pushes = model.open_session(), [], []
    start = time.perf_counter()
    for frame in _audio(setting).split(model.perception.samples_per_frame):
        before = time.perf_counter()
        frames += session.push(frame)
        pushes.append(time.perf_counter() - before)
    frames += session.flush()
    return {
        "seconds": time.perf_counter() - start,
        "frame": sum(pushes) / len(pushes),
        "tokens": [frame.token for frame in frames],
        "codes": [frame.codes.tolist() for frame in frames],
    }


def stages(folder: Path, setting: Setting) -> dict[str, Any]:
    """A model of random weights at full size: what each stage takes at each batch, beside what its weights take to be read."""
    from nemo_duplex.benchmark.models import random_model
    from nemo_duplex.benchmark.stages import measure, work

    dtype = torch.bfloat16 if setting.precision == "bf16" else torch.float32
    rates = {
        "copy_bandwidth": copy_bandwidth(setting.device),
        "read_bandwidth": read_bandwidth(setting.device),
        "matmul_rate": matmul_rate(setting.device, dtype),
    }
    model = random_model(setting.full_size, setting.device, setting.precision)
    batches = measure(model, speech_of(None, _USER_RATE), setting.all_batches, setting.ticks, setting.options)
    return {
        "what": f"{sum(p.numel() for p in model.parameters()) / 1e6:,.0f} million parameters, random",
        **rates,
        "work": {stage: asdict(done) for stage, done in work(model, setting.int8).items()},
        "batches": [asdict(batch) for batch in batches],
    }


def _audio(setting: Setting) -> Tensor:
    """(S,) of the longest history, at 16 kHz."""
    audio = speech_of(setting.data, _USER_RATE, max(setting.histories))
    return torch.from_numpy(np.ascontiguousarray(audio, dtype=np.float32))


def _wait(setting: Setting) -> None:
    if setting.device == "cuda":
        torch.cuda.synchronize()


def main(side: str, folder: Path) -> None:
    """Measures a side and writes its figures into the folder."""
    setting = Setting(**json.loads((folder / "setting.json").read_text()))
    torch.set_num_threads(setting.threads)
    figures = {"in_tree": in_tree, "ours": ours, "stages": stages}[side](folder, setting)
    (folder / f"{side}.json").write_text(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
