"""Streaming beside NeMo's in-tree model: the same random weights, the same recording.

    in_tree    NeMo's model: the whole recording at once; then, as a server would that has nothing else, the history per frame
    ours       our model, converted from the checkpoint that the in-tree model leaves: the recording in pushes of 80 ms

Each model runs in a process of its own: `python -m nemo_duplex.benchmark.in_tree NAME FOLDER`.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nemo_duplex.benchmark.callers import user_speech
from nemo_duplex.benchmark.machine import wait_for
from nemo_duplex.benchmark.measured_models import Size, describe_parts, write_parts
from nemo_duplex.benchmark.measurement import main, run_measurement
from nemo_duplex.benchmark.table import Table, measured_on, milliseconds
from nemo_duplex.frames import FRAME_RATE, USER_SAMPLE_RATE, Seconds

#: Seconds of audio that each model processes before it is measured.
_WARM_UP: Seconds = 2.0


def compare_with_in_tree(
    size: Size, data: str | None, device: str, threads: int, histories: Sequence[Seconds]
) -> dict[str, Any]:
    """Measures both models, one after the other.

    Args:
        size: of the models.
        data: corpus whose users are played; None: noise.
        device, threads: `cpu` or `cuda`; of the CPU.
        histories: lengths of conversation before the frame that is measured; the recording is as long as the longest.

    Returns:
        `what`; `in_tree` and `ours`, as the functions below return them, without their tokens and codes; and `same_frames`
        of `frames` with the same token and codes from both models.
    """
    setting = {"data": data, "device": device, "histories": list(histories)}
    with tempfile.TemporaryDirectory(prefix="nemo_duplex-benchmark-") as name:
        folder = Path(name)
        config = write_parts(folder, size)
        (folder / "model.json").write_text(json.dumps(config))
        what = describe_parts(config)
        figures = {model: run_measurement("in_tree", model, folder, setting, threads) for model in ("in_tree", "ours")}
    theirs, ours = (list(zip(found.pop("tokens"), found.pop("codes"))) for found in figures.values())
    return {"what": what, **figures, "frames": len(ours), "same_frames": sum(a == b for a, b in zip(theirs, ours))}


@torch.inference_mode()
def in_tree(folder: Path, data: str | None, device: str, histories: list[Seconds]) -> dict[str, Any]:
    """NeMo's model: Seconds of `offline_inference`, its `tokens` and `codes`, and a frame after each of `histories`."""
    from nemo.collections.speechlm2.models import DuplexS2SModel

    torch.manual_seed(0)
    model = DuplexS2SModel(json.loads((folder / "model.json").read_text()))
    nn.init.normal_(model.audio_head.weight, std=0.02)
    model.save_pretrained(folder / "checkpoint")
    model.to(device).eval()
    audio = _audio(data, histories)[None].to(device)
    lens = torch.tensor([audio.shape[1]], device=device)
    short = audio[:, : round(_WARM_UP * USER_SAMPLE_RATE)]
    model.offline_inference(short, torch.tensor([short.shape[1]], device=device))
    start = time.perf_counter()
    answer = model.offline_inference(audio, lens)
    wait_for(device)
    return {
        "seconds": time.perf_counter() - start,
        "tokens": answer["tokens_text"][0].tolist(),
        "codes": answer["tokens_audio"][0].tolist(),
        "histories": [_frame_after(model, audio, answer["tokens_audio"], seconds, device) for seconds in histories],
    }


def _frame_after(model: nn.Module, audio: Tensor, codes: Tensor, seconds: Seconds, device: str) -> dict[str, float]:
    """What a frame takes a server that encodes all audio so far, steps its language model, and decodes all codes so far."""
    from transformers import DynamicCache

    frames = round(seconds / FRAME_RATE.seconds)
    user = audio[:, : round(seconds * USER_SAMPLE_RATE)]
    user_lens = torch.tensor([user.shape[1]], device=device)
    agent = codes[:, :frames].clamp(max=model._codebook_size - 1).transpose(1, 2)
    agent_lens = torch.tensor([agent.shape[2]], device=device)
    embeddings, _ = model.perception(input_signal=user, input_signal_length=user_lens)
    cache = model(embeddings, cache=DynamicCache())["cache"]
    return {
        "history": seconds,
        "encode": _took(lambda: model.perception(input_signal=user, input_signal_length=user_lens), device),
        "llm": _took(lambda: model(embeddings[:, -1:], cache=cache), device),
        "decode": _took(lambda: model.audio_codec.decode(tokens=agent, tokens_len=agent_lens), device),
    }


def _took(work: Callable[[], Any], device: str, repeats: int = 3) -> Seconds:
    """The median of the repeats; of fewer where they take more than ten seconds."""
    seconds: list[Seconds] = []
    while len(seconds) < repeats and sum(seconds) < 10:
        wait_for(device)
        start = time.perf_counter()
        work()
        wait_for(device)
        seconds.append(time.perf_counter() - start)
    return median(seconds)


def ours(folder: Path, data: str | None, device: str, histories: list[Seconds]) -> dict[str, Any]:
    """Our model: Seconds of the whole stream, mean Seconds of a `frame`, and its `tokens` and `codes`."""
    from nemo_duplex.models.interop import from_in_tree

    model = from_in_tree(folder / "checkpoint").to(device).eval()
    audio = _audio(data, histories)
    warm = model.open_session()
    for frame in audio[: round(_WARM_UP * USER_SAMPLE_RATE)].split(model.perception.samples_per_frame):
        warm.push(frame)
    session, frames, pushes = model.open_session(), [], []
    start = time.perf_counter()
    for frame in audio.split(model.perception.samples_per_frame):
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


def _audio(data: str | None, histories: list[Seconds]) -> Tensor:
    """(S,) as long as the longest history, at 16 kHz."""
    audio = user_speech(data, USER_SAMPLE_RATE, max(histories))
    return torch.from_numpy(np.ascontiguousarray(audio, dtype=np.float32))


def in_tree_tables(result: Mapping[str, Any]) -> Iterator[Table]:
    """The part `in_tree` of a result as a table."""
    part = result["in_tree"]
    theirs, ours = part["in_tree"], part["ours"]
    length = max(result["setting"]["histories"])
    about = [
        f"{part['what']}; the same random weights: {part['same_frames']} of {part['frames']} frames are the same on both sides",
        measured_on(result),
    ]
    row = (f"{length:g} s, in one piece", "", "", "", f"{theirs['seconds']:.1f} s", f"{ours['seconds']:.1f} s")
    rows: list[tuple[str, ...]] = [(*row, f"{theirs['seconds'] / ours['seconds']:.2f} x")]
    for history in theirs["histories"]:
        steps = [history[name] for name in ("encode", "llm", "decode")]
        cells = (*map(milliseconds, steps), milliseconds(sum(steps)), milliseconds(ours["frame"]))
        rows.append((f"a frame after {history['history']:g} s", *cells, f"{sum(steps) / ours['frame']:.1f} x"))
    columns = ("", "encode", "llm", "decode", "NeMo in-tree", "nemo_duplex, streaming", "ratio")
    yield Table("Beside NeMo's in-tree model", about, columns, rows)


if __name__ == "__main__":
    main({"in_tree": in_tree, "ours": ours})
