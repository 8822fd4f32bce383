"""How well a codec reconstructs speech that it was not trained on, and what it costs."""

from __future__ import annotations

import time
from typing import Any

import torch
from tqdm import tqdm

from nemo_duplex.codec.fsq_codec import FSQCodec
from nemo_duplex.codec.reconstruction import mel_distance
from nemo_duplex.inputs import InputError

_TIMED_STEPS = 50


def measure_quality(codec: FSQCodec, utterances: list[torch.Tensor]) -> dict[str, Any]:
    """Encodes and decodes the utterances, each (S,), one by one.

    Returns:
        `mel_distance`: mean absolute difference of natural log-mel magnitudes; `held_out`: utterances measured on;
        `codes_used`: share of each codebook that they use; `kbps`: bit rate; `step_ms`: median time of one streamed frame,
        None if the decoder looks ahead and cannot stream; `parameters`: weights.
    """
    distances, used = _reconstruct(codec, utterances)
    return {
        "mel_distance": _mean(distances),
        "held_out": len(utterances),
        "codes_used": [round(len(book) / codec.codebook_size, 3) for book in used],
        "kbps": round(codec.kbps, 3),
        "step_ms": _step_milliseconds(codec),
        "parameters": sum(p.numel() for p in codec.parameters()),
    }


def mean_mel_distance(codec: FSQCodec, utterances: list[torch.Tensor]) -> float:
    """The `mel_distance` of `measure_quality` alone."""
    return _mean(_reconstruct(codec, utterances)[0])


def reconstruct(codec: FSQCodec, audio: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Audio (S,) through the codec, wherever it is -> what comes back of it (S,), and its codes (K, T); all on the CPU."""
    device = codec.silence_codes.device
    codes, frames = codec.encode(audio[None].to(device), torch.tensor([len(audio)], device=device))
    decoded, _ = codec.decode(codes, frames)
    return decoded[0, : len(audio)].cpu(), codes[0].cpu()


def _reconstruct(codec: FSQCodec, utterances: list[torch.Tensor]) -> tuple[list[float], list[set[int]]]:
    """The mel distance of each utterance from its reconstruction, and the codes of each codebook that they use."""
    distances, used = [], [set[int]() for _ in range(codec.num_codebooks)]
    for audio in tqdm(utterances, desc="Measuring quality", unit="utterance", leave=False, delay=5):
        decoded, codes = reconstruct(codec, audio)
        distances.append(mel_distance(audio, decoded, codec.sample_rate))
        for book, row in zip(used, codes.tolist()):
            book.update(row)
    return distances, used


def _mean(distances: list[float]) -> float:
    return round(sum(distances) / len(distances), 4)


def _step_milliseconds(codec: FSQCodec) -> float | None:
    try:
        decoder = codec.streaming_decoder()
    except InputError:
        return None
    times = []
    state = decoder.init_state(1)
    for _ in range(_TIMED_STEPS):
        started = time.perf_counter()
        _, state = decoder.step(codec.silence_codes[None, :, None], state)
        times.append(1000 * (time.perf_counter() - started))
    return round(sorted(times)[len(times) // 2], 2)
