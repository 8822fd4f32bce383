"""Codecs of `.nemo` files, and those inside of agents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soxr
import torch

from nemo_duplex.codec.fsq_codec import FSQCodec
from nemo_duplex.evaluation.codecs.speech_codec import Decoded
from nemo_duplex.files.atomic import sha256
from nemo_duplex.files.hub import nemo_file
from nemo_duplex.files.nemo_file import read_nemo_config
from nemo_duplex.inputs import InputError


@dataclass(frozen=True)
class CodecFile:
    """A codec of a file, as `SpeechCodec`.

    Args:
        name: of its row.
        path: its `.nemo`, or that of an agent.
        codec: what the file holds.
    """

    name: str
    path: Path
    codec: FSQCodec

    def send(self, audio: np.ndarray, sample_rate: int) -> Decoded:
        """What comes back of (S,) float32; the bits are computed: codebooks x log2(codes) x frames."""
        codec = self.codec
        sound = torch.from_numpy(soxr.resample(audio, sample_rate, codec.sample_rate))
        device = codec.silence_codes.device
        with torch.inference_mode():
            codes, frames = codec.encode(sound[None].to(device), torch.tensor([len(sound)]))
            decoded, _ = codec.decode(codes, frames)
        seconds = int(frames[0]) / float(codec.frame_rate.hz)
        return Decoded(decoded[0].float().cpu().numpy(), codec.sample_rate, 1000 * codec.kbps * seconds, seconds)

    def about(self) -> dict[str, Any]:
        """File, digest, codebooks and rates."""
        codec = self.codec
        return {
            "file": str(self.path),
            "sha256": sha256(self.path),
            "num_codebooks": codec.num_codebooks,
            "codebook_size": codec.codebook_size,
            "frame_rate": float(codec.frame_rate.hz),
            "sample_rate": codec.sample_rate,
            "kbps": codec.kbps,
        }


def open_codecs(paths: Sequence[str | Path], device: str = "cpu") -> list[CodecFile]:
    """Opens codecs, each named after its file; of an agent the codec inside.

    Raises:
        InputError: if a file is missing, broken or neither, or two have one name.
    """
    if not paths:
        raise InputError("codecs=[]: expected at least one .nemo of a codec or an agent.")
    opened = []
    for given in paths:
        path = nemo_file(given, "codecs")
        read_nemo_config(path, "codecs", ("AudioCodecModel", "DuplexS2SModel"))  # whose error names the key
        codec = FSQCodec.restore_from(path, map_location=device)
        opened.append(CodecFile(path.stem, path, codec.eval()))
    return opened
