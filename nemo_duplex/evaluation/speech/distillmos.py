"""DistillMOS: an estimate of listeners' mean opinion of speech (1 to 5), without a reference and without a download.

The networks of distillmos 0.9.1 (MIT) and xls-r-sqa need no torchaudio, but both packages import it, for reading files. There
is no torchaudio for every torch, so an empty module stands for it while they are imported.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from types import ModuleType

import numpy as np

from nemo_duplex.evaluation.scorer import Scorer
from nemo_duplex.evaluation.speech.sound_scorer import Answer, QualityScorer, spread_windows
from nemo_duplex.files.wheels import Wheel
from nemo_duplex.inputs import NotInstalled

_WEIGHTS = "distillmos/weights/distill_mos_v7.pt"
_SHA256 = "b18b3ac60227267cfb91e5d00ce22cc7b73716fd92f269484da1446e27031a40"
_WINDOW = 122880  # samples
_BATCH = 8  # windows at a time
_INSTALL = "--no-deps distillmos==0.9.1 xls-r-sqa==0.1.0"
_MODEL = Wheel("distillmos", "0.9.1", {_WEIGHTS: _SHA256}, _INSTALL)


class DistillMOS(QualityScorer):
    """The default scorer of quality.

    It judges windows of 7.68 s, each on a scale of its own peak, and takes their mean. They are spread evenly from the start
    of a sound to its end, at most 3.84 s apart: its own code takes one a second, all in memory at once, which needs four times
    as long for the same mean. A shorter sound is filled up with zeros, as there.

    Raises:
        NotInstalled: if distillmos or xls-r-sqa is missing.
        InputError: if distillmos holds other weights.

    Examples:
        >>> print(DistillMOS().score(np.zeros(16000, np.float32), 16000))           # doctest: +SKIP
        None
    """

    scorer = Scorer("distillmos", "0.9.1", _SHA256, about="DistillMOS, estimated mean opinion score, 1 to 5; not UTMOS")

    def __init__(self) -> None:
        _MODEL.check()
        try:
            with _without_torchaudio():
                from distillmos.sqa import ConvTransformerSQAModel
        except ImportError as error:
            raise NotInstalled(f"DistillMOS cannot be imported ({error}): pip install {_INSTALL}") from None
        with contextlib.redirect_stdout(io.StringIO()):  # it says where its weights are
            self._model = ConvTransformerSQAModel().eval()

    def __reduce__(self):
        return type(self), ()

    def _judge(self, sound: np.ndarray) -> Answer:
        import torch

        windows = spread_windows(np.pad(sound, (0, max(0, _WINDOW - len(sound)))), _WINDOW, _WINDOW // 2)
        with torch.inference_mode():
            scores = [self._model(torch.from_numpy(windows[i : i + _BATCH])) for i in range(0, len(windows), _BATCH)]
        return {"score": float(torch.cat(scores).mean())}


@contextlib.contextmanager
def _without_torchaudio() -> Iterator[None]:
    """An empty module stands for torchaudio while the block imports, unless torchaudio was imported before."""
    if "torchaudio" in sys.modules:
        yield
        return
    names = ("torchaudio", "torchaudio.transforms")
    for name in names:
        empty = ModuleType(name)
        empty.__spec__ = ModuleSpec(name, None)
        empty.MFCC = None  # type: ignore[attr-defined]
        sys.modules[name] = empty
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]
