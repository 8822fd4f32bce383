"""examples/train_duplex.py from a corpus on disk to agent.nemo, interrupted and continued, on a model that takes seconds."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from lhotse import MonoCut, Recording
from lhotse.audio import AudioSource
from lhotse.shar import SharWriter
from omegaconf import OmegaConf

from nemo_duplex.conversation import Conversation, Turn
from tests.dummies import speech_like, tiny_config, wav_bytes

ROOT = Path(__file__).parent.parent


def recording(name, seconds, rate, seed):
    samples = speech_like(seconds, seed, rate).numpy()
    return Recording(name, [AudioSource("memory", [0], wav_bytes(samples, rate))], rate, len(samples), seconds)


def write_corpus(folder, cuts=12, seconds=3.2):
    fields = {"recording": "wav", "target_audio": "wav"}
    turns = (Turn("user", 0.2, 0.9, "What is the red of one?"), Turn("agent", 1.52, 2.8, "It is one."))
    for name in ("train", "dev"):
        shar = folder / name / "shar"
        shar.mkdir(parents=True)
        with SharWriter(str(shar), fields=fields, shard_size=None, shard_suffix=".000000") as writer:
            for i in range(cuts):
                cut = MonoCut(f"{name}-{i}", 0, seconds, 0, recording=recording(f"{name}-{i}", seconds, 16000, i))
                cut.supervisions = Conversation(cut.id, seconds, turns).to_supervisions()
                cut.target_audio = recording(f"{name}-{i}-agent", seconds, 22050, i + 1)
                writer.write(cut)
    return folder


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    """A corpus, and a configuration that builds on duplex_tiny with parts that take seconds."""
    folder = tmp_path_factory.mktemp("train")
    write_corpus(folder / "corpus")
    tiny = OmegaConf.to_container(tiny_config(folder))
    del tiny["optim"], tiny["loss"]
    tiny["perception"]["adapter"]["hidden"] = 16
    config = {
        "defaults": ["duplex_tiny", "_self_"],
        "minutes": 5,
        "threads": 1,
        "data": {"train_loader": {"batch_size": 4, "num_workers": 0}, "validation_loader": {"batch_size": 4}},
        "model": tiny,
        "trainer": {"precision": 32, "val_check_interval": 4, "log_every_n_steps": 1},
    }
    (folder / "conf").mkdir()
    (folder / "conf" / "tiny.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(config)))
    return folder


def command(setup, out, *keys):
    return [
        *(sys.executable, str(ROOT / "examples/train_duplex.py"), f"--config-dir={setup / 'conf'}", "--config-name=tiny"),
        *(f"out={out}", f"data.train={setup / 'corpus'}", f"data.validation={setup / 'corpus'}", *keys),
    ]


def run(arguments):
    return subprocess.run(arguments, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_trains_writes_and_goes_on_for_more_steps(setup, tmp_path):
    out = tmp_path / "run"
    for steps in (5, 8):  # that a kill changes nothing is shown by test_resume.py
        done = run(command(setup, out, f"trainer.max_steps={steps}", "checkpoint.every_n_steps=2"))
        assert done.returncode == 0, done.stderr
        assert f"agent.nemo: {steps} steps" in done.stdout
        assert [p.name for p in out.glob("experiment/checkpoints/*")] == [f"step={steps}.ckpt"]
    assert list(out.glob("experiment/events.out.tfevents*")), "TensorBoard has nothing to show."

    from nemo_duplex import DuplexS2SModel

    model = DuplexS2SModel.restore_from(str(out / "agent.nemo"), map_location="cpu")
    answer = model.offline_inference(speech_like(1)[None], torch.tensor([16000]))
    assert np.isfinite(answer["audio"].numpy()).all()


WRONG = {
    "no data": (["data.train=nowhere"], "there is no folder nowhere"),
    "no shards": ([f"data.train={ROOT / 'conf'}"], "holds no Lhotse Shar"),
    "unknown key": (["model.speech_delai=1"], "model.speech_delay"),
    "no encoder": (["model.pretrained_asr=missing.nemo"], "missing.nemo"),
}


@pytest.mark.parametrize("keys, message", WRONG.values(), ids=WRONG)
def test_wrong_input_is_one_line(setup, tmp_path, keys, message):
    done = run(command(setup, tmp_path / "run", *keys))
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "agent.nemo").exists()
