"""Seeds of data loaders, one for each rank and worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import lightning.pytorch as pl  # seconds of the start of every worker of a data loader

_SEEDS_PER_RANK = 100_000


def rank_seed(seed: int, rank: int) -> int:
    """The seed with which a rank shuffles, where each rank shuffles all data in its own order."""
    return seed + rank * _SEEDS_PER_RANK


def mixed_seed(*parts: int) -> int:
    """One seed (32 bits) from numbers >= 0, such as seed, rank and step; neighbouring numbers give unrelated seeds."""
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def data_rank(trainer: pl.Trainer | None) -> tuple[int, int]:
    """(rank, world size) among the processes with different data; a tensor-parallel group shares its data."""
    if trainer is None:
        return 0, 1
    mesh = trainer.lightning_module.device_mesh
    if mesh is not None:
        return mesh["data_parallel"].get_local_rank(), mesh["data_parallel"].size()
    return trainer.global_rank, trainer.world_size
