"""What a codec is given, audio and codes: checked (what came, what was expected, what to do), and brought to its rate."""

from __future__ import annotations

from typing import Any

import soxr
import torch

from nemo_duplex.inputs import InputError

# Samples beyond 1 are loud; beyond this they were never on a scale of 1.
_MOST_SCALE = 4.0
_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def checked_audio(audio: Any, audio_len: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Audio (B, S) as float32, and its lengths (B,) as int64 on the same device.

    Raises:
        InputError: if it is not audio to encode; see `FSQCodec.encode`.
    """
    _require_tensor(audio, "audio", "(B, S)")
    if audio.dim() != 2:
        cure = "Give one row as audio[None]" if audio.dim() == 1 else "Keep one channel, such as audio[:, 0]"
        raise InputError(f"audio has the shape {tuple(audio.shape)}, expected mono (B, S). {cure}.")
    if not audio.is_floating_point():
        raise InputError(f"audio is {_name(audio)}, expected floats of full scale 1. Of 16-bit samples: audio / 32768.")
    audio_len = checked_lengths(audio_len, "audio_len", len(audio), audio.shape[1], "samples", audio.device)
    audio = audio.float()
    inside = torch.arange(audio.shape[1], device=audio.device) < audio_len[:, None]
    wrong = inside & ~(audio.abs() <= _MOST_SCALE)  # NaN too is not within the scale
    if wrong.any():
        row, sample = wrong.nonzero()[0].tolist()
        value = audio[row, sample].item()
        if not torch.isfinite(audio[row, sample]):
            raise InputError(f"audio holds {value} (NaN or infinity) at sample {sample} of row {row}. Read or make it again.")
        raise InputError(
            f"audio holds {value:g} at sample {sample} of row {row}, expected full scale 1 (up to {_MOST_SCALE:g} is taken as "
            "clipped). Of 16-bit samples: audio / 32768."
        )
    return audio, audio_len


def checked_codes(codes: Any, num_codebooks: int) -> torch.Tensor:
    """Codes (B, K, T) as int64.

    Raises:
        InputError: if they are not integers, or not of K codebooks.
    """
    _require_tensor(codes, "codes", f"(B, {num_codebooks}, T)")
    shape = tuple(codes.shape)
    if codes.dim() != 3:
        cure = " Give one row as codes[None]." if codes.dim() == 2 else ""
        raise InputError(f"codes have the shape {shape}, expected (B, {num_codebooks}, T).{cure}")
    if shape[1] != num_codebooks:
        turned = shape[2] == num_codebooks
        cure = "Give codes.transpose(1, 2)" if turned else "Give codes of this very codec, or the codec that made them"
        raise InputError(f"codes have the shape {shape}, expected (B, {num_codebooks}, T): K codebooks come first. {cure}.")
    if codes.dtype not in _INTEGERS:
        raise InputError(f"codes are {_name(codes)}, expected integers. Give codes.long() if they are whole numbers.")
    return codes.long()


def checked_lengths(given: Any, name: str, rows: int, most: int, unit: str, device: torch.device) -> torch.Tensor:
    """Lengths (B,) as int64 on `device`; `name` and `unit` name them in errors.

    Raises:
        InputError: if they are not integers from 0 to `most`, one for each of `rows`.
    """
    _require_tensor(given, name, "(B,)")
    if tuple(given.shape) != (rows,):
        raise InputError(f"{name} has the shape {tuple(given.shape)}, expected ({rows},): one length for each of {rows} rows.")
    if given.dtype not in _INTEGERS:
        raise InputError(f"{name} is {_name(given)}, expected integers: {unit} of each row.")
    wrong = (given < 0) | (given > most)
    if wrong.any():
        row = int(wrong.nonzero()[0])
        raise InputError(f"{name} says {int(given[row])} {unit} for row {row}, expected 0 to {most}: so many are there.")
    return given.to(device).long()


def check_range(codes: torch.Tensor, codebook_size: int) -> None:
    """Refuses a code that is none of V; finite scalar quantisation would silently decode it as another one.

    Raises:
        InputError: naming the first one.
    """
    wrong = (codes < 0) | (codes >= codebook_size)
    if wrong.any():
        row, codebook, frame = wrong.nonzero()[0].tolist()
        raise InputError(
            f"Code {codes[row, codebook, frame]} of codebook {codebook}, frame {frame}, row {row} is not one of "
            f"0 to {codebook_size - 1}. Replace special ids by `silence_codes` before decoding."
        )


def resampled(audio: torch.Tensor, audio_len: torch.Tensor, given: int, sample_rate: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Checked audio (B, S) of `given` Hz at `sample_rate`, zero beyond each length, which becomes the next whole sample.

    Raises:
        InputError: for a rate that is not positive.
    """
    if given <= 0:
        raise InputError(f"sample_rate={given}: expected the samples per second of the audio, such as 16000.")
    new_len = -(-audio_len * sample_rate // given)
    out = audio.new_zeros(len(audio), max(new_len.tolist(), default=0))
    for row, (before, after) in enumerate(zip(audio_len.tolist(), new_len.tolist())):
        if before:
            samples = torch.from_numpy(soxr.resample(audio[row, :before].cpu().numpy(), given, sample_rate))[:after]
            out[row, : len(samples)] = samples
    return out, new_len


def _require_tensor(given: Any, name: str, shape: str) -> None:
    if not isinstance(given, torch.Tensor):
        raise InputError(f"{name} is a {type(given).__name__}, expected a tensor {shape}. Give torch.as_tensor({name}).")


def _name(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
