"""Data loaders for Lightning, through NeMo's Lhotse loader: bucketing, weighted inputs, sharding over ranks."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lhotse import CutSet
from lhotse.cut import Cut
from lhotse.dataset import IterableDatasetWrapper
from lhotse.dataset.sampling.base import CutSampler
from lightning.pytorch.utilities import CombinedLoader
from lightning.pytorch.utilities.seed import isolate_rng
from nemo.collections.common.data.lhotse import get_lhotse_dataloader_from_config
from omegaconf import DictConfig, OmegaConf
from torch.utils.data import DataLoader

from nemo_duplex.data.batch_stream import BatchStream, ErrorsAsValues, FiniteLoader, StreamLoader
from nemo_duplex.data.dataset import DuplexS2SDataset
from nemo_duplex.data.loader_keys import FILTERS, check_keys, loader_sections
from nemo_duplex.inputs import InputError, existing_folder, one_line, plain
from nemo_duplex.training.seeds import data_rank, mixed_seed, rank_seed

_log = logging.getLogger(__name__)

# Keys of NeMo's loader that do not decide which batches come.
_FREE_KEYS = {"pin_memory", "cuda_expandable_segments", "use_lhotse", "concurrent_bucketing"}


def duplex_dataloader(
    config: DictConfig | dict, dataset: DuplexS2SDataset, rank: int = 0, world_size: int = 1, first: int = 0
) -> DataLoader | FiniteLoader:
    """A loader of DuplexBatch: one pass with `force_finite: true`, otherwise endless, and the same at every start.

    Args:
        config: keys of NeMo's Lhotse loader (`shar_path` or `input_cfg`, `batch_size` or `batch_duration`, `shuffle`,
            `num_workers`, `seed`, `use_bucketing` ...). In an endless loader every rank and worker shuffles in its own way,
            derived from `shard_seed` (default: `seed`); NeMo's "randomized" and "trng" stand for that default.
        dataset: makes the batches.
        rank, world_size: of this process among those that share the data.
        first: of an endless loader, the batch to start with. Those before are skipped without loading audio.

    Raises:
        InputError: for keys that do not fit (`loader_keys.py`), data that cannot be opened or of which the filters leave
            nothing; if `seed` is not a whole number, because no start would equal another.
    """
    config = OmegaConf.create(plain(config))
    check_keys(plain(config))
    finite = bool(config.get("force_finite"))
    seed = config.get("seed", 0)
    if not finite and not isinstance(seed, int):
        raise InputError(f"The data loader has seed={seed}, expected a whole number: give one, such as 0.")
    _check_some_cut(config, dataset)
    if finite:
        assert first == 0, "A finite loader is not entered in the middle."
        return FiniteLoader(_opened(config, ErrorsAsValues(dataset), rank, world_size))
    shard_seed = config.get("shard_seed", seed)
    shard_seed = shard_seed if isinstance(shard_seed, int) else seed
    workers, own_order = config.get("num_workers", 0), rank_seed(shard_seed, rank)
    loader = _nemo_loader(config, "randomized" if workers else own_order, dataset, rank, world_size)
    one_order = not isinstance(loader.dataset, IterableDatasetWrapper)
    if one_order:  # ranks and workers take turns, and must agree on the order
        loader = _nemo_loader(config, shard_seed, dataset, rank, world_size)
    stream = BatchStream(
        _sampler(loader),
        dataset,
        seed=mixed_seed(seed, rank),
        shuffle_seed=shard_seed if one_order else own_order,
        one_order=one_order,
        first=first,
    )
    return StreamLoader(stream, workers, bool(config.get("pin_memory", False)))


def _nemo_loader(
    config: DictConfig, shard_seed: int | str, dataset: DuplexS2SDataset, rank: int, world_size: int
) -> DataLoader:
    """NeMo's loader, for its sampler."""
    config = config.copy()
    config.shard_seed = shard_seed
    config.num_workers = 0
    for part in (p for p in config.values() if isinstance(p, DictConfig)) if config.get("multi_config") else (config,):
        part.concurrent_bucketing = False  # the order must not depend on the speed of a thread
    with isolate_rng():  # NeMo seeds the whole process
        return _opened(config, dataset, rank, world_size)


def _sampler(loader: DataLoader) -> CutSampler:
    return loader.dataset.sampler if isinstance(loader.dataset, IterableDatasetWrapper) else loader.sampler


def _opened(config: DictConfig, dataset: Any, rank: int, world_size: int) -> DataLoader:
    try:
        return get_lhotse_dataloader_from_config(config, global_rank=rank, world_size=world_size, dataset=dataset)
    except Exception as error:  # NeMo and Lhotse raise many kinds, and assert that a folder holds shards
        reason = one_line(error) if str(error) else "no cuts.*.jsonl.gz in it"
        other = "Check the paths." if isinstance(error, OSError) or not str(error) else "Check the keys of the loader."
        advice = _MISSING_SHARDS if _some_shards_are_missing(error) else other
        raise InputError(f"data: {_named(config)} cannot be opened ({reason}). {advice}") from error


def _named(config: DictConfig) -> dict[str, Any]:
    """The data of a loader, for an error."""
    keys = ("shar_path", "cuts_path", "input_cfg", "noise_path", "rir_path")
    return {key: config[key] for key in keys if config.get(key)}


def _check_some_cut(config: DictConfig, dataset: DuplexS2SDataset) -> None:
    """Checks that the filters of each loader leave a cut: Lhotse repeats data without end, and would look for one for ever.

    Reads up to the first cut that passes.
    """
    for keys in _once(plain(config)):
        if keys.get("multi_config"):
            continue
        once = OmegaConf.create(keys)
        try:
            with isolate_rng():
                found = next(iter(_sampler(_opened(once, dataset, 0, 1)).cuts[0]), None)
        except InputError:
            raise
        except Exception as error:  # lhotse, tarfile, gzip and json each raise their own
            raise InputError(
                f"data: {_named(once)} cannot be read ({one_line(error)}). Check the files and the loader's keys."
            ) from error
        if found is None:
            filters = ", ".join(f"{key}={keys[key]}" for key in FILTERS if keys.get(key) is not None)
            which = "validation" if config.get("force_finite") else "training"
            raise InputError(
                f"The {which} data hold no cut that the loader's filters let pass{f' ({filters})' if filters else ''}. "
                f"Check both: {_named(once)}."
            )


def _once(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The keys of each loader in a configuration, changed so that it gives the same cuts once, in order, one by one."""
    shared = {
        "force_finite": True,
        "shuffle": False,
        "num_workers": 0,
        "seed": 0,
        "shard_seed": 0,
        "concurrent_bucketing": False,
    }
    for section in loader_sections(config):
        keys = _without_streams({**section, **shared})
        if keys.get("bucket_batch_size") is None:  # else buckets are a filter: what is longer than the last is left out
            keys |= {"use_bucketing": False, "bucket_duration_bins": None, "batch_size": 1}
        yield keys


def _without_streams(value: Any) -> Any:
    """Without `max_open_streams`, which NeMo takes in endless loaders alone."""
    if isinstance(value, dict):
        return {key: _without_streams(item) for key, item in value.items() if key != "max_open_streams"}
    return [_without_streams(item) for item in value] if isinstance(value, list) else value


def shar_folder(path: str | Path, set_name: str) -> Path:
    """The folder with the shards: `path` itself, or the set `set_name` of a corpus that `synthesize` wrote to `path`.

    Raises:
        InputError: if there are no shards in either.
    """
    path = existing_folder(path, "data")
    for folder in (path, path / "shar", path / set_name / "shar"):
        if any(folder.glob("cuts.*.jsonl.gz")):
            return folder
    raise InputError(
        f"data: {path} holds no Lhotse Shar (cuts.*.jsonl.gz), nor does {set_name}/shar in it. "
        "Write it with examples/synthesize.py."
    )


def shar_cuts(folder: str | Path, what: str = "data") -> Iterator[Cut]:
    """The cuts of a Shar folder, in order; `what` names it in the error.

    Raises:
        InputError: if a shard is missing or cannot be read.
    """
    try:
        yield from CutSet.from_shar(in_dir=str(folder))
    except Exception as error:  # lhotse, tarfile and gzip each raise their own
        advice = _MISSING_SHARDS if _some_shards_are_missing(error) else "Copy or write the corpus again."
        raise InputError(f"{what}: a shard in {folder} cannot be read ({one_line(error)}). {advice}") from error


_MISSING_SHARDS = "Copy the missing shards too, or move away the others of that field."


def _some_shards_are_missing(error: Exception) -> bool:
    return isinstance(error, AssertionError) and "shards available for field" in str(error)


class DuplexDataModule(pl.LightningDataModule):
    """Training and validation loaders for `Trainer.fit`.

    Batches are those of `dataset` (`DuplexBatch`: B conversations of T frames). The state in a checkpoint is the number of
    batches that the training has seen, and what they were made of; a resumed training starts with the batch after them.

    Args:
        config: `train` and `validation`, each a folder (see `shar_folder`; its sets `train` and `dev`) or None, with
            `train_loader` and `validation_loader`, keys of NeMo's Lhotse loader. Without a folder, the loader's keys name the
            data (`input_cfg`); without `validation`, there is none. `validation_loaders` replaces it for several sets:
            such keys by name, and a batch is a dict by name.
        dataset: makes the batches; take it from the model (`model.dataset()`).

    Raises:
        InputError: at once, if a folder holds no shards, or if the training data are finite.

    Examples:
        >>> from omegaconf import OmegaConf
        >>> loader = {"batch_size": 2, "num_workers": 0, "seed": 0, "shard_seed": 0}
        >>> config = {"train": corpus, "train_loader": loader, "validation": None, "validation_loader": None}
        >>> data = DuplexDataModule(OmegaConf.create(config), model.dataset())
        >>> data.dataset.user_sample_rate
        16000
    """

    def __init__(self, config: DictConfig, dataset: DuplexS2SDataset) -> None:
        super().__init__()
        self.dataset = dataset
        self._train = _loader_config(config.train_loader, config.train, "train")
        self._validation = _loader_config(config.validation_loader, config.validation, "dev") if config.validation else None
        self._named = config.get("validation_loaders") or {}
        self._first = 0
        if self._train.get("force_finite"):
            raise InputError("data.train_loader.force_finite=true ends the training data. Leave it out; it is for validation.")

    def train_dataloader(self) -> DataLoader | FiniteLoader:
        if self._first:
            _log.info("Going on after batch %d: finding its place in the data ...", self._first)
        return duplex_dataloader(self._train, self.dataset, *data_rank(self.trainer), first=self._first)

    def val_dataloader(self) -> DataLoader | FiniteLoader | CombinedLoader | list:
        if self._named:
            rank = data_rank(self.trainer)
            loaders = {name: duplex_dataloader(keys, self.dataset, *rank) for name, keys in self._named.items()}
            return CombinedLoader(loaders, mode="max_size")
        return duplex_dataloader(self._validation, self.dataset, *data_rank(self.trainer)) if self._validation else []

    def state_dict(self) -> dict[str, Any]:
        seen = self.trainer.fit_loop.epoch_loop.batch_progress.total.processed
        return {"seen": seen, "made_of": self._made_of()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Enters the training data where the checkpoint left them.

        Raises:
            InputError: if they would be other batches, with the keys that differ.
        """
        before, now = state["made_of"], self._made_of()
        changed = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
        if changed:
            named = "; ".join(f"{key} was {before.get(key, 'not set')}, is {now.get(key, 'not set')}" for key in changed)
            raise InputError(f"This training cannot resume with other data: {named}. Set it back, or give another out=.")
        self._first = state["seen"]

    def _made_of(self) -> dict[str, str]:
        """Everything that decides which batches come, by key of the loader."""
        keys = plain(self._train)
        return {**dict(_described(keys, "")), "processes": str(data_rank(self.trainer)[1])}


def _loader_config(keys: DictConfig, folder: str | None, set_name: str) -> DictConfig:
    """Keys of NeMo's loader, with the Shar folder where there is one."""
    where = {"shar_path": str(shar_folder(folder, set_name))} if folder else {}
    return OmegaConf.create({**plain(keys), **where})


def _described(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """(dotted key, value) of all keys that decide; of a path the names and sizes of its files, so that data may be moved."""
    if isinstance(value, dict):
        for name, item in value.items():
            if name not in _FREE_KEYS:
                yield from _described(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        for number, item in enumerate(value):
            yield from _described(item, f"{key}.{number}")
    elif isinstance(value, str) and Path(value).exists():
        path = Path(value)
        files = sorted(f for f in path.iterdir() if f.is_file()) if path.is_dir() else [path]
        listing = "\n".join(f"{f.name} {f.stat().st_size}" for f in files)
        yield key, f"{len(files)} files with fingerprint {hashlib.sha256(listing.encode()).hexdigest()[:12]}"
    else:
        yield key, str(value)
