"""CTC training of an encoder: what it is shown when, and the script from a corpus to encoder.nemo, killed and continued."""

import json
import os
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lhotse import CutSet, MonoCut, Recording
from lhotse.audio import AudioSource
from omegaconf import OmegaConf

from nemo_duplex.conversation import Conversation, Turn, Word
from nemo_duplex.inputs import InputError
from nemo_duplex.perception.ctc_data import UNKNOWN
from nemo_duplex.perception.ctc_training import (
    Curriculum,
    EncoderTrainingConfig,
    path_loss,
    train_encoder,
)
from nemo_duplex.scripts.config import load
from tests.dummies import wav_bytes

ROOT = Path(__file__).parent.parent.parent
RATE = 16000
PITCH = {"do": 400, "re": 900, "mi": 1900}  # Hz
TEXTS = ["Do re.", "Re mi.", "Mi do.", "Do mi.", "Re do.", "Mi re."]


def sung(text):
    """0.4 s of a tone for every word, and as much silence between them."""
    time_axis = np.arange(round(0.4 * RATE)) / RATE
    tones = [0.3 * np.sin(2 * np.pi * PITCH[word.strip(".").lower()] * time_axis) for word in text.split()]
    return np.concatenate([part for tone in tones for part in (tone, np.zeros_like(tone))])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Users who sing, with the layout of synthesize.py."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "texts.txt").write_text("\n".join(TEXTS * 3))
    for set_name in ("train", "dev"):
        cuts = []
        for i in range(12):
            random = np.random.default_rng(i)
            text = TEXTS[i % len(TEXTS)]
            audio = np.concatenate([np.zeros(round(random.uniform(0.2, 0.6) * RATE)), sung(text), np.zeros(RATE // 2)])
            audio = (audio + 1e-3 * random.standard_normal(len(audio))).astype(np.float32)
            seconds, name = len(audio) / RATE, f"{set_name}-{i}"
            recording = Recording(name, [AudioSource("memory", [0], wav_bytes(audio, RATE))], RATE, len(audio), seconds)
            start = seconds - 2.1
            words = [
                Word(w, text.index(w), start + 0.8 * i, start + 0.8 * i + 0.4) for i, w in enumerate(text.strip(".").split())
            ]
            turn = Turn("user", start, seconds - 0.9, text, words=tuple(words))
            supervisions = Conversation(name, seconds, (turn,)).to_supervisions()
            cuts.append(MonoCut(name, 0, seconds, 0, recording=recording, supervisions=supervisions))
        (folder / set_name / "shar").mkdir(parents=True)
        CutSet.from_cuts(cuts).to_shar(folder / set_name / "shar", fields={"recording": "wav"})
    return folder


TINY = [
    "tokenizer_size=24",
    "threads=1",
    "warmup_steps=10",
    "turns_alone=0.5",
    "mel_masks=[0,0,0,0]",
    "mel_warp=0",
    "batch_seconds=20",
]
TINY += ["preprocessor.features=20", "encoder.n_layers=2", "encoder.d_model=32", "encoder.subsampling_conv_channels=8"]


def command(corpus, out, *keys):
    return [sys.executable, str(ROOT / "examples/train_encoder.py"), f"data={corpus}", f"out={out}", *TINY, *keys]


def run(*arguments):
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=300)


# ---------------------------------------------------------------------- what it is shown


def shown(share, turns_alone=0.25, conversations=0.6, count=200):
    kinds = SimpleNamespace(
        turns=SimpleNamespace(batch=lambda i: ("turns", i)), conversations=SimpleNamespace(batch=lambda i: ("whole", i))
    )
    config = SimpleNamespace(turns_alone=turns_alone, conversations=conversations)
    training = SimpleNamespace(step=7, share=share, config=config, **vars(kinds))
    return list(islice(Curriculum(training), count))


def test_turns_come_first_and_conversations_later():
    def part(share):
        return sum(kind == "whole" for kind, _ in shown(share)) / 200

    assert part(0.0) == part(0.25) == 0
    assert part(0.625) == pytest.approx(0.3, abs=0.02) and part(1.0) == pytest.approx(0.6, abs=0.02)
    assert [kind for kind, _ in shown(0.0, turns_alone=0.0, conversations=1.0)] == ["turns"] * 200


def test_a_training_that_goes_on_takes_the_next_batch():
    assert [index for _, index in shown(0.5, count=3)] == [7, 8, 9]


def test_the_path_loss_knows_where_tokens_are():
    """Three frames, blank is 2: frame 0 is a token, frame 1 a blank, nobody knows frame 2, and the fourth is padding."""
    paths = torch.tensor([[1, 2, UNKNOWN]])
    log_probs = torch.log_softmax(torch.randn(1, 4, 3), dim=-1)
    expected = -(log_probs[0, 0, 1] + 0.3 * log_probs[0, 1, 2]) / 1.3
    torch.testing.assert_close(path_loss(log_probs, paths), expected)


# ---------------------------------------------------------------------- the script


@pytest.mark.slow
def test_trains_to_understand_and_does_nothing_when_done(corpus, tmp_path):
    done = run(corpus, tmp_path / "out", "minutes=0.6")
    assert done.returncode == 0, done.stderr
    quality = json.loads((tmp_path / "out" / "quality.json").read_text())
    assert quality["dev"]["turns_wer"] <= 0.2 and quality["dev"]["turns"] == 12
    assert quality["dev"]["conversations_wer"] <= 0.3

    before = (tmp_path / "out" / "encoder.nemo").stat().st_mtime_ns
    assert run(corpus, tmp_path / "out", "minutes=0.6").returncode == 0
    assert (tmp_path / "out" / "encoder.nemo").stat().st_mtime_ns == before
    other = run(corpus, tmp_path / "out", "minutes=0.7")
    assert other.returncode == 2 and "holds a training with another minutes" in other.stderr


@pytest.mark.slow
def test_goes_on_after_a_kill(corpus, tmp_path):
    out = tmp_path / "out"
    process = subprocess.Popen(command(corpus, out, "minutes=0.5"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while not (out / "last.ckpt").is_file() and time.monotonic() < deadline:
        time.sleep(0.2)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    reached = torch.load(out / "last.ckpt", weights_only=False)["step"]
    assert reached >= 100 and not (out / "encoder.nemo").exists()
    assert run(corpus, out, "minutes=0.5").returncode == 0
    assert json.loads((out / "quality.json").read_text())["steps"] > reached
    assert not list(out.glob(".part*"))


def test_wrong_input_is_one_line(tmp_path):
    done = run(tmp_path / "nowhere", tmp_path / "out")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "there is no folder" in done.stderr and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "keys, message",
    [
        ([f"data={ROOT / 'conf'}"], "texts.txt"),
        (["encoder.att_context_style=regular"], "att_context_style is 'regular'"),
        (["encoder.subsampling_factor=4"], "frames are 40 ms long"),
        (["minutes=0"], "minutes=0.0: expected more than zero"),
        (["aligned=2"], "aligned=2.0: expected a share"),
        (["mel_masks=[1]"], "expected .bands"),
        (["mel_warp=1"], "expected a small share"),
    ],
)
def test_what_cannot_be_trained_is_refused_at_the_door(corpus, tmp_path, keys, message):
    settings = OmegaConf.to_container(load("train_encoder", [f"data={corpus}", f"out={tmp_path / 'out'}", *keys]))
    settings.pop("threads")
    with pytest.raises(InputError, match=message):
        train_encoder(EncoderTrainingConfig(**settings))
    assert not (tmp_path / "out").exists()
