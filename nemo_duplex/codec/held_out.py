"""Recordings that a codec was not trained on, kept beside it, and what two codecs make of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from nemo_duplex.codec.fsq_codec import FSQCodec
from nemo_duplex.codec.reconstruction import mel_distance
from nemo_duplex.codec.recordings import Recordings
from nemo_duplex.files.atomic import whole_folder
from nemo_duplex.inputs import InputError

#: The folder beside `codec.nemo`.
HELD_OUT = "held_out"


def write_held_out(out: Path, recordings: Recordings, indices: Sequence[int]) -> None:
    """Writes utterances to `out/held_out`, as flac files, and beside each what is said in it, where that is known."""
    with whole_folder(out / HELD_OUT, replace=True) as folder:
        for number, index in enumerate(indices):
            name = f"{number:03d}"
            soundfile.write(folder / f"{name}.flac", recordings.samples[index].numpy(), recordings.sample_rate, "PCM_16")
            if text := recordings.texts[index]:
                (folder / f"{name}.txt").write_text(text, encoding="utf-8")


def compare_on(before: FSQCodec, after: FSQCodec, data: str | Path, out: Path, examples: int = 6) -> dict[str, Any]:
    """Sends recordings through two codecs of one rate, and writes some of them to `out`, to be heard side by side.

    Args:
        data: a folder of recordings, such as the one that `write_held_out` wrote.
        out: gets `NNN-recorded.wav`, `NNN-before.wav` and `NNN-after.wav` of `examples` recordings; replaced.

    Returns:
        `recordings`; `mel_distance` {before, after}: means of `mel_distance`; `nearer`: those that `after` is nearer to.

    Raises:
        InputError: if nothing in `data` can be used.
    """
    if before.sample_rate != after.sample_rate:
        rates = f"{before.sample_rate} Hz and {after.sample_rate} Hz"
        raise InputError(f"The codecs give {rates}: distances at two rates cannot be compared. Give no data=.")
    recordings = Recordings(data, before.sample_rate)
    heard = {i * len(recordings) // examples for i in range(examples)}
    distances = []
    with whole_folder(out, replace=True) as folder:
        for index in range(len(recordings)):
            audio = recordings.audio(index)
            sounds = {"before": _sent(before, audio), "after": _sent(after, audio)}
            distances.append([mel_distance(audio, sound, before.sample_rate) for sound in sounds.values()])
            for name, sound in ({"recorded": audio} | sounds).items() if index in heard else ():
                soundfile.write(folder / f"{index:03d}-{name}.wav", sound.clamp(-1, 1).numpy(), before.sample_rate)
    old, new = np.array(distances).T
    return {
        "recordings": len(distances),
        "mel_distance": {"before": round(float(old.mean()), 4), "after": round(float(new.mean()), 4)},
        "nearer": int((new < old).sum()),
    }


def _sent(codec: FSQCodec, audio: torch.Tensor) -> torch.Tensor:
    """(S,) -> what comes back of it, (S,)."""
    decoded, _ = codec.decode(*codec.encode(audio[None], torch.tensor([len(audio)])))
    return decoded[0, : len(audio)]
