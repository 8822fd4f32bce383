"""Each name of one model has its place in the other."""

import pytest

from nemo_duplex.models.in_tree.names import in_tree_name, our_name

PAIRS = {
    "lm.backbone.llm.layers.0.self_attn.q_proj.weight": "llm.layers.0.self_attn.q_proj.weight",
    "lm.backbone.lm_head.weight": "lm_head.weight",
    "lm.backbone.embed_tokens.weight": "embed_tokens.weight",
    "lm.speech_embedding.table.weight": "embed_audio_tokens.weight",
    "lm.speech_head.projection.bias": "audio_head.bias",
    "audio_codec.model.audio_decoder.head.bias": "audio_codec.audio_decoder.head.bias",
    "perception.proj.weight": "perception.proj.weight",
}


@pytest.mark.parametrize("ours, theirs", PAIRS.items())
def test_names_there_and_back(ours, theirs):
    assert in_tree_name(ours) == theirs and our_name(theirs) == ours


def test_a_language_model_wrapped_by_peft_has_the_same_names():
    wrapped = "llm.base_model.model.layers.0.self_attn.q_proj.lora_A.default.weight"
    assert our_name(wrapped) == "lm.backbone.llm.layers.0.self_attn.q_proj.lora_A.default.weight"
    assert our_name("perception.llm.base_model.model.x") == "perception.llm.base_model.model.x"
