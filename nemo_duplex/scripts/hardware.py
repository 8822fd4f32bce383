"""The CPU threads and the device that a script is given."""

from __future__ import annotations

import torch

from nemo_duplex.inputs import InputError, one_line

_MOST_THREADS = 1024


def use_threads(threads: int | None) -> None:
    """Makes torch compute with so many CPU threads; None leaves the choice to torch.

    Raises:
        InputError: for a number that no machine can start.
    """
    if threads is None:
        return
    if not 1 <= threads <= _MOST_THREADS:
        raise InputError(f"threads={threads}: expected 1 to {_MOST_THREADS} CPU threads.")
    torch.set_num_threads(threads)


def require_device(device: str) -> str:
    """`device`, if torch can compute on it here.

    Raises:
        InputError: if there is no such device, with those that there are.
    """
    try:
        torch.ones(1, device=torch.device(device)).sum().item()
    except Exception as error:  # each kind of device raises its own
        there = [f"cuda:{n}" for n in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
        raise InputError(f"device={device}: {one_line(error)}. Here is {', '.join(['cpu', *there])}.") from error
    return device
