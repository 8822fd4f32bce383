"""Threads and device of a script: usable, or refused in one line."""

from __future__ import annotations

import pytest
import torch

from nemo_duplex.inputs import InputError
from nemo_duplex.scripts.hardware import require_device, use_threads


def test_threads_are_set_or_left():
    before = torch.get_num_threads()
    try:
        use_threads(before + 1)
        assert torch.get_num_threads() == before + 1
        use_threads(None)
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [0, -1, 1025])
def test_impossible_threads(threads):
    with pytest.raises(InputError, match=f"^threads={threads}: expected 1 to 1024 CPU threads.$"):
        use_threads(threads)


@pytest.mark.parametrize("device", ["", "gpu", "0", "meta", "cuda:99", "cpu:x", "hpu"])
def test_a_device_that_is_not_here(device):
    with pytest.raises(InputError, match=rf"^device={device}: .* Here is cpu") as caught:
        require_device(device)
    assert "\n" not in str(caught.value)
    assert require_device("cpu") == "cpu", "what the message names"
