"""The models of ours that are measured: a trained agent, one like it with random weights, and one of a size of `parts.py`."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from nemo_duplex.benchmark.parts import Size, write_parts, write_tokenizer
from nemo_duplex.inputs import existing_file
from nemo_duplex.models.duplex_s2s import DuplexS2SModel
from nemo_duplex.scripts.config import load

_BUNDLED = Path(__file__).parent.parent / "bundled"


def agent(path: str | Path | None, device: str) -> DuplexS2SModel:
    """The agent of a `.nemo`; None: one of random weights as `make demo` trains it, which costs the same.

    Raises:
        InputError: if the file is no agent.
    """
    if path is not None:
        return DuplexS2SModel.restore_from(existing_file(path, "model"), map_location=device).eval()
    ear, voice = _BUNDLED / "user_encoder.nemo", _BUNDLED / "agent_codec.nemo"
    given = [f"model.pretrained_asr={ear}", f"model.pretrained_audio_codec={voice}", "data.train=none", "out=none"]
    recipe = load("duplex_tiny", given).model
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory(prefix="nemo_duplex-benchmark-") as folder:
        tokenizer = write_tokenizer(Path(folder), recipe.tokenizer.size)
        return DuplexS2SModel({**recipe, "tokenizer": tokenizer}).to(device).eval()


def random_model(size: Size, device: str, precision: str = "32") -> DuplexS2SModel:
    """A model of random weights; one copy of them exists at a time.

    Raises:
        InputError: for an unknown size.
    """
    with tempfile.TemporaryDirectory(prefix="nemo_duplex-benchmark-") as folder:
        model = DuplexS2SModel(write_parts(Path(folder), size)).eval()
    return model.to(device, torch.bfloat16 if precision == "bf16" else None)
