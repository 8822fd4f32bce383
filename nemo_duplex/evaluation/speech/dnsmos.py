"""DNSMOS P.835: estimated opinions of a signal, its background and the whole (1 to 5), by Microsoft's published network.

The network hears windows of 9.01 s. What ships with it, `speechmos.dnsmos.run` (0.0.1.1), leaves out those that start 7 to 23 s
after the start, without a word (`findings/speechmos_windows.sh`). So only the data file of the wheel is used, and the windows
are our own. A network that rates noise suppression is no scorer of naturalness.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nemo_duplex.evaluation.scorer import Scorer
from nemo_duplex.evaluation.speech.network_file import onnx_session
from nemo_duplex.evaluation.speech.sound_scorer import RATE, Answer, QualityScorer, spread_windows
from nemo_duplex.files.atomic import sha256
from nemo_duplex.files.wheels import Wheel
from nemo_duplex.frames import Seconds
from nemo_duplex.inputs import InputError, existing_file

_FILE = "speechmos/dnsmos_models/sig_bak_ovr.onnx"
_SHA256 = "269fbebdb513aa23cddfbb593542ecc540284a91849ac50516870e1ac78f6edd"
_MODEL = Wheel("speechmos", "0.0.1.1", {_FILE: _SHA256})
# The file of the same name for personalised noise suppression: its answers go through other polynomials.
_PERSONALISED = "9e3a197449ca2177f0997afec3bd6b890117ce2f17b89d6eea7fa0d47272c81c"
_WINDOW = 144160  # samples, 9.01 s
_HOP: Seconds = 4.5
# What the network says becomes an opinion by these polynomials, highest power first (DNS Challenge, dnsmos_local.py).
_OPINIONS = {
    "sig": (-0.08397278, 1.22083953, 0.0052439),
    "bak": (-0.13166888, 1.60915514, -0.39604546),
    "ovrl": (-0.06766283, 1.11546468, 0.04602535),
}


class DNSMOS(QualityScorer):
    """`score` is the opinion of the whole, `ovrl`; `answer` has `sig` and `bak` too.

    A sound shorter than a window is repeated until it fills one. A longer one is heard in windows that are spread evenly from
    its start to its end, at most 4.5 s apart, and their opinions are averaged.

    Args:
        path: `sig_bak_ovr.onnx`; by default the one in the wheel speechmos.

    Raises:
        NotInstalled: if no file is given and speechmos is missing, or onnxruntime is.
        InputError: if the file is missing, or is no network of DNSMOS P.835.

    Examples:
        >>> print(DNSMOS().score(np.zeros(16000, np.float32), 16000))               # doctest: +SKIP
        None
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self._path = path
        file = _MODEL.path(_FILE) if path is None else existing_file(path, "dnsmos")
        digest = sha256(file)
        if digest == _PERSONALISED:
            raise InputError(
                f"dnsmos: {file} is the network for personalised noise suppression, which is on another scale. "
                "Give the sig_bak_ovr.onnx of the folder DNSMOS, or of dnsmos_models in speechmos."
            )
        version = "P.835" if digest == _SHA256 else "P.835, not the published file"
        self.scorer = Scorer("dnsmos", version, digest, about="DNSMOS P.835, opinion of the whole, 1 to 5; not UTMOS")
        self._session = _session(file)

    def __reduce__(self):
        return type(self), (self._path,)

    def _judge(self, sound: np.ndarray) -> Answer:
        name = self._session.get_inputs()[0].name
        raw = np.concatenate([self._session.run(None, {name: window[None]})[0] for window in _windows(sound)])
        found = {of: float(np.polyval(powers, raw[:, i]).mean()) for i, (of, powers) in enumerate(_OPINIONS.items())}
        return {"score": found["ovrl"], **found}


def _session(file: Path) -> Any:
    """The network, checked to be one of DNSMOS."""
    session = onnx_session(file, "dnsmos")
    given, told = session.get_inputs(), session.get_outputs()
    if len(given) != 1 or given[0].shape[1:] != [_WINDOW] or len(told) != 1 or told[0].shape[1:] != [3]:
        raise InputError(
            f"dnsmos: {file} takes {[i.shape for i in given]} and gives {[o.shape for o in told]}, expected "
            f"(N, {_WINDOW}) and (N, 3). Give the sig_bak_ovr.onnx of DNSMOS P.835."
        )
    return session


def _windows(sound: np.ndarray) -> np.ndarray:
    """(N, 144160): a short sound is repeated."""
    if len(sound) < _WINDOW:
        sound = np.tile(sound, -(-_WINDOW // len(sound)))[:_WINDOW]
    return spread_windows(sound, _WINDOW, round(_HOP * RATE))
