"""Networks that a user has as a file: TorchScript or ONNX, called with sound and nothing else.

TorchScript and ONNX are programs of a restricted kind: give files of people you trust.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nemo_duplex.evaluation.speech.sound_scorer import RATE
from nemo_duplex.inputs import InputError, NotInstalled, existing_file, one_line

#: (1, S) float32 at 16 kHz, once or several times, to the first output as an array.
Network = Callable[..., np.ndarray]


def open_network(path: str | Path, what: str, sounds: int = 1) -> Network:
    """The network of a file, tried on two seconds of faint noise.

    It is called with `sounds` sounds, each (1, S) float32 at 16 kHz. A TorchScript whose `forward` wants an integer
    too is given the sample rate.

    Args:
        what: names the file in errors ("utmos").

    Raises:
        InputError: if the file is missing, is neither, or its network does not take such sounds.
        NotInstalled: for ONNX without onnxruntime.
    """
    path = existing_file(path, what)
    if path.suffix.lower() == ".onnx":
        network = _onnx(path, what, sounds)
    elif is_torchscript(path):
        network = _torchscript(path, what)
    else:
        raise InputError(f"{what}: {path} is no TorchScript (torch.jit.save) and not named .onnx. {_cure(sounds)}")
    noise = 0.01 * np.random.default_rng(0).standard_normal((1, 2 * RATE)).astype(np.float32)
    try:
        network(*[noise] * sounds)
    except Exception as error:  # whatever a network raises
        raise InputError(
            f"{what}: {path} does not take {sounds} x (1, S) at 16 kHz ({one_line(error)}). {_cure(sounds)}"
        ) from None
    return network


def is_torchscript(path: Path) -> bool:
    """Whether a file is what `torch.jit.save` writes; `torch.save` writes a zip file too, without code."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def _torchscript(path: Path, what: str) -> Network:
    import torch

    try:
        module = torch.jit.load(str(path), map_location="cpu").eval()
    except Exception as error:  # torch raises different ones
        raise InputError(f"{what}: {path} cannot be read as TorchScript ({one_line(error)}). Copy it again.") from None
    wanted = module.forward.schema.arguments[1:]
    integers = sum(str(a.type) == "int" and not a.has_default_value() for a in wanted)

    def call(*sounds: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            found = module(*map(torch.from_numpy, sounds), *[RATE] * integers)
        return np.asarray(found.detach().float().cpu())

    return call


def _onnx(path: Path, what: str, sounds: int) -> Network:
    session = onnx_session(path, what)
    inputs = [given.name for given in session.get_inputs()]
    if len(inputs) != sounds:
        raise InputError(f"{what}: {path} has {len(inputs)} inputs ({', '.join(inputs)}), expected {sounds}. {_cure(sounds)}")
    return lambda *given: np.asarray(session.run(None, dict(zip(inputs, given, strict=True)))[0])


def onnx_session(path: Path, what: str) -> Any:
    """An ONNX file opened by onnxruntime, on one thread of the CPU.

    Raises:
        InputError: if it cannot be read.
        NotInstalled: without onnxruntime.
    """
    try:
        import onnxruntime
    except ImportError:
        raise NotInstalled(f"{what}={path} needs onnxruntime: pip install onnxruntime") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a class for each kind of broken file
        raise InputError(f"{what}: {path} cannot be read as ONNX ({one_line(error)}). Copy it again.") from None


def _cure(sounds: int) -> str:
    wanted = "(1, S) float32 at 16 kHz" if sounds == 1 else f"{sounds} sounds, each (1, S) float32 at 16 kHz"
    return f"Export the network so that it takes {wanted}."
