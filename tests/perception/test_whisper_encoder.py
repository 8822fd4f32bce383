"""An ear that began as Whisper: what it looks at, how far back, and how it is stored."""

import math

import pytest
import torch
from nemo.collections.asr.models import EncDecCTCModelBPE
from torch.nn import functional as F

from nemo_duplex.data.text_tokenizer import train_tokenizer
from nemo_duplex.inputs import InputError
from nemo_duplex.perception.ctc_model import ctc_model, open_ctc_model, save_ctc_model
from nemo_duplex.perception.perception import FrameEncoder, Perception
from nemo_duplex.perception.whisper_encoder import MEL_BEFORE, StreamingWhisperEncoder
from tests.dummies import speech_like
from tests.perception.tiny import FRAME, perception_settings, tiny_perception, whole


def tiny_encoder(**changes):
    torch.manual_seed(0)
    encoder = StreamingWhisperEncoder(**{"feat_in": 20, "d_model": 16, "n_layers": 2, "n_heads": 2, **changes}).eval()
    torch.nn.init.normal_(encoder.distance_bias)
    for weight in (w for w in encoder.parameters() if w.dim() > 1):
        weight.data *= 4
    return encoder


def by_hand(encoder, mel):
    """(1, mels, M) -> (T, D'), one query at a time."""
    x = encoder.pre_encode(mel)[0]
    chunk, left = encoder.chunk, encoder.left
    for layer, bias in zip(encoder.layers, encoder.distance_bias):
        query, key, value = layer.projected(x[None])
        attended = []
        for i in range(len(x)):
            first = max(0, i // chunk * chunk - left)
            keys = range(first, (i // chunk + 1) * chunk)
            heads = []
            for h in range(layer.heads[0]):
                scores = torch.stack([query[0, h, i] @ key[0, h, j] for j in keys]) / math.sqrt(layer.heads[1])
                scores = scores + torch.stack([bias[h, i - j + chunk - 1] for j in keys])
                heads.append(scores.softmax(0) @ value[0, h, list(keys)])
            attended.append(torch.cat(heads))
        x = layer.after(x, torch.stack(attended))
    x = encoder.norm_out(x)
    return torch.stack([encoder.join(x[i : i + 4].flatten()) for i in range(0, len(x), 4)])


@pytest.mark.parametrize(("context", "frames"), [((4, 1), 14), ((2, 0), 9), ((70, 1), 8), ((0, 1), 4)], ids=str)
def test_every_query_sees_its_chunk_and_so_much_before_it(context, frames):
    encoder = tiny_encoder(att_context_size=context)
    mel = torch.randn(2, 20, MEL_BEFORE + 8 * (frames - 1) + 1)
    with torch.no_grad():
        found = encoder.frames(mel)
        for row, each in zip(found, mel):
            torch.testing.assert_close(row, by_hand(encoder, each[None]), atol=1e-5, rtol=1e-5)


def test_before_a_recording_there_is_silence():
    """Zeros before it change nothing but the number of frames; a step of two frames keeps encoder chunks where they were."""
    perception, audio = tiny_perception((70, 1), kind="whisper"), speech_like(1.0)
    later = whole(perception, torch.cat([torch.zeros(72 * FRAME), audio]))[72:]
    assert later.shape == (13, 24)
    silent = whole(perception, torch.cat([torch.zeros(74 * FRAME), audio]))[74:]
    torch.testing.assert_close(silent, later, atol=1e-5, rtol=0)  # what is further back than 70 frames is not seen


def test_a_recogniser_with_it_is_stored_in_8_bits_and_restored_by_nemo(tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(f"What is {a} plus {b}?" for a in ("one", "two") for b in ("six", "four")))
    train_tokenizer(texts, tmp_path / "tokenizer.model", 40)
    settings = perception_settings((6, 1), kind="whisper")
    asr = ctc_model(settings["preprocessor"], settings["encoder"], tmp_path / "tokenizer.model").eval()
    asr.encoder.load_state_dict(tiny_encoder(att_context_size=(6, 1)).state_dict())
    save_ctc_model(asr, tmp_path / "ear.nemo")
    restored, theirs = open_ctc_model(tmp_path / "ear.nemo"), EncDecCTCModelBPE.restore_from(str(tmp_path / "ear.nemo"))
    perception = Perception.from_asr(str(tmp_path / "ear.nemo"), {"adapter": {"kind": "identity"}, "output_dim": 24}).eval()
    assert perception.chunk_frames == 2
    kept = asr.encoder.state_dict()
    for name, weight in restored.encoder.state_dict().items():
        assert torch.equal(theirs.encoder.state_dict()[name].cpu(), weight), name
        assert torch.equal(perception.encoder.state_dict()[name], weight), name
        if weight.dim() > 1 and name.endswith("weight"):
            step = kept[name].flatten(1).abs().amax(1) / 127
            apart = (weight - kept[name]).flatten(1).abs().amax(1)
            assert (apart <= 0.51 * step).all() and apart.max() > 0, name
        else:
            torch.testing.assert_close(weight, kept[name], atol=1e-3, rtol=1e-3)
    audio, lens = F.pad(speech_like(1.9), (1600, 0))[None], torch.tensor([32000])
    with torch.no_grad():
        expected = FrameEncoder(asr.preprocessor, asr.encoder).encode(audio, lens)[0]
        found = FrameEncoder(restored.preprocessor, restored.encoder).encode(audio, lens)[0]
        theirs = theirs.cpu().eval()
        mel, mel_lens = theirs.preprocessor(input_signal=audio, length=lens)
        encoded, counts = theirs.encoder(audio_signal=mel, length=mel_lens)
        log_probs, log_counts, _ = theirs(input_signal=audio, input_signal_length=lens)
    assert (found - expected).std() < 0.05 * expected.std()
    # NeMo's own forward gives the same frames, but for the last one, where the recording ends.
    assert counts.tolist() == log_counts.tolist() == [25] and len(log_probs[0]) >= 25
    torch.testing.assert_close(encoded[0].t()[:24], found[0, :24], atol=1e-3 * float(found.std()), rtol=0)


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ({"kind": "wav2vec"}, "perception.encoder.kind is 'wav2vec', expected 'conformer' or 'whisper'"),
        ({"kind": "whisper", "subsampling_factor": 8}, "perception.encoder of kind whisper: .*subsampling_factor"),
        ({"kind": "whisper", "att_context_size": [3, 1]}, r"encoder.att_context_size is \[3, 1\]"),
        ({"kind": "whisper", "feat_in": 80}, "perception.encoder.feat_in is 80, but the preprocessor gives 20"),
        ({"kind": "whisper", "d_model": 16, "n_heads": 3}, "perception.encoder: StreamingWhisperEncoder refuses"),
    ],
    ids=str,
)
def test_what_cannot_be_built_is_one_line(encoder, message):
    with pytest.raises(InputError, match=message):
        Perception({**perception_settings(), "encoder": encoder})


def test_a_model_for_whole_recordings_has_another_ear():
    from nemo_duplex.perception.offline import WholePerception

    with pytest.raises(InputError, match="of kind 'whisper', which hears streams"):
        WholePerception(perception_settings(kind="whisper"))


def test_it_is_no_part_of_nemos_in_tree_model():
    from nemo_duplex.models.in_tree.perception import their_perception

    with pytest.raises(InputError, match="perception.encoder is of kind 'whisper', which in-tree models do not have"):
        their_perception(tiny_perception(adapter="conformer", kind="whisper").config)


def test_log_mels_are_scaled_as_whisper_scales_them():
    """(log10 + 4) / 4, of mels whose natural logarithm is given."""
    front = tiny_encoder().pre_encode
    torch.nn.init.normal_(front.position)
    power = torch.rand(1, 20, 11) + 1e-6
    with torch.no_grad():
        expected = F.gelu(front.conv2(F.gelu(front.conv1((power.log10() + 4) / 4)))).transpose(1, 2) + front.position
        torch.testing.assert_close(front(power.log()), expected)


def test_layers_may_be_computed_again_in_the_backward_pass():
    from nemo_duplex.models.training_speed import recompute_activations

    class Llm:
        supports_gradient_checkpointing = True

        def gradient_checkpointing_enable(self, _):
            pass

    gradients = []
    for again in (False, True):
        perception = tiny_perception(kind="whisper").train()
        if again:
            recompute_activations(perception, Llm())
        embeddings, _ = perception(torch.stack([speech_like(2.0)] * 2), torch.tensor([32000, 20000]))
        embeddings.square().mean().backward()
        gradients.append([p.grad for p in perception.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))
    assert any(type(layer).__name__ == "CheckpointWrapper" for layer in perception.encoder.layers)
