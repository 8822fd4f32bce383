"""Every family of causal language models of transformers: it streams what it computes there, or is refused in one line."""

import pytest
import torch

from nemo_duplex.inputs import InputError
from nemo_duplex.llm.backbone import Backbone
from nemo_duplex.llm.pretrained import random_llm
from nemo_duplex.llm.trial import check_streaming
from tests.every_family import EVERY_FAMILY, POSITIONS, tiny_family
from tests.llm.test_cache import stepped

#: Families that stream in sessions that begin again when their positions end, which are those without `attention_window`, by
#: what is said of others.
WITHOUT_WINDOW = {
    "after a while": ("beam; hunyuan_v1_dense; hunyuan_v1_moe; ministral3"),
    "cannot stream": ("biogpt; codegen; ctrl; git; gpt-sw3; gpt2; gpt_bigcode; gptj; opt; xglm"),
}
#: Families that do not stream, by what is said.
REFUSED = {
    "layers that cannot stream here": (
        "axk2; deepseek_v32; glm_moe_dsa; hy_v4; inkling2_text; inkling_text; lfm2; lfm2_moe; lfm3; llama4; llama4_text; "
        "minimax"
    ),
    "recurrent state instead of keys and values": (
        "bailing_hybrid; bamba; deepseek_v4; falcon_h1; falcon_mamba; granitemoehybrid; jamba; kimi_linear; mamba; mamba2; "
        "nemotron_h; olmo_hybrid; qwen3_5; qwen3_5_moe; qwen3_5_moe_text; qwen3_5_text; qwen3_next; qwen4_exp; "
        "qwen4_exp_text; recurrent_gemma; rwkv; xlstm; zamba; zaya"
    ),
    "is an encoder-decoder": (
        "bart; bigbird_pegasus; blenderbot; blenderbot-small; marian; mbart; musicgen; musicgen_melody; mvp; pegasus; plbart; "
        "prophetnet; whisper"
    ),
    "computes something else whole here than in transformers": (
        "bert; big_bird; camembert; data2vec-text; electra; ernie; megatron-bert; modernbert-decoder; rembert; roberta; "
        "roberta-prelayernorm; roc_bert; xlm-roberta; xlm-roberta-xl; bert, decoder"
    ),
    "computes something else frame by frame": ("bert-generation; gpt_neo"),
    "takes no position_ids": ("bloom; mpt; roformer"),
    "cannot be run in transformers": ("cohere_compass_text; xmod"),
    "takes no inputs_embeds": ("cpmant; trocr"),
    "cannot build a causal language model": ("emu3; mllama"),
    "looks its tokens up again in every layer": ("gemma3n_text; gemma4; gemma4_text"),
    "takes no past_key_values": ("openai-gpt; reformer; xlm; xlnet"),
    "cannot stream (": ("falcon, ALiBi"),
}


def lively(config):
    """A model whose weights are large and uneven, so that whatever depends on a position shows."""
    torch.manual_seed(0)
    model = random_llm(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=1.6 / weight.shape[-1] ** 0.5) if weight.dim() > 1 else weight.normal_(1, 0.4)
    return model


@torch.no_grad()
def begun_again(model, known, kept):
    """The last hidden state of a session, of which transformers sees what is kept and what came since it last began again."""
    half, length = (POSITIONS - kept) // 2, known.shape[1]
    halves = max(0, length - 1 - kept) // half
    start = kept + max(0, halves - 1) * half
    seen = torch.cat([known[:, :kept], known[:, start:]], dim=1) if length > kept else known
    return model(inputs_embeds=seen.clone(), use_cache=False).last_hidden_state[:, -1]


@torch.no_grad()
def error(config, window):
    """The largest relative error of two sessions of different age in one batch, that outlast their positions."""
    backbone, model = Backbone({}, window, weights=lively(config)).eval(), lively(config)
    tokens = torch.arange(3, 3 + 2 * POSITIONS).view(2, -1)
    embedded = backbone.embed_tokens(tokens)
    logits = model(input_ids=tokens, use_cache=False).logits
    errors = [] if window else [(backbone.text_logits(backbone(embedded.clone())) - logits).abs().max() / logits.std()]
    frames = embedded.std() * torch.randn(2, 3 * POSITIONS, backbone.hidden_size)
    found, size = stepped(backbone, frames, starts=(0, 5)), None
    seen_for = sum((backbone._window(kind) or 0) - 1 for kind in backbone._kinds) + 1  # frames that reach the last layer
    for t in range(1, frames.shape[1], 7):
        known = frames[:, : t + 1]
        if window:
            expected = backbone(known[:, -seen_for:].clone())[:, -1]
        elif backbone.windowed:
            expected = model.base_model(inputs_embeds=known.clone(), use_cache=False).last_hidden_state[:, -1]
        else:
            expected = begun_again(model.base_model, known, backbone.sinks)
        size = size or expected.std()
        errors.append((found[:, t] - expected).abs().max() / size)
    return max(errors).item()


def said_of(config, window):
    """What the check says; None if it accepts the family."""
    try:
        model = random_llm(config)  # fresh weights, as they hide most
        check_streaming(model, Backbone({}, window, weights=model))
    except InputError as refusal:
        assert "\n" not in str(refusal)
        return str(refusal)
    return None


def reason_of(name, table):
    return next((reason for reason, names in table.items() if name in names.split("; ")), None)


def holds(name):
    config, reason = tiny_family(name), reason_of(name, REFUSED)
    for window, expected in ((None, reason), (5, reason or reason_of(name, WITHOUT_WINDOW))):
        said = said_of(config, window)
        assert (said is None) == (expected is None) and (expected or "") in (said or ""), f"{name}, window {window}: {said}"
        assert said or error(config, window) < 1e-3


@pytest.mark.parametrize("name", ["granitemoehybrid, attention alone", "gptj", "ctrl", "deepseek_v2", "granite_swa", "bloom"])
def test_a_family_is_exact_or_refused(name):
    """CTRL scales its input in place, Granite SWA has more than one rotary embedding, DeepSeek-V2 has complex ones."""
    holds(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY_FAMILY)
def test_every_family_is_exact_or_refused(name):
    holds(name)


def test_the_tables_name_families_that_exist():
    named = [name for table in (WITHOUT_WINDOW, REFUSED) for names in table.values() for name in names.split("; ")]
    assert set(named) <= set(EVERY_FAMILY) and len(named) == len(set(named))
