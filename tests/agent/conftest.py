"""Tests of a trained agent: `make test-agent`, or pytest tests/agent --agent demo/agent.nemo --corpus demo/corpus."""

from __future__ import annotations

import pytest
import torch

from nemo_duplex.evaluation.sets import read_sets
from nemo_duplex.models.duplex_s2s import DuplexS2SModel


@pytest.fixture(scope="session")
def agent(request) -> DuplexS2SModel:
    torch.set_num_threads(2)
    return DuplexS2SModel.restore_from(request.config.getoption("--agent"), map_location="cpu").eval()


@pytest.fixture(scope="session")
def sets(request):
    return read_sets(request.config.getoption("--corpus"), ["dev", "impatient"], limit=12)
