"""How layers are split over GPUs: by the plan that the family publishes.

tests/models/test_parallel.py tests that two processes compute what one does, and what is refused.
"""

from types import SimpleNamespace

import pytest
from torch.distributed.tensor import Replicate
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, SequenceParallel

from nemo_duplex.inputs import InputError
from nemo_duplex.llm import tensor_parallel
from nemo_duplex.llm.backbone import Backbone
from nemo_duplex.llm.lora import add_lora
from nemo_duplex.llm.tensor_parallel import layers_of, split_layers
from tests.hf_families import family_config


def split(name, size=2, **changes):
    """The style by which each module is split, by name; nothing is really split."""
    styles, backbone = {}, Backbone(family_config(name, **changes))
    names = {module: name for name, module in backbone.llm.named_modules()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensor_parallel, "parallelize_module", lambda module, mesh, style: styles.update({names[module]: style}))
        split_layers(backbone, SimpleNamespace(size=lambda: size))
    return styles


def test_every_layer_is_split_as_its_family_says():
    styles = split("qwen3")
    columns = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj")
    rows, norms = ("self_attn.o_proj", "mlp.down_proj"), ("self_attn.q_norm", "self_attn.k_norm")
    expected = {
        f"layers.{layer}.{part}": style
        for layer in (0, 1)
        for parts, style in ((columns, ColwiseParallel), (rows, RowwiseParallel), (norms, SequenceParallel))
        for part in parts
    }
    assert {name: type(style) for name, style in styles.items()} == expected
    assert styles["layers.0.self_attn.q_norm"].sequence_sharding[0].dim == 2, "heads, not frames"


def test_a_layer_whose_output_is_needed_whole_gathers_it():
    style = split("phi3")["layers.0.self_attn.qkv_proj"]
    assert isinstance(style, ColwiseParallel) and style.output_layouts == (Replicate(),)
    assert split("phi3")["layers.1.self_attn.o_proj"].input_layouts == (Replicate(),)


def test_the_layers_are_those_of_the_model_in_their_order():
    for name in ("llama", "gpt_neox"):
        backbone = Backbone(family_config(name))
        assert layers_of(backbone.llm) == list(backbone.llm.layers) and len(layers_of(backbone.llm)) == 2


@pytest.mark.parametrize(
    ("size", "changes", "fault", "cures"),
    [
        (3, {}, "it has 4 and 2 heads, which 3 does not divide. Set it to a number that divides them, such as 1.", (2, 1)),
        (
            2,
            {"intermediate_size": 49},
            "layers.0.mlp.gate_proj has 49 features, which 2 does not divide. Set it to a number that divides them, such as 1.",
            (1,),
        ),
    ],
)
def test_a_size_that_does_not_divide_is_refused_and_a_divisor_taken(size, changes, fault, cures):
    with pytest.raises(InputError) as error:
        split("llama", size, **changes)
    assert str(error.value) == f"trainer.tensor_parallel: {size} GPUs cannot share a llama model: {fault}"
    for cure in cures:
        assert len(split("llama", cure, **changes)) == 14


def test_what_no_other_size_cures_says_so():
    pytest.importorskip("peft", reason="the extra [lora] is not installed")
    backbone = Backbone(family_config("llama"))
    add_lora(backbone.llm, {"r": 2})
    with pytest.raises(InputError, match=r"q_proj is no plain Linear \(adapters of LoRA are not split\). Set it to 1.$"):
        split_layers(backbone, SimpleNamespace(size=lambda: 2))
