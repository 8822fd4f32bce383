"""What `import nemo_duplex` does, and does not do, to a program: each case in a process of its own."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf

from nemo_duplex import plugin


def python(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_is_cheap():
    program = "import sys; before = set(sys.modules); import nemo_duplex; print(sorted(set(sys.modules) - before))"
    loaded = {name.split(".")[0] for name in ast.literal_eval(python(program))}
    assert loaded - sys.stdlib_module_names == {"nemo_duplex"}


def test_the_public_names_are_known_without_being_loaded():
    names = python("import sys, nemo_duplex; print(dir(nemo_duplex)); assert 'torch' not in sys.modules")
    assert names == "['DuplexDataModule', 'DuplexS2SDataset', 'DuplexS2SModel', 'FSQCodec', '__version__', 'swap_codec']"
    import nemo_duplex

    for name in set(names.strip("[]").replace("'", "").split(", ")) - {"__version__"}:
        assert getattr(nemo_duplex, name).__name__ == name
    message = python("import nemo_duplex\ntry: nemo_duplex.Nothing\nexcept AttributeError as e: print(e)")
    assert "no attribute 'Nothing'; it offers DuplexDataModule" in message


@pytest.mark.slow
def test_our_prefix_is_allowed_and_nothing_wider_where_nemo_comes_later():
    python("""
import nemo_duplex
from nemo.core.classes import common
allowed = [prefix for prefix in common.ALLOWED_TARGET_PREFIXES if "nemo_duplex.x".startswith(prefix)]
assert allowed == ["nemo_duplex."], allowed
""")


def test_our_prefix_is_allowed_once_where_nemo_was_there_before():
    from nemo.core.classes import common

    for _ in range(2):
        plugin.register()
    assert [p for p in common.ALLOWED_TARGET_PREFIXES if "nemo_duplex.x".startswith(p)] == ["nemo_duplex."]
    assert sum(type(finder).__name__ == "_WhenImported" for finder in sys.meta_path) == 1
    common = SimpleNamespace(ALLOWED_TARGET_PREFIXES=["nemo."])
    plugin.allow_own_targets(common)
    assert common.ALLOWED_TARGET_PREFIXES == ["nemo.", "nemo_duplex."]
    plugin.allow_own_targets(SimpleNamespace())  # NeMo 2


@pytest.fixture
def entered(tmp_path, monkeypatch):
    """Modules whose import an entry waits for: `late`, and `broken`, which cannot be imported. What was entered."""
    (tmp_path / "late.py").write_text("value = 1")
    (tmp_path / "broken.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    entered = []
    for name in ("late", "broken", "not_installed"):
        monkeypatch.setitem(plugin.WHEN_IMPORTED, name, lambda module: entered.append((module.__name__, module.value)))
    yield entered
    for name in ("late", "broken"):
        sys.modules.pop(name, None)


def test_an_entry_is_made_after_the_import_and_as_often(entered):
    for _ in range(2):  # a lookup asks the finders without importing
        assert importlib.util.find_spec("late").origin.endswith("late.py")
    assert entered == []
    late = importlib.import_module("late")
    assert entered == [("late", 1)]
    assert type(late.__loader__).__name__ == type(late.__spec__.loader).__name__ == "SourceFileLoader"
    importlib.import_module("late")
    assert len(entered) == 1
    plugin.register()
    assert entered == [("late", 1)] * 2, "what is imported already is entered at once"
    del sys.modules["late"]
    importlib.import_module("late")
    assert len(entered) == 3


def test_what_cannot_be_imported_fails_as_without_us(entered):
    assert importlib.util.find_spec("not_installed") is None
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("not_installed")
    with pytest.raises(ZeroDivisionError):
        importlib.import_module("broken")
    assert entered == []


def test_a_restore_that_fails_is_forgotten():
    class ModelPT:
        restoring = []

        @classmethod
        def restore_from(cls, path):
            cls.restoring.append(path)
            return cls if path == "good" else 1 / 0

        @classmethod
        def _set_model_restore_state(cls, is_being_restored):
            cls.restoring.append(is_being_restored)

    module = SimpleNamespace(ModelPT=ModelPT)
    for _ in range(2):
        plugin.end_failed_restores(module)
    assert ModelPT.restore_from("good") is ModelPT and ModelPT.restoring == ["good"]
    with pytest.raises(ZeroDivisionError):
        ModelPT.restore_from("bad")
    assert ModelPT.restoring == ["good", "bad", False]


def test_what_a_config_may_name():
    from nemo.core.classes import common

    import nemo_duplex  # noqa: F401

    assert common._is_target_allowed("nemo_duplex.models.duplex_s2s.DuplexS2SModel")
    assert not common._is_target_allowed("os.system")
    assert not common._is_target_allowed("nemo_duplex_evil.Model")
    assert not common._is_target_allowed("nemo_duplex.files.atomic.sha256"), "ours, but no class of a model"


def resolved(name: str):
    from nemo.core import optim
    from nemo.core.classes import modelPT
    from nemo.core.optim import optimizers

    import nemo_duplex  # noqa: F401

    assert optim.get_optimizer is modelPT.optim.get_optimizer is optimizers.get_optimizer, "whoever imported it has ours"
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


def test_fused_adam_is_fused_adamw_to_the_last_bit():
    torch_adamw = trained(lambda p: torch.optim.AdamW(p, lr=1e-2, betas=(0.9, 0.98), weight_decay=0.1, fused=True))
    assert torch.equal(trained(resolved("fused_adam")), torch_adamw)
    plain = trained(lambda p: torch.optim.AdamW(p, lr=1e-2, betas=(0.9, 0.98), weight_decay=0.1))
    torch.testing.assert_close(torch_adamw, plain)
    torch_sgd = trained(lambda p: torch.optim.SGD(p, lr=0.1))
    from nemo.core.optim import optimizers

    assert torch.equal(trained(optimizers.get_optimizer("sgd", lr=0.1)), torch_sgd), "other names resolve as before"


def test_gradients_are_clipped_before_fused_adam_in_mixed_precision(tmp_path):
    """Lightning refuses to clip for fused optimizers that look as if they unscaled gradients themselves."""
    import lightning.pytorch as pl

    class Huge(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(8, 1)

        def training_step(self, batch, _):
            return 1e6 * self.layer(batch).sum()

        def configure_optimizers(self):
            return resolved("fused_adam")(self.parameters())

        def configure_gradient_clipping(self, optimizer, *args, **kwargs):
            super().configure_gradient_clipping(optimizer, *args, **kwargs)
            norms.append(float(torch.nn.utils.get_total_norm([p.grad for p in self.parameters()])))

    norms: list[float] = []
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    limits = {"accelerator": "cpu", "max_steps": 1, "gradient_clip_val": 1.0, "default_root_dir": tmp_path}
    pl.Trainer(precision="bf16-mixed", **limits, **quiet).fit(Huge(), torch.ones(1, 4, 8))
    assert norms == [pytest.approx(1.0, abs=1e-3)]


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
