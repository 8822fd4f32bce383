"""The codec of hibari's voice in the repository: the one that is described beside it; it speaks sentences it never heard."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from scipy.signal import resample_poly

from nemo_duplex import bundled
from nemo_duplex.codec.fsq_codec import FSQCodec
from nemo_duplex.codec.pitch import pitch_track
from nemo_duplex.codec.quality import mean_mel_distance
from nemo_duplex.files.atomic import sha256
from nemo_duplex.synthesis.tts.hibari import AGENT_VOICE, HibariEngine

FOLDER = Path(bundled.__file__).parent
CODEC = FOLDER / "voice_codec.nemo"
SENTENCES = [
    "The gardener left his yellow gloves beside the well.",
    "Could you bring another blanket before the guests arrive?",
    "Seven quiet foxes crossed the frozen river at dawn.",
    "My brother repairs old clocks in a village near the coast.",
]


@pytest.fixture(scope="module")
def codec() -> FSQCodec:
    return FSQCodec.restore_from(CODEC, map_location="cpu")


@pytest.fixture(scope="module")
def spoken() -> list[torch.Tensor]:
    """Sentences (S,) at the codec's rate."""
    engine = HibariEngine()
    return [torch.from_numpy(resample_poly(engine.speak(text, AGENT_VOICE).audio, 147, 160)).float() for text in SENTENCES]


def test_it_is_the_one_that_is_described(codec):
    facts = json.loads((FOLDER / "voice_codec.json").read_text())
    assert facts["sha256"] == sha256(CODEC) and facts["bytes"] == CODEC.stat().st_size <= 8e6
    assert {"command", "seed", "data", "machine", "licence"} <= facts.keys()
    assert (codec.num_codebooks, float(codec.frame_rate.hz)) == (4, 12.5) and codec.kbps <= 0.6
    assert facts["quality"]["kbps"] == pytest.approx(codec.kbps, abs=5e-4)


def test_it_speaks_what_it_never_heard(codec, spoken):
    assert mean_mel_distance(codec, spoken) < 0.35


def test_its_pitch_is_that_of_the_speaker(codec, spoken):
    """A column of what is decoded lies where it lies in the recording."""
    errors = []
    for sound in spoken:
        whole = sound[None, : len(sound) // 1764 * 1764]
        codes, frames = codec.encode(whole, torch.tensor([whole.shape[1]]))
        heard, voiced = pitch_track(codec.decode(codes, frames)[0], 22050, 252, 1008)
        said, speech = pitch_track(whole, 22050, 252, 1008)
        errors.append((heard / said - 1).abs()[voiced & speech])
    assert torch.cat(errors).median() < 0.02


def test_a_stream_of_it_equals_the_whole(codec, spoken):
    codes, frames = codec.encode(spoken[0][None], torch.tensor([len(spoken[0])]))
    whole, _ = codec.decode(codes, frames)
    decoder = codec.streaming_decoder()
    state, parts = decoder.init_state(1), []
    for frame in codes.split(1, dim=2):
        audio, state = decoder.step(frame, state)
        parts.append(audio)
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=0)


def test_silence_is_silent(codec):
    codes = codec.silence_codes[None, :, None].repeat(1, 1, 25)
    audio, _ = codec.decode(codes, torch.tensor([25]))
    assert audio.square().mean().sqrt() < 2e-3
