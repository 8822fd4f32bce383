"""Tiny random language models of the families that must work, as their publishers store them; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from nemo_duplex.llm.pretrained import random_llm

SENTENCES = [f"What is the {w} of {c}? It is {c}." for w in ("red", "day", "sum") for c in ("one", "two", "six")]
SIZES = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,  # most families have one beyond so small a vocabulary
    "bos_token_id": 1,
    "eos_token_id": 2,
}
# One of their layers looks back on 5 frames only, wherever the family has such layers.
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama"},
    "qwen2": {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    "qwen3": {"model_type": "qwen3", "head_dim": 16},
    "gemma2": {"model_type": "gemma2", "head_dim": 8, "sliding_window": 5, "query_pre_attn_scalar": 8},
    "gemma3": {
        "model_type": "gemma3_text",
        "head_dim": 8,
        "sliding_window": 5,
        "query_pre_attn_scalar": 8,
        "layer_types": ["sliding_attention", "full_attention"],
        "final_logit_softcapping": 5.0,
    },
    "mistral": {"model_type": "mistral", "sliding_window": 5},
    "phi3": {"model_type": "phi3", "sliding_window": 5, "partial_rotary_factor": 0.5},
    "smollm": {"model_type": "llama", "tie_word_embeddings": True},
    "smollm3": {"model_type": "smollm3", "tie_word_embeddings": True},
    "gpt_neox": {"model_type": "gpt_neox", "rotary_pct": 0.25, "num_key_value_heads": 4},
    "cohere": {"model_type": "cohere", "logit_scale": 0.25},  # interleaved rotary positions
    "granite": {"model_type": "granite", "logits_scaling": 4.0},
}
TIED = {"smollm", "smollm3", "gemma2", "gemma3", "cohere"}


def family_config(name: str, **changes: Any) -> dict[str, Any]:
    return {**SIZES, **FAMILIES[name], **changes}


def lively(model: torch.nn.Module) -> torch.nn.Module:
    """Weights so large that what a layer looks back on matters; at the usual 0.02 a test could miss half of it."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.normal_(std=0.25, generator=generator)
    return model


def random_family(name: str, **changes: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    return lively(random_llm(family_config(name, **changes)))


def byte_level(specials: Sequence[str] = ("<|endoftext|>",)) -> Tokenizer:
    """As GPT, Qwen, Llama 3 and GPT-NeoX have it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=list(specials), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return tokenizer


def sentencepiece_like(specials: Sequence[str] = ("<unk>", "<s>", "</s>")) -> Tokenizer:
    """As Llama 2, TinyLlama, Mistral, Gemma and Phi-3 have it: spaces are written, what is unknown goes by bytes."""
    pieces = [*specials, *(f"<0x{byte:02X}>" for byte in range(256)), *sorted({*"".join(SENTENCES), "▁"} - {" "}), "▁i", "▁is"]
    tokenizer = Tokenizer(
        models.BPE({p: i for i, p in enumerate(pieces)}, [("▁", "i"), ("▁i", "s")], unk_token="<unk>", byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    return tokenizer


def save_tokenizer(folder: Path, tokenizer: Tokenizer, **tokens: str) -> Path:
    """As a model's publisher does; `tokens` are pad_token, eos_token and so on."""
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **tokens).save_pretrained(folder)
    return folder


def publish(name: str, folder: Path) -> Path:
    """A folder as `pretrained_llm` takes it: weights, config and tokenizer of a tiny random family."""
    random_family(name).save_pretrained(folder)
    if name in ("gpt_neox", "qwen2", "qwen3", "smollm", "smollm3"):
        return save_tokenizer(folder, byte_level(), eos_token="<|endoftext|>", pad_token="<|endoftext|>")
    return save_tokenizer(folder, sentencepiece_like(), eos_token="</s>", bos_token="<s>", unk_token="<unk>", pad_token="</s>")
