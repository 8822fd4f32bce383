"""Data loaders for Lightning, through NeMo's Lhotse loader: bucketing, weighted inputs, sharding over ranks."""

from __future__ import annotations

from pathlib import Path

import lightning.pytorch as pl
from nemo.collections.common.data.lhotse import get_lhotse_dataloader_from_config
from omegaconf import DictConfig, OmegaConf
from torch.utils.data import DataLoader

from nemo_duplex.data.dataset import DuplexS2SDataset
from nemo_duplex.inputs import InputError, existing_folder


def duplex_dataloader(config: DictConfig | dict, dataset: DuplexS2SDataset, rank: int = 0, world_size: int = 1) -> DataLoader:
    """A loader of DuplexBatch.

    Args:
        config: keys of NeMo's Lhotse loader (`shar_path` or `input_cfg`, `batch_size` or `batch_duration`, `shuffle`,
            `num_workers`, `seed`, `use_bucketing` ...).
        dataset: makes the batches.
        rank, world_size: of this process among those that share the data.
    """
    config = OmegaConf.create(OmegaConf.to_container(config, resolve=True) if isinstance(config, DictConfig) else config)
    return get_lhotse_dataloader_from_config(config, global_rank=rank, world_size=world_size, dataset=dataset)


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


class DuplexDataModule(pl.LightningDataModule):
    """Training and validation loaders for `Trainer.fit`.

    Args:
        config: `train` and `validation`, each a folder (see `shar_folder`; its sets `train` and `dev`) or None, with
            `train_loader` and `validation_loader`, keys of NeMo's Lhotse loader. Without a folder, the loader's keys name the
            data (`input_cfg`); without `validation`, there is none.
        dataset: makes the batches; take it from the model (`model.dataset()`).

    Raises:
        InputError: at once, if a folder holds no shards.
    """

    def __init__(self, config: DictConfig, dataset: DuplexS2SDataset) -> None:
        super().__init__()
        self.dataset = dataset
        self._train = _loader_config(config.train_loader, config.train, "train")
        self._validation = _loader_config(config.validation_loader, config.validation, "dev") if config.validation else None

    def train_dataloader(self) -> DataLoader:
        return self._loader(self._train)

    def val_dataloader(self) -> DataLoader | list:
        return self._loader(self._validation) if self._validation else []

    def _loader(self, config: DictConfig) -> DataLoader:
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return duplex_dataloader(config, self.dataset, rank, world_size)


def _loader_config(keys: DictConfig, folder: str | None, set_name: str) -> DictConfig:
    """Keys of NeMo's loader, with the Shar folder where there is one."""
    where = {"shar_path": str(shar_folder(folder, set_name))} if folder else {}
    return OmegaConf.create({**OmegaConf.to_container(keys, resolve=True), **where})
