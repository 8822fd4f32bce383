"""Sizes that do not fit each other are refused before a frame is computed, with the numbers of the config and a cure."""

import pytest
import torch

from nemo_duplex.inputs import InputError
from nemo_duplex.llm.backbone import Backbone
from nemo_duplex.llm.pretrained import random_llm
from nemo_duplex.llm.trial import check_streaming
from tests.hf_families import SIZES

HEADS = {**SIZES, "head_dim": 8}
MLA = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
GROUPED = {"n_routed_experts": 8, "num_experts_per_tok": 2, "n_group": 4, "topk_group": 2, "moe_intermediate_size": 16}
DEEPSEEK = {**SIZES, **MLA, **GROUPED, "model_type": "deepseek_v3", "num_key_value_heads": 4, "first_k_dense_replace": 1}
FALCON = {k: v for k, v in SIZES.items() if k != "num_key_value_heads"}
FALCON |= {"model_type": "falcon", "new_decoder_architecture": True, "alibi": False}

#: A config, what is said of it, and what to change as it is said.
MISFITS = [
    (HEADS | {"model_type": "llama"}, {"num_key_value_heads": 3}, "num_key_value_heads is 3 and num_attention_heads 4", 2),
    (HEADS | {"model_type": "llama"}, {"num_key_value_heads": 8}, "num_key_value_heads is 8 and num_attention_heads 4", 4),
    (HEADS | {"model_type": "qwen3"}, {"num_key_value_heads": 3}, "num_key_value_heads is 3 and num_attention_heads 4", 1),
    (FALCON, {"num_kv_heads": 3}, "num_kv_heads is 3 and num_attention_heads 4", 2),
    (
        SIZES | {"model_type": "mixtral", "num_local_experts": 4},
        {"num_experts_per_tok": 5},
        "num_experts_per_tok is 5 and num_local_experts 4. Set num_experts_per_tok to 4 or less.",
        4,
    ),
    (DEEPSEEK, {"num_experts_per_tok": 9}, "num_experts_per_tok is 9 and n_routed_experts 8", 4),
    (DEEPSEEK, {"n_group": 3}, "n_group is 3 and n_routed_experts 8, expected equal groups of 2 or more", 2),
    (DEEPSEEK, {"n_group": 8}, "n_group is 8 and n_routed_experts 8, expected equal groups of 2 or more", 2),
    (DEEPSEEK, {"topk_group": 5}, "topk_group is 5 and n_group 4. Set topk_group to 4 or less.", 4),
    (FALCON | {"num_key_value_heads": 2}, {"num_kv_heads": 3}, "its sizes do not fit each other .*heads 2, num_kv_heads 3", 2),
]


def checked(config, window=None):
    model = random_llm(config)
    backbone = Backbone({}, window, weights=model)
    check_streaming(model, backbone)
    return backbone


@pytest.mark.parametrize("window", [None, 8])
@pytest.mark.parametrize(("config", "change", "said", "cure"), MISFITS)
def test_sizes_that_do_not_fit_are_named_and_the_cure_works(config, change, said, cure, window):
    with pytest.raises(InputError, match=f"^The language model {config['model_type']} cannot be run: .*{said}") as error:
        checked(config | change, window)
    assert "\n" not in str(error.value)
    if window is None:
        backbone = checked(config | dict.fromkeys(change, cure))
        assert backbone(torch.zeros(1, 3, 32)).shape == (1, 3, 32)


def test_a_size_of_0_is_refused():
    said = r"without entries: model.layers.0.mlp.gate_proj.weight is \(0, 32\). Set no size in its config to 0."
    with pytest.raises(InputError, match=said):
        checked({**SIZES, "model_type": "llama", "intermediate_size": 0})


def test_a_model_without_layers_is_told_what_it_lacks():
    with pytest.raises(InputError, match="^The language model llama has 0 layers. Set num_hidden_layers to 1 or more.$"):
        checked({**SIZES, "model_type": "llama", "num_hidden_layers": 0})
