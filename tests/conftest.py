"""Every test starts from the same state: no network, one thread, seed 0."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

# Before torch, transformers or matplotlib are imported.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["WANDB_MODE"] = "disabled"
os.environ["MPLBACKEND"] = "Agg"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

# A job in the background of a shell is started deaf to Ctrl-C, and its children with it; some tests press it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def same_start():
    """Same random numbers for every test, alone or in any order; one thread, so that sums are added in one order."""
    torch.set_num_threads(1)
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory):
    """What is kept in the user's cache folder (eSpeak's voices, imported texts) goes to one that is removed."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--agent", help="a trained agent.nemo: adds the tests of tests/agent")
    parser.addoption("--corpus", help="the corpus folder that goes with --agent")
    parser.addoption(
        "--contract", action="store_true", help="adds the tests of tests/contract: calls from other people's clients"
    )
    parser.addoption(
        "--server",
        metavar="HOST:PORT",
        help="a server of tests.serving.answering that these tests call, instead of one of their own",
    )


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Bytes are named by their place. As a name, those of a gzip file would hold the second in which they were made,
    and processes that collect in two different seconds would disagree on what there is to test."""
    return argname if isinstance(val, bytes) else None


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Tests of a trained agent need one; `make demo` trains it and `make test-agent` runs them. Those of other people's clients
    need these clients; `make contract` installs and runs them."""
    needs = {"agent": "--agent", "contract": "--contract"}
    option = next((needs[part] for part in collection_path.parts[-2:] if part in needs), None)
    return True if option and not config.getoption(option) else None
