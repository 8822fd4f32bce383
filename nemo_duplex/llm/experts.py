"""The load-balancing loss of a mixture of experts: what keeps its routers from sending everything to a few experts.

transformers adds this loss in the forward of its `...ForCausalLM`, which this project does not call: it gives the layers
embeddings. So the routers' logits are taken from the layers, and the family's own function turns them into the loss.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils.output_capturing import OutputRecorder

#: What transformers' function of this loss takes; a family with other arguments (Doge) has no loss here.
_ARGUMENTS = ["gate_logits", "num_experts", "top_k", "attention_mask"]


@dataclass
class Routing:
    """What the routers said in one pass through the layers, which `Backbone.forward` fills in."""

    logits: tuple[Tensor, ...] = ()  # of each router: (B * T, experts)


@dataclass(frozen=True)
class ExpertsLoss:
    """The load-balancing loss of a family, as its `...ForCausalLM` in transformers defines it.

    Args:
        function: transformers' `load_balancing_loss_func` of the family.
        num_experts: experts of a router.
        top_k: experts that a frame is sent to.
        weight: what the family multiplies the loss by, from its config (`router_aux_loss_coef`).
    """

    function: Callable[..., Tensor]
    num_experts: int
    top_k: int
    weight: float

    @classmethod
    def of(cls, model: PreTrainedModel) -> ExpertsLoss | None:
        """That of a `...ForCausalLM`; None for a model without routers, and for a family without such a loss."""
        function = getattr(sys.modules[type(model).__module__], "load_balancing_loss_func", None)
        if not has_routers(model.base_model) or function is None:
            return None
        weight = getattr(model, "router_aux_loss_coef", getattr(model, "aux_loss_coef", None))  # the latter: JetMoe
        if weight is None or list(inspect.signature(function).parameters) != _ARGUMENTS:
            return None
        return cls(function, model.num_experts, model.num_experts_per_tok, float(weight))

    def __call__(self, routing: Routing, valid: Tensor) -> Tensor:
        """The loss of the valid frames of a batch, a scalar; `top_k` where all experts are used equally often, more elsewhere.

        Args:
            routing: of a pass through the layers.
            valid: (B, T) bool, false for padding.
        """
        if not valid.any():  # a mean over no frames
            return routing.logits[0].sum() * 0.0
        return self.function(routing.logits, self.num_experts, self.top_k, valid)


def said_of_experts(llm: PreTrainedModel, loss: ExpertsLoss | None, weight: float | None) -> str | None:
    """What a training should say about the balance of its experts, one line; None for a model without experts.

    Args:
        llm: the layers.
        loss: that of their family.
        weight: of the loss in the sum that is minimised.
    """
    if not has_routers(llm):
        return None
    if loss is None:
        return (
            f"{llm.config.model_type} has experts, but transformers defines no load-balancing loss for this family. "
            "They are trained without one."
        )
    if not weight:
        return f"The experts of {llm.config.model_type} are trained without their load-balancing loss: its weight is 0."
    return f"The load-balancing loss of the experts is added with weight {weight:g} (model.loss.experts)."


def has_routers(llm: nn.Module) -> bool:
    """Whether layers of a transformers model send frames to experts."""
    return any(is_router(llm, module) for module in llm.modules())


def is_router(llm: nn.Module, module: nn.Module) -> bool:
    """Whether a module of a transformers model chooses experts."""
    recorded = (getattr(llm, "_can_record_outputs", None) or {}).get("router_logits", [])
    recorders = recorded if isinstance(recorded, list) else [recorded]
    return isinstance(module, tuple(r.target_class if isinstance(r, OutputRecorder) else r for r in recorders))
