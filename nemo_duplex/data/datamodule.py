"""Data loaders for Lightning, through NeMo's Lhotse loader: bucketing, weighted inputs, sharding over ranks."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import fields
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import lightning.pytorch as pl
from lhotse import CutSet
from lhotse.cut import Cut
from lhotse.dataset import IterableDatasetWrapper
from lhotse.dataset.sampling.base import CutSampler
from lhotse.dataset.sampling.dynamic_bucketing import estimate_duration_buckets
from lightning.pytorch.utilities import CombinedLoader
from lightning.pytorch.utilities.seed import isolate_rng
from nemo.collections.common.data.lhotse import get_lhotse_dataloader_from_config
from nemo.collections.common.data.lhotse.dataloader import LhotseDataLoadingConfig
from omegaconf import DictConfig, OmegaConf
from torch.utils.data import DataLoader

from nemo_duplex.data.batch_stream import BatchStream, FiniteLoader, StreamLoader
from nemo_duplex.data.composed_stream import composed_dataloader
from nemo_duplex.data.composition import Composition
from nemo_duplex.data.dataset import DuplexS2SDataset
from nemo_duplex.data.datasets import datasets_of, is_mixture
from nemo_duplex.data.loader_keys import FILTERS, check_keys, loader_sections, require_data
from nemo_duplex.frames import Seconds
from nemo_duplex.inputs import InputError, existing_folder, one_line, plain, refuse_unknown
from nemo_duplex.training.seeds import data_rank, mixed_seed, rank_seed

_log = logging.getLogger(__name__)

# Keys of NeMo's loader that do not decide which batches come.
_FREE_KEYS = {"pin_memory", "cuda_expandable_segments", "use_lhotse", "concurrent_bucketing"}


def duplex_dataloader(
    config: DictConfig | dict, dataset: DuplexS2SDataset, rank: int = 0, world_size: int = 1, first: int = 0
) -> DataLoader | FiniteLoader:
    """A loader of DuplexBatch, the same at every start: one pass with `force_finite: true`, otherwise endless.

    Args:
        config: keys of NeMo's Lhotse loader (`shar_path` or `input_cfg`, `batch_size` or `batch_duration`, `shuffle`,
            `num_workers`, `seed`, `use_bucketing` ...). In an endless loader every rank and worker shuffles in its own way,
            derived from `shard_seed` (default: `seed`); NeMo's "randomized" and "trng" stand for that default. In one pass
            workers take turns, so that every conversation comes once.
        dataset: makes the batches.
        rank, world_size: of this process among those that share the data.
        first: of an endless loader, the batch to start with. Those before are skipped without loading audio.

    Raises:
        InputError: for keys that do not fit (`loader_keys.py`), data that cannot be opened or of which the filters leave
            nothing, or fewer than buckets.
    """
    config = OmegaConf.create(plain(config))
    check_keys(plain(config))
    config = OmegaConf.create(_looked_at(plain(config), dataset))
    finite, seed = bool(config.get("force_finite")), config.get("seed", 0)
    assert first == 0 or not finite, "A finite loader is not entered in the middle."
    shard_seed = config.get("shard_seed", seed)
    shard_seed = shard_seed if isinstance(shard_seed, int) else seed
    workers, own_order = config.get("num_workers", 0), rank_seed(shard_seed, rank)
    loader = _nemo_loader(config, "randomized" if workers else own_order, dataset, rank, world_size)
    one_order = finite or not isinstance(loader.dataset, IterableDatasetWrapper)
    if one_order:  # ranks and workers take turns, and must agree on the order
        loader = _nemo_loader(config, shard_seed, dataset, rank, world_size)
    stream = BatchStream(
        _sampler(loader),
        dataset,
        seed=mixed_seed(seed, rank),
        shuffle_seed=shard_seed if one_order else own_order,
        one_order=one_order,
        first=first,
        one_pass=finite,
    )
    return (FiniteLoader if finite else StreamLoader)(stream, workers, bool(config.get("pin_memory", False)))


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
    except Exception as error:  # NeMo and Lhotse raise many kinds
        empty = _without_shards(plain(config))
        reason = f"no cuts.*.jsonl.gz in {empty[0]}" if empty else one_line(error)
        other = "Check the paths." if isinstance(error, OSError) or empty else "Check the keys of the loader."
        advice = _MISSING_SHARDS if _some_shards_are_missing(error) else other
        raise InputError(f"data: {_named(config)} cannot be opened ({reason}). {advice}") from error


def _without_shards(value: Any) -> list[str]:
    """The folders below every `shar_path` in plain data that hold no cuts."""
    if isinstance(value, list):
        return [folder for item in value for folder in _without_shards(item)]
    if not isinstance(value, dict):
        return []
    path = value.get("shar_path")
    here = [path] if isinstance(path, str) and Path(path).is_dir() and not any(Path(path).glob("cuts.*")) else []
    return here + _without_shards(list(value.values()))


def _named(config: DictConfig) -> dict[str, Any]:
    """The data of a loader, for an error."""
    keys = ("shar_path", "cuts_path", "input_cfg", "noise_path", "rir_path")
    return {key: config[key] for key in keys if config.get(key)}


def _looked_at(config: dict[str, Any], dataset: DuplexS2SDataset) -> dict[str, Any]:
    """The configuration of a loader after a look at one pass of its data, with the edges of buckets where they are estimated.

    Lhotse repeats data without end: it would look for ever for a cut that the filters let pass, and estimates buckets from
    thousands of copies of a few cuts. Reads up to the first cut that passes; where buckets are estimated, as many as it takes.
    """
    for keys in cast(Iterator[dict[str, Any]], loader_sections(config)):
        if keys.get("multi_config"):
            continue
        estimated = _estimates_buckets(keys)
        count = keys.get("num_cuts_for_bins_estimate", 10000) if estimated else 1
        durations = _durations(_once(keys), count, dataset)
        if not durations:
            filters = ", ".join(f"{key}={keys[key]}" for key in FILTERS if keys.get(key) is not None)
            which = "validation" if config.get("force_finite") else "training"
            raise InputError(
                f"The {which} data hold no cut that the loader's filters let pass{f' ({filters})' if filters else ''}. "
                f"Check both: {_named(keys)}."
            )
        if estimated:
            keys["bucket_duration_bins"] = _bucket_edges(keys, durations, exhausted=len(durations) < count)
    return config


def _durations(once: dict[str, Any], count: int, dataset: DuplexS2SDataset) -> list[Seconds]:
    """Of the first cuts of one pass, at most `count`."""
    config = OmegaConf.create(once)
    try:
        with isolate_rng():
            return [cut.duration for cut in islice(_sampler(_opened(config, dataset, 0, 1)).cuts[0], count)]
    except InputError:
        raise
    except Exception as error:  # lhotse, tarfile, gzip and json each raise their own
        raise InputError(
            f"data: {_named(once)} cannot be read ({one_line(error)}). Check the files and the loader's keys."
        ) from error


def _estimates_buckets(keys: Mapping[str, Any]) -> bool:
    """Whether buckets are estimated from the data: NeMo divides the time up to `max_duration` evenly where there is one."""
    known = keys.get("bucket_duration_bins") is not None or (keys.get("max_duration") or math.inf) < math.inf
    return keys.get("use_bucketing") is True and not known


def _bucket_edges(keys: Mapping[str, Any], durations: list[Seconds], exhausted: bool) -> list[Seconds]:
    """The edges of the buckets for cuts with these durations, as Lhotse estimates them; `exhausted`: they are all."""
    buckets = keys.get("num_buckets", 30)
    if buckets > len(durations):
        fewer = f"Give num_buckets={len(durations)}, or leave" if len(durations) > 1 else "Leave"
        raise InputError(
            f"The data loader has use_bucketing=true with num_buckets={buckets}, but the data hold {len(durations)} "
            f"conversations. {fewer} use_bucketing out."
        )
    held = sum(keys.get(key) or 0 for key in ("bucket_buffer_size", "shuffle_buffer_size"))
    held += sum(10000 for key in ("bucket_buffer_size", "shuffle_buffer_size") if key not in keys)
    if exhausted and held > len(durations) and not keys.get("force_finite"):
        _log.warning(
            "Bucketing takes %d conversations into memory before the first batch (bucket_buffer_size + shuffle_buffer_size); "
            "the data hold %d. Smaller sizes start sooner.",
            held,
            len(durations),
        )
    sized = [SimpleNamespace(duration=duration) for duration in durations]
    edges = [float(edge) for edge in estimate_duration_buckets(sized, buckets)]
    return edges or [max(durations) + 1.0]  # NeMo takes no empty list


def _once(section: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a loader, changed so that it gives the same cuts once, in order, one by one."""
    shared = {
        "force_finite": True,
        "shuffle": False,
        "num_workers": 0,
        "seed": 0,
        "shard_seed": 0,
        "concurrent_bucketing": False,
    }
    keys = _without_streams({**section, **shared})
    if keys.get("bucket_batch_size") is None:  # else buckets are a filter: what is longer than the last is left out
        keys |= {"use_bucketing": False, "bucket_duration_bins": None, "batch_size": 1}
    return keys


def _without_streams(value: Any) -> Any:
    """Without `max_open_streams`, which NeMo takes in endless loaders alone."""
    if isinstance(value, dict):
        return {key: _without_streams(item) for key, item in value.items() if key != "max_open_streams"}
    return [_without_streams(item) for item in value] if isinstance(value, list) else value


def refuse_unknown_keys(config: dict[str, Any], name: str) -> None:
    """Checks that NeMo's loader knows each key of a section `name` ("data.train_loader"): it leaves out what it does not know.

    Raises:
        InputError: for the first that it does not know, with the nearest that it does.
    """
    known = {"use_lhotse", *(field.name for field in fields(LhotseDataLoadingConfig))}
    for section in loader_sections(config):
        named = section.get("multi_config")
        refuse_unknown([key for key, value in section.items() if not (named and isinstance(value, dict))], known, name)


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
        "Check the path, or write the corpus with examples/synthesize.py."
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


_MISSING_SHARDS = (
    "Copy the missing shards too. Of target_audio and target_codes one is enough: all shards of the other may be moved away."
)


def _some_shards_are_missing(error: Exception) -> bool:
    return isinstance(error, AssertionError) and "shards available for field" in str(error)


class DuplexDataModule(pl.LightningDataModule):
    """Training and validation loaders for `Trainer.fit`.

    Batches are those of `dataset` (`DuplexBatch`: B conversations of T frames). The state in a checkpoint is the number of
    batches that the training has seen, and what they were made of; a resumed training starts with the batch after them.

    Args:
        config: `train` and `validation`, each a folder (see `shar_folder`; its sets `train` and `dev`; or a mixture of
            datasets, which are drawn in proportion to their hours) or None, with
            `train_loader` and `validation_loader`, keys of NeMo's Lhotse loader. Without a folder, the loader's keys name the
            data (`input_cfg`); without `validation`, there is none. `validation_loaders` replaces it for several sets:
            such keys by name, and a batch is a dict by name. `compose` replaces `train`: keys of `conf/synthesize.yaml`, or a
            file of them, by which the dialogues of the training are made while it runs (`composition.py`).
        dataset: makes the batches; take it from the model (`model.dataset()`).

    Raises:
        InputError: at once, if a folder holds no shards, the training data are finite, or `compose` is not as it must be.

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
        require_data(plain(config))
        self._composition = Composition.of(config.compose) if config.get("compose") is not None else None
        self._train = _loader_config(config.train_loader, config.train, "train")
        self._validation = _loader_config(config.validation_loader, config.validation, "dev") if config.validation else None
        self._named = config.get("validation_loaders") or {}
        self._first = 0
        if self._train.get("force_finite"):
            raise InputError("data.train_loader.force_finite=true ends the training data. Leave it out; it is for validation.")

    def train_dataloader(self) -> DataLoader | FiniteLoader:
        if self._first:
            _log.info("Going on after batch %d: finding its place in the data ...", self._first)
        rank = data_rank(self.trainer)
        if self._composition:
            return composed_dataloader(self._composition, plain(self._train), self.dataset, *rank, first=self._first)
        return duplex_dataloader(self._train, self.dataset, *rank, first=self._first)

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
        if "train" in changed:  # composed before and read now, or the other way round
            changed = ["train"]
        if changed:
            named = "; ".join(f"{key} was {before.get(key, 'not set')}, is {now.get(key, 'not set')}" for key in changed)
            raise InputError(f"This training cannot resume with other data: {named}. Set it back, or give another out=.")
        self._first = state["seen"]

    def _made_of(self) -> dict[str, str]:
        """Everything that decides which batches come, by key of the loader."""
        keys, processes = plain(self._train), {"processes": str(data_rank(self.trainer)[1])}
        if self._composition:
            sizes = {key: str(keys.get(key)) for key in ("batch_size", "batch_duration")}
            return {"train": "composed", **sizes, **self._composition.made_of(), **processes}
        return {**dict(_described(keys, "")), **processes}


def _loader_config(keys: DictConfig, folder: str | None, set_name: str) -> DictConfig:
    """Keys of NeMo's loader, with the Shar folder where there is one."""
    where: dict[str, Any] = {}
    if folder:
        where = (
            {"input_cfg": datasets_of(folder, set_name)}
            if is_mixture(folder)
            else {"shar_path": str(shar_folder(folder, set_name))}
        )
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
