"""An agent whose ear began as Whisper: its calls, its file, and 8 bits."""

import numpy as np
import pytest
import torch

from nemo_duplex.models.duplex_s2s import DuplexS2SModel
from tests.dummies import speech_like, tiny_model
from tests.perception.tiny import perception_settings
from tests.streaming.test_session import offline, stream


def whisper_model(folder, **encoder):
    return tiny_model(folder, perception=perception_settings(kind="whisper", **encoder))


@pytest.mark.parametrize("kept", [False, True], ids=["as built", "from its file"])
def test_a_session_equals_offline_inference(tmp_path, kept):
    model = whisper_model(tmp_path)
    if kept:
        model.save_to(str(tmp_path / "agent.nemo"))
        model = DuplexS2SModel.restore_from(str(tmp_path / "agent.nemo"), map_location="cpu").eval()
    assert model.perception.config["encoder"]["kind"] == "whisper"
    signal = speech_like(9.5)[: 9 * 16000 + 4321]
    whole, (frames, _) = offline(model, signal), stream(model, signal, [1, 7, 1279, 333, 2048])
    assert [f.token for f in frames] == whole["tokens_text"][0].tolist()
    assert np.array_equal(np.stack([f.codes for f in frames]), whole["tokens_audio"][0].numpy())
    assert whole["tokens_text"].unique().numel() > 3


@pytest.mark.parametrize("sessions", [1, 16])
def test_8_bits_hear_nearly_the_same(tmp_path, sessions):
    """Of an ear with layers that are large enough to be converted."""
    model = whisper_model(tmp_path, d_model=192, n_heads=3, n_layers=1)
    exact, small = (model.open_engine(max_sessions=sessions, int8=int8)._rows for int8 in (False, True))
    converted = [
        m for m in small._perception._perception.modules() if "8" in type(m).__name__ or "bfloat" in type(m).__name__.lower()
    ]
    assert converted
    rows, live = torch.tensor([0]), torch.tensor([True])
    heard = []
    for each in (exact, small):
        state = each.init_state(sessions)
        embeddings = []
        for chunk in speech_like(4.0)[: 24 * 2560].view(24, 1, 2560):
            window = each._perception.mel(chunk, state.perception, rows, live)
            embeddings.append(each._perception.encoder(window, state.perception, rows, live))
        heard.append(torch.cat(embeddings))
    assert 0 < float((heard[1] - heard[0]).std()) < 0.1 * float(heard[0].std())
