"""The encoder in the repository: it is the one that is described beside it, and it understands voices that it never heard."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from nemo.collections.asr.models import EncDecCTCModelBPE
from scipy.signal import resample_poly

from nemo_duplex import bundled
from nemo_duplex.files.atomic import sha256
from nemo_duplex.perception.ctc_data import Utterance
from nemo_duplex.perception.ctc_model import error_rate, open_ctc_model, transcribe
from nemo_duplex.perception.perception import Perception
from nemo_duplex.synthesis.tts.espeak import EspeakEngine
from nemo_duplex.synthesis.tts.voices import user_voice, voice_data
from tests.perception.tiny import streamed, whole

FOLDER = Path(bundled.__file__).parent
ENCODER = FOLDER / "user_encoder.nemo"
RATE = 16000
QUESTIONS = [
    "What is the capital of France?",
    "How much is five plus six?",
    "Which day comes before Wednesday?",
    "What is the opposite of slow?",
    "How many seasons are in a year?",
    "Please count from five up until twelve.",
    "What color is the carrot?",
    "Can you tell me the month after January?",
]


@pytest.fixture(scope="module")
def spoken():
    """The questions, each by another voice of those that were kept from training."""
    engine, utterances = EspeakEngine(voice_data()), []
    for number, text in enumerate(QUESTIONS):
        audio = resample_poly(engine.speak(text, user_voice("dev", number)).audio, 320, 441)
        before, after = np.zeros(RATE // 2), np.zeros(RATE)
        audio = np.concatenate([before, 0.05 * audio / np.sqrt(np.mean(audio**2)), after])
        audio += 1e-4 * np.random.default_rng(number).standard_normal(len(audio))
        samples = (audio * 32768).clip(-32768, 32767).astype(np.int16)
        first, last = len(before), len(audio) - len(after)
        utterances.append(Utterance(str(number), samples, text, first, last, 0, len(audio)))
    return utterances


def test_it_is_the_one_that_is_described():
    facts = json.loads((FOLDER / "user_encoder.json").read_text())
    assert facts["sha256"] == sha256(ENCODER) and facts["bytes"] == ENCODER.stat().st_size < 7e6
    assert facts["quality"]["dev"]["conversations_wer"] < 0.15
    assert {"command", "seed", "data"} <= facts.keys()


def test_the_one_of_open_english_is_the_one_that_is_described_and_goes_on():
    """It is in training: what it has learnt is where `init=` begins."""
    file = FOLDER / "open_encoder.nemo"
    facts = json.loads((FOLDER / "open_encoder.json").read_text())
    assert facts["sha256"] == sha256(file) and facts["bytes"] == file.stat().st_size <= 12e6
    assert {"command", "seed", "data", "state"} <= facts.keys()
    asr = open_ctc_model(file)
    assert asr.decoder.vocabulary and Perception.from_asr(str(file), {"output_dim": 32}).encoder.d_model == 384


def test_it_understands_voices_it_never_heard(spoken):
    asr = EncDecCTCModelBPE.restore_from(str(ENCODER), map_location="cpu")
    assert error_rate(transcribe(asr, spoken), spoken) <= 0.1


def test_an_agent_streams_with_it_as_over_the_whole_recording(spoken):
    perception = Perception.from_asr(str(ENCODER), {"adapter": {"kind": "mlp"}, "output_dim": 32}).eval()
    audio = torch.from_numpy(np.concatenate([u.whole() for u in spoken[:3]]))
    torch.testing.assert_close(streamed(perception, audio), whole(perception, audio), atol=1e-5, rtol=1e-4)
