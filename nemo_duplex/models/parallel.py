"""Training on many processes: what is added over them. The model file knows only the names of these functions."""

from __future__ import annotations

from typing import Any

import torch
from torch.distributed import ProcessGroup

from nemo_duplex.models.metrics import StepSums


def summed_over_ranks(sums: StepSums, device_mesh: Any | None) -> StepSums:
    """The sums of all ranks that share the batch between them; those of this rank where there is only one.

    Args:
        device_mesh: of a model-parallel strategy, whose `data_parallel` ranks have different data; None otherwise.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return sums
    group: ProcessGroup | None = device_mesh["data_parallel"].get_group() if device_mesh is not None else None
    both = torch.stack([sums.sums, sums.counts])
    torch.distributed.all_reduce(both, group=group)
    return StepSums(sums.names, both[0], both[1], torch.distributed.get_world_size(group))
