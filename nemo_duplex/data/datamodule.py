"""Data loaders for Lightning, through NeMo's Lhotse loader: bucketing, weighted inputs, sharding over ranks."""

from __future__ import annotations

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

    Raises:
        InputError: if a folder named by the config is missing or holds no shards.
    """
    config = OmegaConf.create(OmegaConf.to_container(config, resolve=True) if isinstance(config, DictConfig) else config)
    for folder in _folders(config):
        if not list(existing_folder(folder, "data").glob("cuts.*.jsonl.gz")):
            raise InputError(f"data: {folder} holds no Lhotse Shar (cuts.*.jsonl.gz). Write it with examples/synthesize.py.")
    return get_lhotse_dataloader_from_config(config, global_rank=rank, world_size=world_size, dataset=dataset)


def _folders(config: DictConfig) -> list[str]:
    """The Shar folders that a loader config names, on the top level and in its weighted inputs."""
    folders = []
    for part in [config, *config.get("input_cfg", [])]:
        path = part.get("shar_path")
        if isinstance(path, str):
            folders.append(path)
    return folders


class DuplexDataModule(pl.LightningDataModule):
    """Training and validation loaders for `Trainer.fit`.

    Args:
        config: sections `train` and `validation`, each a config of NeMo's Lhotse loader; `validation` may be missing.
        dataset: makes the batches; take it from the model (`model.dataset()`).
    """

    def __init__(self, config: DictConfig, dataset: DuplexS2SDataset) -> None:
        super().__init__()
        self.config = config
        self.dataset = dataset

    def train_dataloader(self) -> DataLoader:
        return self._loader(self.config.train)

    def val_dataloader(self) -> DataLoader | list:
        return self._loader(self.config.validation) if self.config.get("validation") else []

    def _loader(self, config: DictConfig) -> DataLoader:
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return duplex_dataloader(config, self.dataset, rank, world_size)
