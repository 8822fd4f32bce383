"""nemo_duplex: full-duplex speech-to-speech agents from any language model, as a NeMo collection (SALM-Duplex)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from nemo_duplex.plugin import register
from nemo_duplex.version import __version__

if TYPE_CHECKING:
    from nemo_duplex.codec.fsq_codec import FSQCodec as FSQCodec
    from nemo_duplex.data.datamodule import DuplexDataModule as DuplexDataModule
    from nemo_duplex.data.dataset import DuplexS2SDataset as DuplexS2SDataset
    from nemo_duplex.models.codec_swap import swap_codec as swap_codec
    from nemo_duplex.models.duplex_s2s import DuplexS2SModel as DuplexS2SModel

__all__ = ["DuplexDataModule", "DuplexS2SDataset", "DuplexS2SModel", "FSQCodec", "__version__", "swap_codec"]

_HOMES = {
    "DuplexS2SModel": "nemo_duplex.models.duplex_s2s",
    "FSQCodec": "nemo_duplex.codec.fsq_codec",
    "swap_codec": "nemo_duplex.models.codec_swap",
    "DuplexS2SDataset": "nemo_duplex.data.dataset",
    "DuplexDataModule": "nemo_duplex.data.datamodule",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'nemo_duplex' has no attribute {name!r}; it offers {', '.join(__all__)}.")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)


register()
