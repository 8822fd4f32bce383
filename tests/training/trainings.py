"""Trainings of a model that takes seconds: a corpus, a configuration, and examples/train_duplex.py in processes of its own.

A fork server has the imports ready for all of them.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
from pathlib import Path

import torch
from lhotse import MonoCut, Recording
from lhotse.audio import AudioSource
from lhotse.shar import SharWriter
from omegaconf import OmegaConf

from nemo_duplex.conversation import Conversation, Turn
from tests.dummies import speech_like, tiny_config, wav_bytes

ROOT = Path(__file__).parents[2]


def recording(name: str, seconds: float, rate: int, seed: int) -> Recording:
    samples = speech_like(seconds, seed, rate).numpy()
    return Recording(name, [AudioSource("memory", [0], wav_bytes(samples, rate))], rate, len(samples), seconds)


def write_corpus(folder: Path, cuts: int = 10, seconds: float = 3.2) -> Path:
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


def write_setup(folder: Path, steps: int, every: int) -> Path:
    """A corpus, and conf/tiny.yaml, in which dropout and the silent frames of the loss draw random numbers at every step."""
    write_corpus(folder / "corpus")
    tiny = OmegaConf.to_container(tiny_config(folder))
    del tiny["optim"], tiny["loss"]
    tiny["perception"]["adapter"]["hidden"] = 16
    tiny["perception"]["encoder"]["dropout"] = 0.2
    config = {
        "defaults": ["duplex_tiny", "_self_"],
        "minutes": None,
        "threads": 1,
        "listen": 1,
        "checkpoint": {"every_n_steps": every},
        "data": {
            "train_loader": {"batch_size": 3, "shuffle_buffer_size": 5, "num_workers": 0},
            "validation_loader": {"batch_size": 4},
        },
        "model": {**tiny, "loss": {"silence": 0.5}},
        "trainer": {"max_steps": steps, "precision": 32, "val_check_interval": 4, "log_every_n_steps": 1},
    }
    (folder / "conf").mkdir()
    (folder / "conf" / "tiny.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(config)))
    return folder


def arguments(setup: Path, out: Path, *keys: str) -> list[str]:
    """Of examples/train_duplex.py."""
    corpus = setup / "corpus"
    config = [f"--config-dir={setup / 'conf'}", "--config-name=tiny"]
    return [*config, f"out={out}", f"data.train={corpus}", f"data.validation={corpus}", *keys]


def train_duplex():
    """examples/train_duplex.py as a module."""
    spec = importlib.util.spec_from_file_location("train_duplex", ROOT / "examples/train_duplex.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def train(words, log, sabotage, *details):
    """Runs in a process of its own: the script, once something was done to it that will bring it down."""
    with open(log, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    if sabotage:
        sabotage(*details)
    train_duplex().main(words)


class Trainings:
    """Starts trainings; the same keys and folder are the same command."""

    def __init__(self, setup: Path, preload: str) -> None:
        self.setup = setup
        self.context = multiprocessing.get_context("forkserver")
        modules = ["nemo_duplex.training.trainer", "nemo_duplex.models.duplex_s2s", "nemo_duplex.evaluation.callback"]
        self.context.set_forkserver_preload([*modules, preload])

    def __call__(self, out: Path, *keys: str, sabotage=None, details=()) -> tuple[int, str]:
        """(exit code, what it said)"""
        log = self.setup / "log.txt"
        words = arguments(self.setup, out, *keys)
        process = self.context.Process(target=train, args=(words, str(log), sabotage, *details))
        process.start()
        process.join(300)  # a machine that does other things too
        assert not process.is_alive(), f"A training hangs: {log.read_text()}"
        return process.exitcode, log.read_text()
