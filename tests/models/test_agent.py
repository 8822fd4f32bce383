"""The agent without its training: names of its weights, what runs one, and that nothing stays changed after an error."""

import pytest
import torch

from tests.dummies import speech_like, tiny_model

# Every weight that a `.nemo` of the tiny config holds: name, dtype, shape. Files made before must stay readable: this list does
# not change without a new `format_version`. (`int32` and buffers included.)
STATE_DICT = """
perception.preprocessor.featurizer.window float32 400
perception.preprocessor.featurizer.fb float32 1x20x257
perception.encoder.pre_encode.out.weight float32 16x32
perception.encoder.pre_encode.out.bias float32 16
perception.encoder.pre_encode.conv.0.weight float32 8x1x3x3
perception.encoder.pre_encode.conv.0.bias float32 8
perception.encoder.pre_encode.conv.2.weight float32 8x1x3x3
perception.encoder.pre_encode.conv.2.bias float32 8
perception.encoder.pre_encode.conv.3.weight float32 8x8x1x1
perception.encoder.pre_encode.conv.3.bias float32 8
perception.encoder.pre_encode.conv.5.weight float32 8x1x3x3
perception.encoder.pre_encode.conv.5.bias float32 8
perception.encoder.pre_encode.conv.6.weight float32 8x8x1x1
perception.encoder.pre_encode.conv.6.bias float32 8
perception.encoder.layers.0.norm_feed_forward1.weight float32 16
perception.encoder.layers.0.norm_feed_forward1.bias float32 16
perception.encoder.layers.0.feed_forward1.linear1.weight float32 64x16
perception.encoder.layers.0.feed_forward1.linear1.bias float32 64
perception.encoder.layers.0.feed_forward1.linear2.weight float32 16x64
perception.encoder.layers.0.feed_forward1.linear2.bias float32 16
perception.encoder.layers.0.norm_conv.weight float32 16
perception.encoder.layers.0.norm_conv.bias float32 16
perception.encoder.layers.0.conv.pointwise_conv1.weight float32 32x16x1
perception.encoder.layers.0.conv.pointwise_conv1.bias float32 32
perception.encoder.layers.0.conv.depthwise_conv.weight float32 16x1x5
perception.encoder.layers.0.conv.depthwise_conv.bias float32 16
perception.encoder.layers.0.conv.batch_norm.weight float32 16
perception.encoder.layers.0.conv.batch_norm.bias float32 16
perception.encoder.layers.0.conv.pointwise_conv2.weight float32 16x16x1
perception.encoder.layers.0.conv.pointwise_conv2.bias float32 16
perception.encoder.layers.0.norm_self_att.weight float32 16
perception.encoder.layers.0.norm_self_att.bias float32 16
perception.encoder.layers.0.self_attn.pos_bias_u float32 2x8
perception.encoder.layers.0.self_attn.pos_bias_v float32 2x8
perception.encoder.layers.0.self_attn.linear_q.weight float32 16x16
perception.encoder.layers.0.self_attn.linear_q.bias float32 16
perception.encoder.layers.0.self_attn.linear_k.weight float32 16x16
perception.encoder.layers.0.self_attn.linear_k.bias float32 16
perception.encoder.layers.0.self_attn.linear_v.weight float32 16x16
perception.encoder.layers.0.self_attn.linear_v.bias float32 16
perception.encoder.layers.0.self_attn.linear_out.weight float32 16x16
perception.encoder.layers.0.self_attn.linear_out.bias float32 16
perception.encoder.layers.0.self_attn.linear_pos.weight float32 16x16
perception.encoder.layers.0.norm_feed_forward2.weight float32 16
perception.encoder.layers.0.norm_feed_forward2.bias float32 16
perception.encoder.layers.0.feed_forward2.linear1.weight float32 64x16
perception.encoder.layers.0.feed_forward2.linear1.bias float32 64
perception.encoder.layers.0.feed_forward2.linear2.weight float32 16x64
perception.encoder.layers.0.feed_forward2.linear2.bias float32 16
perception.encoder.layers.0.norm_out.weight float32 16
perception.encoder.layers.0.norm_out.bias float32 16
perception.encoder.layers.1.norm_feed_forward1.weight float32 16
perception.encoder.layers.1.norm_feed_forward1.bias float32 16
perception.encoder.layers.1.feed_forward1.linear1.weight float32 64x16
perception.encoder.layers.1.feed_forward1.linear1.bias float32 64
perception.encoder.layers.1.feed_forward1.linear2.weight float32 16x64
perception.encoder.layers.1.feed_forward1.linear2.bias float32 16
perception.encoder.layers.1.norm_conv.weight float32 16
perception.encoder.layers.1.norm_conv.bias float32 16
perception.encoder.layers.1.conv.pointwise_conv1.weight float32 32x16x1
perception.encoder.layers.1.conv.pointwise_conv1.bias float32 32
perception.encoder.layers.1.conv.depthwise_conv.weight float32 16x1x5
perception.encoder.layers.1.conv.depthwise_conv.bias float32 16
perception.encoder.layers.1.conv.batch_norm.weight float32 16
perception.encoder.layers.1.conv.batch_norm.bias float32 16
perception.encoder.layers.1.conv.pointwise_conv2.weight float32 16x16x1
perception.encoder.layers.1.conv.pointwise_conv2.bias float32 16
perception.encoder.layers.1.norm_self_att.weight float32 16
perception.encoder.layers.1.norm_self_att.bias float32 16
perception.encoder.layers.1.self_attn.pos_bias_u float32 2x8
perception.encoder.layers.1.self_attn.pos_bias_v float32 2x8
perception.encoder.layers.1.self_attn.linear_q.weight float32 16x16
perception.encoder.layers.1.self_attn.linear_q.bias float32 16
perception.encoder.layers.1.self_attn.linear_k.weight float32 16x16
perception.encoder.layers.1.self_attn.linear_k.bias float32 16
perception.encoder.layers.1.self_attn.linear_v.weight float32 16x16
perception.encoder.layers.1.self_attn.linear_v.bias float32 16
perception.encoder.layers.1.self_attn.linear_out.weight float32 16x16
perception.encoder.layers.1.self_attn.linear_out.bias float32 16
perception.encoder.layers.1.self_attn.linear_pos.weight float32 16x16
perception.encoder.layers.1.norm_feed_forward2.weight float32 16
perception.encoder.layers.1.norm_feed_forward2.bias float32 16
perception.encoder.layers.1.feed_forward2.linear1.weight float32 64x16
perception.encoder.layers.1.feed_forward2.linear1.bias float32 64
perception.encoder.layers.1.feed_forward2.linear2.weight float32 16x64
perception.encoder.layers.1.feed_forward2.linear2.bias float32 16
perception.encoder.layers.1.norm_out.weight float32 16
perception.encoder.layers.1.norm_out.bias float32 16
perception.modality_adapter.0.weight float32 32x16
perception.modality_adapter.0.bias float32 32
perception.proj.weight float32 24x32
perception.proj.bias float32 24
audio_codec.silence_codes int64 2
audio_codec.model.audio_encoder.embed.weight float32 8x20x3
audio_codec.model.audio_encoder.embed.bias float32 8
audio_codec.model.audio_encoder.blocks.0.depthwise.weight float32 8x1x7
audio_codec.model.audio_encoder.blocks.0.depthwise.bias float32 8
audio_codec.model.audio_encoder.blocks.0.norm.weight float32 8
audio_codec.model.audio_encoder.blocks.0.norm.bias float32 8
audio_codec.model.audio_encoder.blocks.0.expand.weight float32 24x8
audio_codec.model.audio_encoder.blocks.0.expand.bias float32 24
audio_codec.model.audio_encoder.blocks.0.contract.weight float32 8x24
audio_codec.model.audio_encoder.blocks.0.contract.bias float32 8
audio_codec.model.audio_encoder.downsample.weight float32 8x56
audio_codec.model.audio_encoder.downsample.bias float32 8
audio_codec.model.audio_encoder.frame_blocks.0.depthwise.weight float32 8x1x3
audio_codec.model.audio_encoder.frame_blocks.0.depthwise.bias float32 8
audio_codec.model.audio_encoder.frame_blocks.0.norm.weight float32 8
audio_codec.model.audio_encoder.frame_blocks.0.norm.bias float32 8
audio_codec.model.audio_encoder.frame_blocks.0.expand.weight float32 24x8
audio_codec.model.audio_encoder.frame_blocks.0.expand.bias float32 24
audio_codec.model.audio_encoder.frame_blocks.0.contract.weight float32 8x24
audio_codec.model.audio_encoder.frame_blocks.0.contract.bias float32 8
audio_codec.model.audio_encoder.norm.weight float32 8
audio_codec.model.audio_encoder.norm.bias float32 8
audio_codec.model.audio_encoder.head.weight float32 8x8
audio_codec.model.audio_encoder.head.bias float32 8
audio_codec.model.vector_quantizer.fsqs.0.dim_base_index int32 1x4x1
audio_codec.model.vector_quantizer.fsqs.0.num_levels int32 1x4x1
audio_codec.model.vector_quantizer.fsqs.1.dim_base_index int32 1x4x1
audio_codec.model.vector_quantizer.fsqs.1.num_levels int32 1x4x1
audio_codec.model.audio_decoder.embed.weight float32 8x8x1
audio_codec.model.audio_decoder.embed.bias float32 8
audio_codec.model.audio_decoder.frame_blocks.0.depthwise.weight float32 8x1x7
audio_codec.model.audio_decoder.frame_blocks.0.depthwise.bias float32 8
audio_codec.model.audio_decoder.frame_blocks.0.norm.weight float32 8
audio_codec.model.audio_decoder.frame_blocks.0.norm.bias float32 8
audio_codec.model.audio_decoder.frame_blocks.0.expand.weight float32 24x8
audio_codec.model.audio_decoder.frame_blocks.0.expand.bias float32 24
audio_codec.model.audio_decoder.frame_blocks.0.contract.weight float32 8x24
audio_codec.model.audio_decoder.frame_blocks.0.contract.bias float32 8
audio_codec.model.audio_decoder.upsample.weight float32 56x8
audio_codec.model.audio_decoder.upsample.bias float32 56
audio_codec.model.audio_decoder.blocks.0.depthwise.weight float32 8x1x7
audio_codec.model.audio_decoder.blocks.0.depthwise.bias float32 8
audio_codec.model.audio_decoder.blocks.0.norm.weight float32 8
audio_codec.model.audio_decoder.blocks.0.norm.bias float32 8
audio_codec.model.audio_decoder.blocks.0.expand.weight float32 24x8
audio_codec.model.audio_decoder.blocks.0.expand.bias float32 24
audio_codec.model.audio_decoder.blocks.0.contract.weight float32 8x24
audio_codec.model.audio_decoder.blocks.0.contract.bias float32 8
audio_codec.model.audio_decoder.norm.weight float32 8
audio_codec.model.audio_decoder.norm.bias float32 8
audio_codec.model.audio_decoder.head.weight float32 1010x8
audio_codec.model.audio_decoder.head.bias float32 1010
lm.backbone.llm.layers.0.self_attn.q_proj.weight float32 24x24
lm.backbone.llm.layers.0.self_attn.k_proj.weight float32 12x24
lm.backbone.llm.layers.0.self_attn.v_proj.weight float32 12x24
lm.backbone.llm.layers.0.self_attn.o_proj.weight float32 24x24
lm.backbone.llm.layers.0.mlp.gate_proj.weight float32 32x24
lm.backbone.llm.layers.0.mlp.up_proj.weight float32 32x24
lm.backbone.llm.layers.0.mlp.down_proj.weight float32 24x32
lm.backbone.llm.layers.0.input_layernorm.weight float32 24
lm.backbone.llm.layers.0.post_attention_layernorm.weight float32 24
lm.backbone.llm.layers.1.self_attn.q_proj.weight float32 24x24
lm.backbone.llm.layers.1.self_attn.k_proj.weight float32 12x24
lm.backbone.llm.layers.1.self_attn.v_proj.weight float32 12x24
lm.backbone.llm.layers.1.self_attn.o_proj.weight float32 24x24
lm.backbone.llm.layers.1.mlp.gate_proj.weight float32 32x24
lm.backbone.llm.layers.1.mlp.up_proj.weight float32 32x24
lm.backbone.llm.layers.1.mlp.down_proj.weight float32 24x32
lm.backbone.llm.layers.1.input_layernorm.weight float32 24
lm.backbone.llm.layers.1.post_attention_layernorm.weight float32 24
lm.backbone.llm.norm.weight float32 24
lm.backbone.lm_head.weight float32 60x24
lm.backbone.embed_tokens.weight float32 60x24
lm.speech_embedding.table.weight float32 82x24
lm.speech_head.projection.weight float32 82x24
lm.speech_head.projection.bias float32 82
"""


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("agent"))


def test_weights_keep_their_names_dtypes_and_shapes(agent):
    found = [
        f"{name} {str(weight.dtype).removeprefix('torch.')} {'x'.join(map(str, weight.shape))}"
        for name, weight in agent.state_dict().items()
    ]
    assert sorted(found) == sorted(STATE_DICT.split("\n")[1:-1])


@pytest.mark.parametrize("mode", [True, False])
def test_offline_inference_sets_the_training_mode_back_after_an_error_too(agent, mode):
    agent.train(mode)
    try:
        agent.offline_inference(speech_like(0.4)[None], torch.tensor([6400]), decode_audio=False)
        assert agent.training == agent.lm.training == mode
        with pytest.raises(RuntimeError):
            agent.offline_inference(torch.zeros(2, 3, 4, 5), torch.tensor([6400]))
        assert agent.training == agent.lm.training == mode and not agent.audio_codec.training
    finally:
        agent.eval()


@torch.inference_mode()
def stepped(agent, signal, prompt=()):
    """Tokens (T,) and codes (T, K) of one recording, one frame after another."""
    user, lens = agent.perception(signal[None], torch.tensor([len(signal)]))
    state, frames = agent.lm.init_state(1, len(prompt)), []
    if prompt:
        agent.lm.prompt(torch.tensor([prompt]), state)
    for t in range(int(lens)):
        frame, state = agent.lm.step(user[:, t], state)
        frames.append(frame)
    return torch.cat([f.tokens for f in frames]), torch.cat([f.codes for f in frames])


def test_offline_inference_is_each_recording_frame_by_frame_and_pad_after_its_end(agent):
    signals = [speech_like(seconds, seed) for seed, seconds in enumerate((1.6, 0.8, 1.2))]
    out = agent.offline_inference(torch.nn.utils.rnn.pad_sequence(signals, True), torch.tensor([len(s) for s in signals]))
    assert out["tokens_len"].tolist() == [20, 10, 15] and out["audio_len"].tolist() == [n * 1764 for n in (20, 10, 15)]
    assert out["tokens_text"].shape == (3, 20) and out["tokens_audio"].shape == (3, 20, 2)
    for i, n in enumerate((20, 10, 15)):
        tokens, codes = stepped(agent, signals[i])
        assert torch.equal(out["tokens_text"][i, :n], tokens) and torch.equal(out["tokens_audio"][i, :n], codes)
        assert (out["tokens_text"][i, n:] == agent.layout.text_pad).all()
        assert (out["tokens_audio"][i, n:] == agent.layout.speech_pad).all()
        assert out["text"][i] == agent.decode_text(tokens.tolist())
        spoken, _ = agent.audio_codec.decode(agent.specials_to_silence(codes.T[None]), torch.tensor([n]))
        assert (out["audio"][i, : n * 1764] - spoken[0]).abs().max() < 1e-5
    assert any(
        agent.decode_text(row[: n - 1].tolist()) != text for row, n, text in zip(out["tokens_text"], (20, 10, 15), out["text"])
    )


def test_a_system_prompt_comes_before_the_first_frame(agent):
    signal, prompt = speech_like(0.8), agent.prompt_tokens("What is the day?")
    out = agent.offline_inference(
        signal[None], torch.tensor([len(signal)]), decode_audio=False, system_prompt="What is the day?"
    )
    assert out.keys() == {"text", "tokens_text", "tokens_audio", "tokens_len"}
    tokens, codes = stepped(agent, signal, prompt)
    assert torch.equal(out["tokens_text"][0], tokens) and torch.equal(out["tokens_audio"][0], codes)
    assert not torch.equal(codes, stepped(agent, signal)[1])


def test_text_is_decoded_without_special_ids_and_with_a_space_between_turns(agent):
    ids, layout = agent.tokenizer.text_to_ids, agent.layout
    first, second = ids("It is one."), ids("What is the day of six?")
    tokens = [layout.text_pad, layout.text_bos, *first[:3], layout.text_pad, *first[3:], layout.text_eos, layout.text_pad]
    assert agent.decode_text([*tokens, layout.text_bos, *second]) == "It is one. What is the day of six?"
    assert agent.decode_text([layout.text_pad, layout.text_eos]) == ""
    assert agent.decode_text(first) == "It is one."  # no BOS before it


def test_frames_with_a_special_id_in_any_codebook_become_silence(agent):
    size, silence = agent.layout.codebook_size, agent.audio_codec.silence_codes.tolist()
    codes = torch.tensor([[[0, 1, size, size - 1, 5], [0, size + 4, 3, size - 1, 5]]])
    expected = [[0, silence[0], silence[0], size - 1, 5], [0, silence[1], silence[1], size - 1, 5]]
    assert agent.specials_to_silence(codes).tolist() == [expected]


def test_a_prompt_is_the_tokens_of_its_text(agent):
    assert agent.prompt_tokens(None) == agent.prompt_tokens("") == []
    assert agent.prompt_tokens("one") == agent.tokenizer.text_to_ids("one") != []


def test_rates_and_vocabularies_are_those_of_the_parts(agent):
    assert (agent.user_sample_rate, agent.agent_sample_rate) == (16000, 22050)
    assert (agent.text_vocab_size, agent.speech_vocab_size) == (60, 41)
