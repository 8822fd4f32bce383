"""Small deterministic stand-ins that tests share; nothing is downloaded."""

from __future__ import annotations

import io

import numpy as np
import soundfile


class Letters:
    """A tokenizer of one id per character, its code point."""

    def text_to_ids(self, text: str) -> list[int]:
        return [ord(character) for character in text]

    def ids_to_text(self, ids: list[int]) -> str:
        return "".join(chr(i) for i in ids)


def wav_bytes(samples: np.ndarray, sample_rate: int) -> bytes:
    """Samples (S,) or (S, channels) as the bytes of a 16-bit wav file."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, sample_rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()
