"""A tiny config of every family of causal language models that transformers has, by the names which families give to sizes."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

LAYERS, WIDTH, HEAD, POSITIONS = 4, 32, 8, 24
#: How large things are in a tiny model, and how families call them.
NAMES: dict[int, str] = {
    320: "vocab_size vocab_size_per_layer_input",
    POSITIONS: "max_position_embeddings n_positions n_ctx max_seq_len max_target_positions",
    LAYERS: "num_hidden_layers n_layer n_layers num_layers decoder_layers num_attention_heads n_head n_heads attention_heads "
    "decoder_attention_heads encoder_attention_heads linear_num_value_heads linear_num_heads swa_num_attention_heads "
    "num_experts num_local_experts n_routed_experts moe_num_experts mamba_d_conv conv_kernel time_step_rank d_rel laurel_rank",
    WIDTH: "hidden_size n_embd d_model embedding_size word_embed_proj_dim input_embedding_size output_embedding_size emb_dim "
    "lru_width attn_hidden_size",
    48: "intermediate_size n_inner d_ff dim_ff dff ffn_dim ffn_hidden_size decoder_ffn_dim encoder_ffn_dim d_inner",
    HEAD: "head_dim qk_rope_head_dim qk_nope_head_dim v_head_dim index_head_dim index_topk rotary_dim d_kv d_head "
    "global_head_dim linear_head_dim linear_key_head_dim linear_value_head_dim swa_head_dim indexer_head_dim indexer_budget "
    "mamba_d_state mamba_n_heads mamba_d_head mamba_headdim mamba_num_heads mamba_head_dim ssm_state_size state_size num_heads "
    "chunk_size mamba_chunk_size hidden_size_per_layer_input attention_head_size",
    16: "moe_intermediate_size shared_expert_intermediate_size shared_intermediate_size expert_ffn_hidden_size q_lora_rank "
    "kv_lora_rank qk_head_dim moe_shared_expert_intermediate_size attention_head_dim rel_extent pronunciation_embed_dim "
    "shape_embed_dim",
    64: "mamba_d_ssm attention_hidden_size pronunciation_vocab_size shape_vocab_size",
    5: "sliding_window window_size attention_window_size",
    2: "num_key_value_heads num_experts_per_tok moe_topk moe_k num_experts_per_token index_n_heads mamba_expand n_mamba_heads "
    "expand linear_num_key_heads altup_num_inputs swa_num_key_value_heads indexer_n_heads indexer_compress_ratio eos_token_id",
    1: "n_group topk_group n_shared_experts moe_num_shared_experts num_shared_experts num_shared_expert first_k_dense_replace "
    "zero_expert_num moe_layer_start_index mamba_n_groups mamba_ngroups n_groups encoder_layers indexer_kv_heads "
    "num_mem_blocks bos_token_id",
    0: "pad_token_id num_kv_shared_layers",
}
SIZES = {name: size for size, names in NAMES.items() for name in names.split()}
_MIXED = ["sliding_attention", "full_attention"] * 2
_CONV = ["conv", "full_attention"] * 2
#: What a size alone does not make small, or complete.
MORE: dict[str, dict[str, Any]] = {
    "cohere_compass_text": {
        "layer_types": _MIXED,
        "rope_parameters": {kind: {"rope_type": "default", "rope_theta": 1e4} for kind in _MIXED},
    },
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 48, "hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "gemma3_text": {"layer_types": _MIXED, "query_pre_attn_scalar": 8},
    "gemma3n_text": {"layer_types": _MIXED, "activation_sparsity_pattern": [0.0] * 4, "intermediate_size": [48] * 4},
    "gemma4_text": {"layer_types": _MIXED},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "lfm2": {"layer_types": _CONV},
    "lfm2_moe": {"layer_types": _CONV},
    "ministral3": {"sliding_window": None},
    "moshi": {"sliding_window": POSITIONS},  # in transformers it looks back on everything
    "nemotron_h": {"layers_block_type": ["mamba", "attention", "mlp", "attention"]},
    "qwen4_exp_text": {"ple_layer_ids": []},
    "reformer": {"is_decoder": True, "axial_pos_embds_dim": [16, 16], "attn_layers": ["local", "lsh"], "num_hidden_layers": 2},
    "zamba": {"layers_block_type": ["mamba", "mamba", "hybrid"] * 2, "num_hidden_layers": 6},
    "zaya": {"num_experts_per_tok": 1},
}
#: Other members of families above: a hybrid without recurrent layers, and no embeddings of their own in each layer.
MEMBERS = {
    "granitemoehybrid, attention alone": {"layer_types": ["full_attention"] * 4, "position_embedding_type": "rope"},
    "granitemoehybrid, no positions": {"layer_types": ["full_attention"] * 4, "position_embedding_type": None},
    "gemma4_text, tokens alone": {"layer_types": _MIXED, "hidden_size_per_layer_input": 0},
    "bert, decoder": {"is_decoder": True},
    "falcon, ALiBi": {"alibi": True},
}
#: Not tiny, however they are described, or in need of a vision model's package or of a model beside them.
LEFT_OUT = {"blt", "dots3_note", "dots3_note_text", "gemma3n", "gemma4_assistant", "gemma4_unified_assistant", "zamba2"}
EVERY_FAMILY = [name for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if name not in LEFT_OUT] + list(MEMBERS)


def tiny_family(name: str) -> dict[str, Any]:
    """The config of a tiny model of `name`, as `model.llm` takes it."""
    model_type = name.split(",")[0]
    config = _tiny(type(AutoConfig.for_model(model_type))(), model_type)
    return {**config, **MEMBERS.get(name, {})}


def _tiny(default: PretrainedConfig, model_type: str) -> dict[str, Any]:
    known, other_names = default.to_dict(), getattr(default, "attribute_map", {})
    sizes = {key: size for key, size in SIZES.items() if key in known and other_names.get(key) not in known}
    if "kv_lora_rank" in sizes and "num_key_value_heads" in sizes:
        sizes["num_key_value_heads"] = LAYERS  # as many as queries
    parts = {key: part for key in default.sub_configs if isinstance(part := getattr(default, key, None), PretrainedConfig)}
    tiny_parts = {key: _tiny(part, part.model_type) for key, part in parts.items() if part.model_type}
    return {"model_type": model_type, **sizes, **tiny_parts, **MORE.get(model_type, {})}
