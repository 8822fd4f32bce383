"""The ear: a stream equals the whole recording, rows do not know of each other, and nothing is heard too early."""

import copy
import dataclasses

import pytest
import torch

from nemo_duplex.inputs import InputError
from nemo_duplex.perception import perception as perception_module
from nemo_duplex.perception.asr_checkpoint import AsrParts
from nemo_duplex.perception.perception import Perception
from tests.dummies import PERCEPTION, speech_like

FRAME = 1280  # samples


def debug_perception(context=(70, 1), adapter="mlp", **encoder):
    torch.manual_seed(0)
    config = copy.deepcopy(PERCEPTION)
    config["encoder"] |= {"att_context_size": list(context), **encoder}
    config["adapter"] = {"kind": adapter}
    return Perception(config).eval()


@torch.no_grad()
def whole(perception, audio):
    """(S,) -> (T, H) of the recording alone."""
    embeddings, lens = perception(audio[None], torch.tensor([len(audio)]))
    assert lens.tolist() == [embeddings.shape[1]]
    return embeddings[0]


@torch.no_grad()
def streamed(perception, audio, sizes):
    """(S,) -> (T, H), pushed in chunks of `sizes`, repeated."""
    state, pieces, position = perception.init_state(1), [], 0
    while position < len(audio):
        size = sizes[len(pieces) % len(sizes)]
        embeddings, state = perception.step(audio[None, position : position + size], state)
        pieces.append(embeddings[0])
        position += size
    return torch.cat([*pieces, perception.step(audio[None, :0], state, final=True)[0][0]])


# ---------------------------------------------------------------------- a stream equals the whole recording


@pytest.mark.parametrize("adapter", ["mlp", "conformer", "identity"])
@pytest.mark.parametrize("context", [(70, 0), (70, 1), (70, 6), (70, 13)], ids=str)
def test_a_stream_equals_the_whole_recording(context, adapter):
    perception = debug_perception(context, adapter)
    audio = speech_like(7.5)  # 94 frames: the window of 70 moves on
    for sizes in ([1280], [7, 4000, 1, 333]):
        torch.testing.assert_close(streamed(perception, audio, sizes), whole(perception, audio), atol=1e-5, rtol=0)


@pytest.mark.parametrize("samples", [1, 200, 1279, 1280, 1281, 1480, 1481, 2559, 2560, 2561, 2760, 3840, 5120, 9999])
@pytest.mark.parametrize("context", [(70, 0), (70, 1), (70, 6)], ids=str)
def test_no_frame_is_lost_at_the_tail(context, samples):
    perception = debug_perception(context, "conformer")
    audio = speech_like(1.0)[:samples]
    expected = whole(perception, audio)
    assert len(expected) == -(-samples // FRAME)
    for sizes in ([samples], [400]):
        torch.testing.assert_close(streamed(perception, audio, sizes), expected, atol=1e-5, rtol=0)


def test_nothing_said_gives_no_frames():
    perception = debug_perception()
    empty, lens = perception(torch.zeros(2, 0), torch.zeros(2, dtype=torch.long))
    assert empty.shape == (2, 0, 24) and lens.tolist() == [0, 0]
    assert perception.step(torch.zeros(2, 0), perception.init_state(2), final=True)[0].shape == (2, 0, 24)


def test_a_burst_is_made_as_soon_as_its_audio_is_there():
    """Frames 0 and 1 need 92.5 ms of audio, and every further pair 160 ms more: no block of the microphone is waited for."""
    perception = debug_perception()
    first = FRAME + 200
    state = perception.init_state(1)
    embeddings, state = perception.step(torch.zeros(1, first - 1), state)
    assert embeddings.shape[1] == 0
    embeddings, state = perception.step(torch.zeros(1, 1), state)
    assert embeddings.shape[1] == 2
    embeddings, state = perception.step(torch.zeros(1, 2 * FRAME), state)
    assert embeddings.shape[1] == 2


def test_long_recordings_are_heard_in_pieces(monkeypatch):
    perception = debug_perception(adapter="conformer")
    audio, lens = torch.stack([speech_like(8), speech_like(8, seed=1)]), torch.tensor([128000, 77777])
    with torch.no_grad():
        expected, expected_lens = perception(audio, lens)
        monkeypatch.setattr(perception_module, "_PIECE_FRAMES", 15)
        in_pieces, lens_in_pieces = perception(audio, lens)
    torch.testing.assert_close(in_pieces, expected, atol=1e-5, rtol=0)
    assert lens_in_pieces.tolist() == expected_lens.tolist() == [100, 61]


def test_the_state_does_not_grow():
    perception = debug_perception(adapter="conformer")
    sizes = []
    with torch.no_grad():
        state = perception.init_state(1)
        for _ in range(80):
            _, state = perception.step(torch.randn(1, 2000), state)
            sizes.append(total_size(state))
    assert len(set(sizes)) == 1


def total_size(state):
    if isinstance(state, torch.Tensor):
        return state.numel()
    return sum(total_size(getattr(state, field.name)) for field in dataclasses.fields(state))


# ---------------------------------------------------------------------- rows do not know of each other


@pytest.mark.parametrize("adapter", ["mlp", "conformer"])
def test_each_row_of_a_batch_equals_the_row_alone(adapter):
    """A batch is padded to its longest row, and what stands in the padding is not heard."""
    perception = debug_perception(adapter=adapter)
    audio = [speech_like(seconds, seed) for seed, seconds in enumerate((3.01, 0.3, 1.77))]
    padded = torch.full((3, 60000), float("nan"))
    for row, samples in zip(padded, audio):
        row[: len(samples)] = samples
    with torch.no_grad():
        embeddings, lens = perception(padded, torch.tensor([len(a) for a in audio]))
    assert embeddings.shape == (3, 47, 24)
    for row, count, samples in zip(embeddings, lens, audio):
        torch.testing.assert_close(row[:count], whole(perception, samples), atol=1e-5, rtol=0)


def test_a_step_leaves_the_state_it_was_given():
    """A state is a value: to go back in a conversation, keep the old one."""
    perception = debug_perception(adapter="conformer")
    with torch.no_grad():
        _, state = perception.step(speech_like(1.0)[None], perception.init_state(1))
        once, _ = perception.step(speech_like(1.0, seed=1)[None], state)
        twice, _ = perception.step(speech_like(1.0, seed=1)[None], state)
    torch.testing.assert_close(once, twice, atol=0, rtol=0)


def test_step_refuses_rows_of_different_age():
    perception = debug_perception()
    _, state = perception.step(torch.zeros(2, 3000), perception.init_state(2))
    state.heard[0] = 0
    with pytest.raises(AssertionError, match="PerceptionStream"):
        perception.step(torch.zeros(2, 10), state)


# ---------------------------------------------------------------------- what a frame hears


def test_a_frame_hears_its_burst_and_not_more():
    """[70, 1]: frames 10 and 11 hear 12.5 ms into frame 11, frames 0 to 9 nothing of them."""
    perception = debug_perception(adapter="conformer")
    audio = speech_like(2.0)
    before = whole(perception, audio)
    end = 11 * FRAME + 200
    later, sooner = audio.clone(), audio.clone()
    later[end:] = 0.5
    sooner[end - 100 :] = 0.5
    assert torch.equal(whole(perception, later)[:12], before[:12])
    changed = (whole(perception, sooner) - before).abs().amax(1) > 1e-5
    assert not changed[:10].any() and changed[10:12].all()


def test_features_are_those_of_nemo():
    """Frame t is NeMo's encoder frame t: our mel and our (folded) subsampling change the arithmetic, not the result."""
    for subsampling in ("dw_striding", "striding"):
        perception = debug_perception(subsampling=subsampling)
        audio, lens = torch.stack([speech_like(4.0), speech_like(4.0, seed=1)]), torch.tensor([64000, 64000])
        with torch.no_grad():
            features, counts = perception.encode(audio, lens)
            mel, mel_lens = perception.preprocessor(input_signal=audio, length=lens)
            encoded, _ = perception.encoder(audio_signal=mel, length=mel_lens)
        assert counts.tolist() == [50, 50] and features.shape == (2, 50, 16)
        torch.testing.assert_close(features, encoded.transpose(1, 2)[:, :50], atol=1e-5, rtol=0)


def test_it_learns_in_bfloat16():
    perception = debug_perception().train()
    with torch.autocast("cpu", torch.bfloat16):
        embeddings, _ = perception(torch.stack([speech_like(2.0)] * 2), torch.tensor([32000, 20000]))
    embeddings.float().square().mean().backward()
    silent = [name for name, p in perception.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not silent


# ---------------------------------------------------------------------- the door


def test_its_config_describes_it():
    for adapter in ("mlp", "conformer", "identity"):
        perception = debug_perception(adapter=adapter)
        Perception(perception.config).load_state_dict(perception.state_dict())
        assert perception.config["output_dim"] == perception.output_dim == 24


@pytest.mark.parametrize(
    "section, key, value, message",
    [
        ("encoder", "att_context_style", "regular", "att_context_style is 'regular', expected 'chunked_limited'"),
        ("encoder", "causal_downsampling", False, "causal_downsampling is False"),
        ("encoder", "conv_context_size", None, "conv_context_size is None, expected 'causal'"),
        ("encoder", "self_attention_model", "abs_pos", "self_attention_model is 'abs_pos'"),
        ("encoder", "att_context_size", [-1, 1], r"att_context_size is \[-1, 1\]"),
        ("encoder", "att_context_size", [70, 2], r"left a multiple of right \+ 1"),
        ("encoder", "subsampling_factor", 4, "frames are 40 ms long .* expected 80 ms"),
        ("encoder", "n_layer", 4, "refuses the configuration: .*n_layer"),
        ("preprocessor", "normalize", "per_feature", "normalize is 'per_feature', but a stream needs 'NA'"),
        ("adapter", "kind", "linear", "expected 'mlp' or 'conformer' or 'identity'"),
        ("adapter", "width", 4, "unknown key 'width'. Expected kind, hidden"),
    ],
)
def test_what_cannot_be_streamed_is_refused(section, key, value, message):
    config = copy.deepcopy(PERCEPTION)
    config[section][key] = value
    with pytest.raises(InputError, match=message):
        Perception(config)


def test_an_unknown_key_is_refused_with_the_nearest():
    with pytest.raises(InputError, match="unknown key 'adaptor'. Did you mean 'adapter'"):
        Perception({**PERCEPTION, "adaptor": {}})


def test_a_model_of_many_contexts_is_asked_for_one():
    parts = AsrParts({}, {"att_context_size": [[70, 13], [70, 1]], "att_context_probs": [0.5, 0.5]}, {})
    assert parts.encoder_for(None)["att_context_size"] == [70, 13]
    assert parts.encoder_for([70, 1])["att_context_size"] == [70, 1]
    with pytest.raises(InputError, match=r"\[70, 0\] is none of those"):
        parts.encoder_for([70, 0])
