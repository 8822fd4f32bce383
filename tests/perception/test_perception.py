"""Whole recordings: features are NeMo's, rows do not depend on each other, and no frame depends on audio after its chunk."""

import pytest
import torch

from nemo_duplex.inputs import InputError
from nemo_duplex.perception import perception as perception_module
from nemo_duplex.perception.asr_checkpoint import AsrParts
from nemo_duplex.perception.perception import Perception, silent_after
from tests.dummies import PERCEPTION, speech_like
from tests.perception.tiny import FRAME, perception_settings, tiny_perception, whole


@pytest.mark.parametrize("subsampling", ["dw_striding", "striding"])
def test_features_are_those_of_nemo(subsampling):
    """Frame t is NeMo's encoder frame t: our mel and our (folded) subsampling change the arithmetic, not the result."""
    perception = tiny_perception(subsampling=subsampling)
    audio, lens = torch.stack([speech_like(4.0), speech_like(4.0, seed=1)]), torch.tensor([64000, 64000])
    with torch.no_grad():
        features, counts = perception.encode(audio, lens)
        mel, mel_lens = perception.preprocessor(input_signal=audio, length=lens)
        encoded, _ = perception.encoder(audio_signal=mel, length=mel_lens)
    assert counts.tolist() == [50, 50] and features.shape == (2, 50, 16)
    torch.testing.assert_close(features, encoded.transpose(1, 2)[:, :50], atol=1e-5, rtol=0)


def test_nothing_said_gives_no_frames():
    empty, lens = tiny_perception()(torch.zeros(2, 0), torch.zeros(2, dtype=torch.long))
    assert empty.shape == (2, 0, 24) and lens.tolist() == [0, 0]


def test_a_recording_goes_on_as_silence_until_its_last_encoder_chunk_is_full():
    perception, audio = tiny_perception(context=(70, 6)), speech_like(1.0)[: 3 * FRAME + 1]
    filled_up = torch.cat([audio, torch.zeros(7 * FRAME - len(audio))])
    assert len(whole(perception, audio)) == 4
    torch.testing.assert_close(whole(perception, audio), whole(perception, filled_up)[:4], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("context", "kind"), [((70, 1), "conformer"), ((70, 6), "conformer"), ((4, 1), "whisper"), ((70, 1), "whisper")], ids=str
)
@pytest.mark.parametrize("adapter", ["mlp", "conformer"])
def test_long_recordings_are_computed_in_pieces(monkeypatch, adapter, context, kind):
    perception = tiny_perception(context, adapter, kind=kind)
    audio, lens = torch.stack([speech_like(8), speech_like(8, seed=1)]), torch.tensor([128000, 77777])
    with torch.no_grad():
        expected, expected_lens = perception(audio, lens)
    monkeypatch.setattr(perception_module, "_PIECE_FRAMES", 15)
    monkeypatch.setattr(perception, "features", None)  # computes a recording in one
    with torch.no_grad():
        in_pieces, lens_in_pieces = perception(audio, lens)
    torch.testing.assert_close(in_pieces, expected, atol=1e-5, rtol=0)
    assert lens_in_pieces.tolist() == expected_lens.tolist() == [100, 61]


@pytest.mark.parametrize("kind", ["conformer", "whisper"])
def test_a_recording_of_whole_pieces_has_no_further_one(monkeypatch, kind):
    perception, audio = tiny_perception(kind=kind), speech_like(1.6)
    expected = whole(perception, audio)
    monkeypatch.setattr(perception_module, "_PIECE_FRAMES", 10)
    torch.testing.assert_close(whole(perception, audio), expected, atol=1e-5, rtol=0)


def test_what_is_learnt_from_is_never_computed_in_pieces(monkeypatch):
    """Gradients do not flow through the caches between them."""
    monkeypatch.setattr(perception_module, "_PIECE_FRAMES", 4)
    perception = tiny_perception().train()
    monkeypatch.setattr(perception, "_in_pieces", None)
    assert perception(speech_like(1.0)[None], torch.tensor([16000]))[0].requires_grad


@pytest.mark.parametrize(("adapter", "kind"), [("mlp", "conformer"), ("conformer", "conformer"), ("mlp", "whisper")])
def test_each_row_of_a_batch_equals_the_row_alone(adapter, kind):
    """A batch is padded to its longest row, and what stands in the padding is ignored."""
    perception = tiny_perception(adapter=adapter, kind=kind)
    audio = [speech_like(seconds, seed) for seed, seconds in enumerate((3.01, 0.3, 1.77))]
    padded = torch.full((3, 60000), float("nan"))
    for row, samples in zip(padded, audio):
        row[: len(samples)] = samples
    with torch.no_grad():
        embeddings, lens = perception(padded, torch.tensor([len(a) for a in audio]))
    assert embeddings.shape == (3, 47, 24) and lens.tolist() == [38, 4, 23]
    for row, count, samples in zip(embeddings, lens, audio):
        torch.testing.assert_close(row[:count], whole(perception, samples), atol=1e-5, rtol=0)


def test_samples_are_silent_from_the_end_of_their_row_on():
    assert silent_after(torch.ones(3, 4), torch.tensor([0, 3, 4])).tolist() == [[0, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]


@pytest.mark.parametrize("kind", ["conformer", "whisper"])
def test_a_frame_depends_on_its_encoder_chunk_and_not_on_more(kind):
    """[70, 1]: frames 10 and 11 depend on the first 12.5 ms of frame 11, frames 0 to 9 on nothing of them."""
    perception = tiny_perception(adapter="conformer", kind=kind)
    audio = speech_like(2.0)
    before = whole(perception, audio)
    end = 11 * FRAME + 200
    later, sooner = audio.clone(), audio.clone()
    later[end:] = 0.5
    sooner[end - 100 :] = 0.5
    assert torch.equal(whole(perception, later)[:12], before[:12])
    changed = (whole(perception, sooner) - before).abs().amax(1) > 1e-5
    assert not changed[:10].any() and changed[10:12].all()


@pytest.mark.parametrize("kind", ["conformer", "whisper"])
def test_it_learns_in_bfloat16(kind):
    perception = tiny_perception(kind=kind).train()
    with torch.autocast("cpu", torch.bfloat16):
        embeddings, _ = perception(torch.stack([speech_like(2.0)] * 2), torch.tensor([32000, 20000]))
    embeddings.float().square().mean().backward()
    silent = [name for name, p in perception.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not silent


@pytest.mark.parametrize("kind", ["conformer", "whisper"])
@pytest.mark.parametrize("adapter", ["mlp", "conformer", "identity"])
def test_its_config_describes_it(adapter, kind):
    perception = tiny_perception(adapter=adapter, kind=kind)
    Perception(perception.config).load_state_dict(perception.state_dict())
    assert perception.config["output_dim"] == perception.output_dim == 24
    assert perception.lead_samples == 1280 - 200 and perception.chunk_samples == 2 * 1280


def test_an_argument_that_nemo_does_not_know_is_refused():
    with pytest.raises(InputError, match="perception.encoder: NeMo's ConformerEncoder refuses the configuration: .*n_layer"):
        Perception({**PERCEPTION, "encoder": {**PERCEPTION["encoder"], "n_layer": 4}})


def test_a_model_of_many_contexts_is_asked_for_one():
    parts = AsrParts({}, {"att_context_size": [[70, 13], [70, 1]], "att_context_probs": [0.5, 0.5]}, {})
    assert parts.encoder_for(None) == {"att_context_size": [70, 13], "att_context_probs": None}
    assert parts.encoder_for([70, 1])["att_context_size"] == [70, 1]
    with pytest.raises(InputError, match=r"\[70, 0\] is none of those"):
        parts.encoder_for([70, 0])
    assert AsrParts({}, {"att_context_size": [70, 1]}, {}).encoder_for(None)["att_context_size"] == [70, 1]


def test_what_nemos_module_asserts_is_one_line_too():
    config = perception_settings(n_heads=3)
    with pytest.raises(
        InputError, match="^perception.encoder: NeMo's ConformerEncoder refuses the configuration: AssertionError$"
    ):
        Perception(config)
