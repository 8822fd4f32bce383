"""A tiny chat model with random weights, as a GGUF file, as a folder and as a wheel with the file."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.decoders import ByteLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}


def vocabulary() -> list[str]:
    """Special tokens, all bytes as byte-level tokenizers write them, and the one pair that is merged."""
    return ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "ab"]


def tokenizer() -> PreTrainedTokenizerFast:
    """Of this vocabulary."""
    made = Tokenizer(models.BPE({token: number for number, token in enumerate(vocabulary())}, [("a", "b")]))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), ByteLevel()
    made.add_special_tokens(vocabulary()[:3])
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|im_end|>", pad_token="<|im_end|>")


def model(seed: int = 0) -> PreTrainedModel:
    """The model, with weights of a seed large enough for likely and unlikely tokens."""
    torch.manual_seed(seed)
    config = LlamaConfig(vocab_size=len(vocabulary()), tie_word_embeddings=True, initializer_range=0.3, **SIZES)
    return LlamaForCausalLM(config).eval()


def write_folder(folder: Path) -> Path:
    """The model and its tokenizer as `save_pretrained` writes them."""
    model().save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def write_gguf(path: Path, seed: int = 0) -> PreTrainedModel:
    """The model as a GGUF file, float32; returns it."""
    from gguf import GGUFWriter

    made, writer = model(seed), GGUFWriter(str(path), "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(SIZES["hidden_size"])
    writer.add_block_count(SIZES["num_hidden_layers"])
    writer.add_feed_forward_length(SIZES["intermediate_size"])
    writer.add_head_count(SIZES["num_attention_heads"])
    writer.add_head_count_kv(SIZES["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(made.config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(vocabulary()))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(vocabulary())
    writer.add_token_types([3] * 3 + [1] * (len(vocabulary()) - 3))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    names = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    for name, weight in made.state_dict().items():
        if name == "lm_head.weight":
            continue
        if name.startswith("model.layers."):
            _, _, layer, rest = name.split(".", 3)
            module = rest.removesuffix(".weight")
            heads = {"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"}.get(names[module])
            if heads is not None:  # llama.cpp keeps the halves of rotary pairs side by side
                rows = weight.view(SIZES[heads], 2, -1, weight.shape[1])
                weight = rows.swapaxes(1, 2).reshape(weight.shape)
            name = f"blk.{layer}.{names[module]}.weight"
        else:
            name = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}[name]
        writer.add_tensor(name, weight.detach().numpy().copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return made


def wheel(path: Path) -> SimpleNamespace:
    """A wheel that is installed, with this GGUF file, which is made empty if it is not there."""
    path.touch()
    digest = "0123456789abcdef"
    return SimpleNamespace(
        path=lambda: path, file=path.name, wheel=SimpleNamespace(files={path.name: digest}), install="pip install it"
    )
