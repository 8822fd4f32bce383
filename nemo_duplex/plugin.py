"""Makes the collection known to NeMo: the class path of its models, and the optimizer name `fused_adam`.

NeMo has no plugin registry. A restored `.nemo` names its class (`target: nemo_duplex.models...`), and since NeMo 3.0 only
listed prefixes may be named so. `import nemo_duplex` must not cost the ten seconds that NeMo takes to import, so the
entries are made when the NeMo module concerned is imported, now or later. It also fixes a NeMo bug: a restore that fails
disturbs the models that are made after it.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.util
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

PREFIX = "nemo_duplex."


def allow_own_targets(common: ModuleType) -> None:
    """Adds our prefix, and nothing wider, to NeMo's list of classes that a config may name."""
    allowed = getattr(common, "ALLOWED_TARGET_PREFIXES", None)  # NeMo 2.x has no such list
    if allowed is not None and PREFIX not in allowed:
        allowed.append(PREFIX)


def provide_fused_adam(optimizers: Any) -> None:
    """Lets `name: fused_adam` resolve everywhere: apex on CUDA where it is installed, else fused AdamW, the same algorithm."""
    import torch

    if torch.cuda.is_available() and "fused_adam" in optimizers.AVAILABLE_OPTIMIZERS:
        return
    resolve = optimizers.get_optimizer
    if getattr(resolve, "provides_fused_adam", False):
        return

    def get_optimizer(name: str, **kwargs: object) -> Callable:
        if name != "fused_adam":
            return resolve(name, **kwargs)
        from nemo.utils import logging

        reason = "NVIDIA apex is not installed" if torch.cuda.is_available() else "there is no CUDA device"
        logging.info(f"Optimizer fused_adam: {reason}, using torch.optim.AdamW(fused=True), the same algorithm.")
        return functools.partial(_make_clippable, resolve("adamw", **(kwargs | {"fused": True})))

    get_optimizer.provides_fused_adam = True  # type: ignore[attr-defined]
    optimizers.get_optimizer = get_optimizer
    importers = [
        m for n, m in sys.modules.items() if n.startswith("nemo.core.") and getattr(m, "get_optimizer", None) is resolve
    ]
    for module in importers:
        vars(module)["get_optimizer"] = get_optimizer
    _provide_parameters()


def _make_clippable(make: Callable, *args: Any, **kwargs: Any) -> Any:
    """A fused optimizer whose gradients are unscaled before its step, as they are for others.

    torch marks it as one that unscales them itself; Lightning 2.4 then refuses to clip gradients in mixed precision.
    """
    optimizer = make(*args, **kwargs)
    optimizer._step_supports_amp_scaling = False
    return optimizer


def _provide_parameters() -> None:
    """NeMo looks up a parameter class by the optimizer's name; FusedAdam takes Adam's."""
    from nemo.core.config.optimizers import AVAILABLE_OPTIMIZER_PARAMS, AdamWParams

    AVAILABLE_OPTIMIZER_PARAMS.setdefault("fused_adam_params", AdamWParams)


def end_failed_restores(model_pt: Any) -> None:
    """Resets NeMo's restore flag after a restore that failed; otherwise later models would set up no data loaders."""
    restore = model_pt.ModelPT.restore_from.__func__
    if getattr(restore, "ends_when_it_fails", False):
        return

    @functools.wraps(restore)
    def restore_from(cls: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return restore(cls, *args, **kwargs)
        except BaseException:
            cls._set_model_restore_state(is_being_restored=False)
            raise

    restore_from.ends_when_it_fails = True  # type: ignore[attr-defined]
    model_pt.ModelPT.restore_from = classmethod(restore_from)


WHEN_IMPORTED: dict[str, Callable[[ModuleType], None]] = {
    "nemo.core.classes.common": allow_own_targets,
    "nemo.core.classes.modelPT": end_failed_restores,
    "nemo.core.optim.optimizers": provide_fused_adam,
}


class _WhenImported(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the modules of `WHEN_IMPORTED` by the other finders, and runs their entry right after the import."""

    def __init__(self) -> None:
        self._looking_up: set[str] = set()
        self._loaders: dict[str, importlib.abc.Loader] = {}

    def find_spec(self, fullname, path=None, target=None):
        if fullname not in WHEN_IMPORTED or fullname in self._looking_up:
            return None
        self._looking_up.add(fullname)
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._looking_up.discard(fullname)
        if spec is None or spec.loader is None:
            return None
        self._loaders[fullname], spec.loader = spec.loader, self
        return spec

    def create_module(self, spec):
        return self._loaders[spec.name].create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__
        assert spec is not None, f"{module.__name__} is imported without a spec."
        name = spec.name
        loader = self._loaders.pop(name)
        spec.loader = module.__loader__ = loader
        loader.exec_module(module)
        WHEN_IMPORTED[name](module)


def register() -> None:
    """Enters the collection with NeMo, at once where NeMo is imported already, else when it is. Safe to call again."""
    for name, enter in WHEN_IMPORTED.items():
        if name in sys.modules:
            enter(sys.modules[name])
    if not any(isinstance(finder, _WhenImported) for finder in sys.meta_path):
        sys.meta_path.insert(0, _WhenImported())
