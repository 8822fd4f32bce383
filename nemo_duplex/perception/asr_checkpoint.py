"""Preprocessor and encoder of a NeMo ASR checkpoint, read without building the ASR model around them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from nemo_duplex.files.hub import nemo_file
from nemo_duplex.files.nemo_file import read_nemo_file
from nemo_duplex.inputs import InputError, one_line

_WHAT = "speech recognition model"


@dataclass(frozen=True)
class AsrParts:
    """Configurations and weights of an ASR model's preprocessor and encoder."""

    preprocessor: dict[str, Any]
    encoder: dict[str, Any]
    weights: dict[str, Tensor]

    def weights_of(self, part: str) -> dict[str, Tensor]:
        """The state dict of `encoder` or `preprocessor`."""
        prefix = f"{part}."
        return {name.removeprefix(prefix): value for name, value in self.weights.items() if name.startswith(prefix)}

    def encoder_for(self, att_context_size: list[int] | None) -> dict[str, Any]:
        """The encoder's configuration with one of the attention contexts that it was trained for; None takes its first.

        Raises:
            InputError: if it was not trained for this one.
        """
        trained = self.encoder.get("att_context_size") or [-1, -1]
        contexts = trained if isinstance(trained[0], list) else [trained]
        chosen = contexts[0] if att_context_size is None else list(att_context_size)
        if chosen not in contexts:
            raise InputError(f"att_context_size {chosen} is none of those that the model was trained for: {contexts}.")
        probabilities = {"att_context_probs": None} if "att_context_probs" in self.encoder else {}
        return {**self.encoder, "att_context_size": chosen, **probabilities}


def read_asr_parts(path_or_name: str | Path) -> AsrParts:
    """Preprocessor and encoder of a CTC, RNNT or hybrid model.

    Args:
        path_or_name: a `.nemo` file, or a model's name on NGC (`stt_en_...`) or Hugging Face (`nvidia/stt_en_...`).

    Raises:
        InputError: if there is no such file or model, or it is truncated or no ASR model.
    """
    path = _downloaded(str(path_or_name))
    config, weights = read_nemo_file(path, _WHAT)
    if not isinstance(config.get("encoder"), dict) or not isinstance(config.get("preprocessor"), dict):
        raise InputError(
            f"{path} holds a {str(config.get('target', 'model without a class')).rsplit('.', 1)[-1]}, expected a {_WHAT} "
            "with preprocessor and encoder (CTC, RNNT or hybrid)."
        )
    return AsrParts(config["preprocessor"], config["encoder"], weights)


def _downloaded(path_or_name: str) -> Path:
    """The path of the `.nemo` file; NGC, of NVIDIA, has names without a slash, and NeMo knows where they are."""
    if "/" in path_or_name or path_or_name.endswith(".nemo") or Path(path_or_name).exists():
        return nemo_file(path_or_name, _WHAT)
    from nemo.collections.asr.models import ASRModel

    try:
        return Path(ASRModel.from_pretrained(path_or_name, return_model_file=True))
    except Exception as error:  # NeMo, NGC and the network each raise their own
        raise InputError(
            f"{_WHAT}: {path_or_name} is not a file, and NeMo could not download a model of this name ({one_line(error)}). "
            "Check the name and the network, or give a .nemo file."
        ) from error
