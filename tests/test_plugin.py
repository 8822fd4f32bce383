"""What `import nemo_duplex` does, and does not do, to a program: each case in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
import torch
from omegaconf import OmegaConf

CHECK = """
from nemo.core.classes import common
allowed = common.ALLOWED_TARGET_PREFIXES
assert [p for p in allowed if "nemo_duplex.x".startswith(p)] == ["nemo_duplex."], allowed
"""


def python(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_is_cheap():
    assert (
        python("import sys, nemo_duplex; print([m for m in ('torch', 'nemo', 'numpy', 'lhotse') if m in sys.modules])") == "[]"
    )
    start = time.perf_counter()
    python("pass")
    bare = time.perf_counter() - start
    start = time.perf_counter()
    python("import nemo_duplex")
    assert time.perf_counter() - start - bare < 0.5, "0.03 s when this was written; the promise is 0.2 s"


def test_the_public_names_are_known_without_being_loaded():
    names = python("import sys, nemo_duplex; print(dir(nemo_duplex)); assert 'torch' not in sys.modules")
    assert names == "['DuplexDataModule', 'DuplexS2SDataset', 'DuplexS2SModel', 'FSQCodec', '__version__']"
    message = python("import nemo_duplex\ntry: nemo_duplex.Nothing\nexcept AttributeError as e: print(e)")
    assert "no attribute 'Nothing'; it offers DuplexDataModule" in message


@pytest.mark.slow
@pytest.mark.parametrize(
    "imports",
    [
        "import nemo.core, nemo_duplex",
        # A lookup asks the finders without importing; the entry must still be made at the import, once.
        "import importlib.util, nemo_duplex, nemo_duplex.plugin\n"
        "importlib.util.find_spec('nemo.core.classes.common')\n"
        "nemo_duplex.plugin.register()\n"
        "import nemo.core",
    ],
    ids=["after NeMo", "before NeMo"],
)
def test_our_prefix_is_allowed_and_nothing_wider(imports):
    python(imports + CHECK)


def test_what_a_config_may_name():
    from nemo.core.classes import common

    import nemo_duplex  # noqa: F401

    assert common._is_target_allowed("nemo_duplex.models.duplex_s2s.DuplexS2SModel")
    assert not common._is_target_allowed("os.system")
    assert not common._is_target_allowed("nemo_duplex_evil.Model")
    assert not common._is_target_allowed("nemo_duplex.files.atomic.sha256"), "ours, but no class of a model"


def resolved(name: str):
    from nemo.core.optim import optimizers

    import nemo_duplex  # noqa: F401

    return optimizers.get_optimizer(name, lr=1e-2, betas=(0.9, 0.98), weight_decay=0.1)


def trained(make) -> torch.Tensor:
    torch.manual_seed(0)
    layer = torch.nn.Linear(8, 8)
    optimizer = make(layer.parameters())
    for _ in range(20):
        optimizer.zero_grad()
        layer(torch.randn(4, 8)).pow(2).sum().backward()
        optimizer.step()
    return layer.weight.detach()


def test_fused_adam_is_adamw_to_the_last_bit():
    torch_adamw = trained(lambda p: torch.optim.AdamW(p, lr=1e-2, betas=(0.9, 0.98), weight_decay=0.1))
    assert torch.equal(trained(resolved("fused_adam")), torch_adamw)
    assert not torch.equal(trained(resolved("adam")), torch_adamw), "other names resolve as before"


def test_fused_adam_resolves_in_a_models_config():
    """As a model does it: `optim: {name: fused_adam, sched: ...}` through prepare_lr_scheduler and setup_optimization."""
    from nemo.core.classes import ModelPT

    import nemo_duplex  # noqa: F401

    class Small(ModelPT):
        def __init__(self, cfg):
            super().__init__(cfg)
            self.layer = torch.nn.Linear(2, 2)

        def setup_training_data(self, config):
            pass

        def setup_validation_data(self, config):
            pass

        @classmethod
        def list_available_models(cls):
            return []

    sched = {"name": "InverseSquareRootAnnealing", "warmup_steps": 10, "max_steps": 100, "min_lr": 0.0}
    cfg = OmegaConf.create({"optim": {"name": "fused_adam", "lr": 3e-4, "betas": [0.9, 0.98], "sched": sched}})
    optimizer, scheduler = Small(cfg).setup_optimization()
    assert type(optimizer) is torch.optim.AdamW
    assert tuple(optimizer.param_groups[0]["betas"]) == (0.9, 0.98)
    assert type(scheduler["scheduler"]).__name__ == "InverseSquareRootAnnealing"
