"""Reads `.nemo` files without building the model: a complete file of the right class, or an error of one line.

A `.nemo` is a tar of `model_config.yaml` (with the `target` class), `model_weights.ckpt` and artifacts. NeMo notices late, with
long messages, that a file is truncated or of another class, and some models download parts when they are built.

A `.nemo` may come from an untrusted source. Nothing in it is executed, no member is written outside of the folder that it is
unpacked into, and nothing in it can take much more memory or disk than the file itself.
"""

from __future__ import annotations

import errno
import re
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

import yaml

from nemo_duplex.inputs import InputError, existing_file, one_line, plain

if TYPE_CHECKING:
    from torch import Tensor

CONFIG = "model_config.yaml"
WEIGHTS = "model_weights.ckpt"

# A real config has kilobytes; YAML of megabytes takes minutes to parse.
_MAX_CONFIG_BYTES = 4 << 20
# YAML aliases can turn a few lines into more values than fit into memory; a real config has hundreds.
_MAX_CONFIG_VALUES = 100_000
# Trained weights do not compress 50-fold: an archive that does was made to fill a disk.
_MAX_INFLATION, _ALWAYS_FITS = 50, 64 << 20


def read_nemo_config(path: str | Path, what: str, class_name: str | tuple[str, ...] | None = None) -> dict[str, Any]:
    """The config of the `.nemo` at `path`.

    Args:
        what: names the file in errors ("codec", "model").
        class_name: the class that it must be of, or one of several; None takes any.

    Raises:
        InputError: if the file is missing, truncated, not a `.nemo`, unsafe to unpack, or of another class.
    """
    with _opened(path, what, class_name) as (_, _, config):
        return config


def read_nemo_file(
    path: str | Path, what: str, class_name: str | tuple[str, ...] | None = None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The config and the weights (on the CPU) of a `.nemo`; no pickled code is executed."""
    with unpacked_nemo(path, what, class_name) as (config, folder):
        return config, read_weights(folder / WEIGHTS, path, what)


@contextmanager
def unpacked_nemo(
    path: str | Path, what: str, class_name: str | tuple[str, ...] | None = None, artifacts: bool = False
) -> Iterator[tuple[dict[str, Any], Path]]:
    """Yields the config of a `.nemo` and a temporary folder with its weights, removed at the end of the block.

    Args:
        artifacts: whether to unpack its other files too, except those in subfolders, which NeMo does not write.

    Raises:
        InputError: as `read_nemo_config`, and if the disk of temporary files is too small.
    """
    with tempfile.TemporaryDirectory() as folder:
        with _opened(path, what, class_name) as (archive, files, config):
            wanted = {n: m for n, m in files.items() if n == WEIGHTS or (artifacts and "/" not in n)}
            if shutil.disk_usage(folder).free < sum(member.size for member in wanted.values()):
                raise _no_space(path, what)
            for name, member in wanted.items():
                with _stream(archive, member) as source, open(Path(folder, name), "wb") as copy:
                    shutil.copyfileobj(source, copy, 1 << 20)
        yield config, Path(folder)


def parse_config(text: bytes, path: str | Path, what: str) -> dict[str, Any]:
    """The config of the `.nemo` at `path` as plain data.

    Raises:
        InputError: if it has no keys, or is too large, as written or with its aliases expanded.
        yaml.YAMLError: if it is not YAML, or contains Python objects.
    """
    if len(text) > _MAX_CONFIG_BYTES:
        raise InputError(f"{what}: {path} has a config of over {_MAX_CONFIG_BYTES >> 20} MB, more than any model's.")
    config = yaml.safe_load(text)
    if not isinstance(config, dict):
        raise InputError(f"{what}: {path} is not a .nemo file of a model: its {CONFIG} holds no keys.")
    for count, _ in enumerate(config_values(config)):
        if count > _MAX_CONFIG_VALUES:
            raise InputError(f"{what}: {path} has a config that expands without end. Take it from a source that you trust.")
    return config


def overriding_config(given: Any, what: str) -> dict[str, Any]:
    """A caller's config instead of the file's, as NeMo accepts it: a YAML file or a config, perhaps below `model`.

    Raises:
        InputError: if there is no such file, or it holds no keys.
    """
    from omegaconf import OmegaConf

    if isinstance(given, str | Path):
        path = existing_file(given, f"{what}, override_config_path")
        try:
            config = OmegaConf.load(path)
        except Exception as error:  # yaml and omegaconf each raise their own
            raise InputError(f"{what}, override_config_path: {path} is not YAML ({one_line(error)}). Give a config.") from error
        if not OmegaConf.is_dict(config):
            raise InputError(f"{what}, override_config_path: {path} holds no keys. Give the config of a model.")
        given = config
    config = plain(given)
    return config["model"] if "model" in config else config


def read_weights(file: Path, path: str | Path, what: str) -> dict[str, Tensor]:
    """The state dict in `file`, unpacked from the `.nemo` at `path`, on the CPU.

    Pickled code is refused, even if TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is set: that variable overrides the default of
    `weights_only`, not an explicit value.

    Raises:
        InputError: if it contains code, is broken, or is not a dict of tensors.
    """
    import torch

    try:
        _check_records(file, path, what)
        # mmap: weights are read when they are used. Files of torch < 1.6 are not zip files and cannot be mapped.
        weights = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except InputError:
        raise
    except Exception as error:  # torch, zipfile and pickle each raise their own errors for a broken file
        if named := re.search(r"GLOBAL (\S+)", str(error)):  # torch's message, which goes on to advise unpickling it anyway
            raise InputError(
                f"{what}: {path} would execute {named[1]} while its weights are read, and code in a file is never executed. "
                "Take it from a source that you trust."
            ) from error
        raise _broken(path, what, error) from error
    if not isinstance(weights, dict) or not all(isinstance(w, torch.Tensor) and isinstance(n, str) for n, w in weights.items()):
        raise InputError(f"{what}: the weights in {path} are not a dict of tensors. Save the model again with model.save_to.")
    return weights


def config_values(config: Any) -> Iterator[tuple[str, str, Any]]:
    """Every value in a nested config, containers included, as (dotted place, last key, value); lists have `layers.0`, ..."""
    waiting: list[tuple[str, str, Any]] = [("", "", config)]
    while waiting:
        place, _, value = waiting.pop()
        if isinstance(value, dict):
            children = [(str(key), child) for key, child in value.items()]
        elif isinstance(value, list):
            children = [(str(index), child) for index, child in enumerate(value)]
        else:
            continue
        inside = [(f"{place}.{key}".lstrip("."), key, child) for key, child in children]
        yield from inside
        waiting += inside


def missing_artifacts(config: Any, names: Collection[str]) -> list[str]:
    """The places in a config that name a file (`nemo:...`) which is not among `names`."""
    named = ((place, value) for place, _, value in config_values(config) if isinstance(value, str))
    return [place for place, value in named if value.startswith("nemo:") and value.removeprefix("nemo:") not in names]


# Classes (capitalised, which functions are not) of model parts and of optimisers.
_PARTS = re.compile(
    r"(nemo_duplex\.(codec|models)|nemo\.collections\.(asr|tts|speechlm2)\.modules|nemo\.core\.optim|torch\.optim)(\.\w+)*\.[A-Z]\w*"
)
# Parts of NeMo that load weights by a name in their config, from the network or from pickled files.
_FETCHERS = ("SSLModel", "SLMDiscriminator", "SLMEncoder", "SLMPredictor", "ResNetSpeakerEncoder")


def is_part(target: Any) -> bool:
    """Whether a config in a file may have this `_target_`, which NeMo calls with the keys beside it.

    NeMo's own list is too wide: it includes functions that write files (`manifest_utils.write_manifest`) and classes that
    download what a key names.
    """
    return isinstance(target, str) and bool(_PARTS.fullmatch(target)) and target.rpartition(".")[2] not in _FETCHERS


# --- the archive ------------------------------------------------------------------------------------------------------


@contextmanager
def _opened(
    path: str | Path, what: str, class_name: str | tuple[str, ...] | None
) -> Iterator[tuple[tarfile.TarFile, dict[str, tarfile.TarInfo], dict[str, Any]]]:
    """The archive, its files by name, and its config, all checked before anything is unpacked."""
    path = existing_file(path, what)
    try:
        with tarfile.open(path, "r:*") as archive:
            files = _files(archive, path, what)
            if missing := {CONFIG, WEIGHTS} - files.keys():
                raise InputError(f"{what}: {path} is not a .nemo file of a model: it lacks {' and '.join(sorted(missing))}.")
            with _stream(archive, files[CONFIG]) as file:
                config = parse_config(file.read(_MAX_CONFIG_BYTES + 1), path, what)
            target = str(config.get("target", ""))
            names = (class_name,) if isinstance(class_name, str) else class_name
            if names is not None and target.rsplit(".")[-1] not in names:
                expected = " or ".join(names)
                raise InputError(f"{what}: {path} is a model of class {target or 'unknown'}, expected {expected}.")
            yield archive, files, config
    except InputError:
        raise
    except Exception as error:  # tarfile, zlib and yaml each raise their own errors for a broken file
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise _no_space(path, what) from error
        raise _broken(path, what, error) from error


def _files(archive: tarfile.TarFile, path: Path, what: str) -> dict[str, tarfile.TarInfo]:
    """The regular files by their path in the archive; refuses names, kinds and sizes that no writer of `.nemo` produces.

    Members are checked one by one: a giant is found by its header, before it is decompressed.
    """
    limit = _MAX_INFLATION * path.stat().st_size + _ALWAYS_FITS
    files: dict[str, tarfile.TarInfo] = {}
    total = 0
    for member in archive:
        name = PurePosixPath(member.name)  # drops the "./" that NeMo writes
        total += member.size
        if name.is_absolute() or ".." in name.parts or "\\" in member.name:
            wrong = "would be written outside of its folder"
        elif member.isdir():
            continue
        elif not member.isreg() or member.issparse():
            wrong = "is a link, a device or sparse; expected a plain file"
        elif str(name) in files:
            wrong = "occurs twice"
        elif total > limit:
            wrong = f"unpacks to {total / 1e9:.1f} GB in an archive of {path.stat().st_size / 1e6:.1f} MB"
        else:
            files[str(name)] = member
            continue
        raise InputError(f"{what}: {path} is not safe to unpack: {member.name} {wrong}. Take it from a source that you trust.")
    return files


def _stream(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    file = archive.extractfile(member)
    assert file is not None, f"{member.name} is a regular file"
    return file


def _check_records(file: Path, path: str | Path, what: str) -> None:
    """Refuses weights that unpack to more than their file has: torch writes its records uncompressed."""
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as records:
        unpacked = sum(record.file_size for record in records.infolist())
    if unpacked > file.stat().st_size:
        raise InputError(
            f"{what}: {path} is not safe to unpack: {WEIGHTS} has {file.stat().st_size / 1e6:.1f} MB and unpacks to "
            f"{unpacked / 1e9:.1f} GB. Take it from a source that you trust."
        )


def _no_space(path: str | Path, what: str) -> InputError:
    return InputError(
        f"{what}: there is no space left in {tempfile.gettempdir()} to unpack {path}. Free some, or set TMPDIR to another disk."
    )


def _broken(path: str | Path, what: str, error: Exception) -> InputError:
    return InputError(f"{what}: {path} is truncated or not a .nemo file ({one_line(error)}). Copy or train it again.")
