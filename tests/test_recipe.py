"""conf/duplex_paper.yaml against the paper, number by number, and the ablations of which it speaks."""

import os
import re
import stat
import subprocess
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from nemo_duplex.models.duplex_s2s import DuplexS2SModel
from nemo_duplex.scripts.config import load
from tests.dummies import tiny_config

ROOT = Path(__file__).parent.parent
SBATCH = ROOT / "examples/slurm/train_duplex.sbatch"


@pytest.fixture(scope="module")
def paper():
    return load("duplex_paper", ["out=run", "data.root=corpora"])


def test_the_parts(paper):
    """Sections 3 and 5.1."""
    assert paper.model.pretrained_llm == "TinyLlama/TinyLlama-1.1B-Chat-v1.0"
    assert paper.model.pretrained_asr == "stt_en_fastconformer_hybrid_large_streaming_80ms"
    assert paper.model.perception.att_context_size == [70, 1], "80 ms of right context"
    assert paper.model.pretrained_audio_codec == "nvidia/nemo-nano-codec-22khz-0.6kbps-12.5fps"
    assert paper.model.freeze_params == [] and paper.model.lora is None, "encoder and language model are fine-tuned"


def test_the_channels_and_their_losses(paper):
    """Sections 3.1 and 5.1: turn-level alignment, one token of delay, text : speech = 3 : 1, every frame counting the same."""
    model = paper.model
    assert (model.text_alignment, model.speech_delay, model.turn_marks) == ("turn", 1, "beside")
    loss = {key: value for key, value in model.loss.items() if key not in ("chunk", "experts")}
    assert loss == {"text": 3.0, "speech": 1.0, "text_pad": 1.0, "turn": 0.0, "silence": 1.0}


def test_the_training(paper):
    """Section 5.1: 32 GPUs, 1000 s each, clipping at 1.0; FusedAdam, inverse square root, 3e-4, 2500 steps of warm-up."""
    assert paper.trainer.num_nodes * paper.trainer.devices == 32 and paper.trainer.accelerator == "gpu"
    assert paper.data.train_loader.batch_duration == 1000 and paper.data.train_loader.batch_size is None
    assert paper.data.train_loader.use_bucketing and paper.trainer.accumulate_grad_batches == 1
    assert paper.trainer.gradient_clip_val == 1.0 and "bf16" in paper.trainer.precision
    optim = paper.model.optim
    assert (optim.name, optim.lr) == ("fused_adam", 3e-4)
    assert (optim.sched.name, optim.sched.warmup_steps) == ("InverseSquareRootAnnealing", 2500)


def test_the_data(paper):
    """Table 1: six data sets, weighted by their hours."""
    sets = {Path(source.shar_path).parts[1]: source.weight for source in paper.data.train_loader.input_cfg}
    table = {"asr_qa": 20000, "ms_marco": 200, "alpaca": 200, "internal_sft": 3000, "ultrachat": 3000, "topic": 300}
    assert sets == table and sum(sets.values()) == 26700
    assert all(source.shar_path.startswith("corpora/") for source in paper.data.train_loader.input_cfg)


def test_the_learning_rate(paper, tmp_path):
    """Its own optimiser and schedule: 3.0e-4 at step 2500, 1.5e-4 at step 10,000."""
    optim = OmegaConf.create(OmegaConf.to_container(paper.model.optim))
    optim.sched.max_steps = paper.trainer.max_steps
    model = DuplexS2SModel(tiny_config(tmp_path))
    optimizer, schedule = model.setup_optimization(optim)
    rates = {}
    for step in range(10_001):
        rates[step] = optimizer.param_groups[0]["lr"]
        optimizer.step()
        schedule["scheduler"].step()
    assert isinstance(optimizer, torch.optim.AdamW), "FusedAdam's algorithm, without apex and CUDA"
    assert rates[0] < 2e-7 and rates[1250] == pytest.approx(1.5e-4, rel=1e-3)
    assert rates[2500] == pytest.approx(3.0e-4, rel=1e-6) == max(rates.values())
    assert rates[10_000] == pytest.approx(1.5e-4, rel=1e-3)


def test_every_key_of_the_model_is_one_that_it_has(paper, tmp_path):
    """What the recipe says of the model builds one, with parts that a test can afford."""
    own = ("pretrained_llm", "pretrained_asr", "pretrained_audio_codec", "perception", "codec", "llm", "tokenizer")
    said = {key: value for key, value in paper.model.items() if key not in own}
    model = DuplexS2SModel(tiny_config(tmp_path, **said))
    assert model.layout.speech_vocab_size == model.layout.codebook_size + 5
    assert model.lm.backbone.llm.is_gradient_checkpointing


def ablations():
    """The commands in the comment at the head of the recipe."""
    head = (ROOT / "conf/duplex_paper.yaml").read_text().split("\nout:")[0]
    found = re.findall(r"^#   (model\.\S+)  +(.+)$", head, re.MULTILINE)
    assert len(found) == 7, found
    return found


@pytest.mark.parametrize("key, what", ablations())
def test_an_ablation_is_one_key(key, what):
    changed = load("duplex_paper", ["out=run", "data.root=corpora", key]).model
    recipe = load("duplex_paper", ["out=run", "data.root=corpora"]).model
    differing = [name for name in recipe if changed[name] != recipe[name]]
    assert differing == [key.removeprefix("model.").split("=")[0].split(".")[0]], what


@pytest.mark.parametrize(
    "pattern, frozen, trained",
    [
        ("^perception.encoder", "perception.encoder", "perception.modality_adapter"),
        ("^llm", "lm.backbone.llm", "lm.speech_head"),
        ("^perception", "perception", "lm.backbone.llm"),
    ],
)
def test_what_an_ablation_freezes(tmp_path, pattern, frozen, trained):
    model = DuplexS2SModel(tiny_config(tmp_path, freeze_params=[pattern]))
    assert not any(p.requires_grad for p in model.get_submodule(frozen).parameters())
    assert all(p.requires_grad for p in model.get_submodule(trained).parameters())


def test_the_slurm_script_asks_for_the_papers_machines(paper):
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?$", SBATCH.read_text(), re.MULTILINE))
    assert int(asked["nodes"]) == paper.trainer.num_nodes
    assert int(asked["gpus-per-node"]) == int(asked["ntasks-per-node"]) == paper.trainer.devices
    assert "requeue" in asked and asked["signal"].startswith("SIGUSR1@"), "Lightning saves and queues again on SIGUSR1"


def test_the_slurm_script_starts_the_training(tmp_path):
    srun = tmp_path / "srun"
    srun.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    srun.chmod(srun.stat().st_mode | stat.S_IEXEC)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "DATA": "/corpora", "OUT": "/runs/paper"}
    said = subprocess.run(["bash", SBATCH, "seed=1"], env=environment, capture_output=True, text=True, check=True, cwd=ROOT)
    words = said.stdout.split("\n")
    assert "examples/train_duplex.py" in words and "--config-name=duplex_paper" in words and "seed=1" in words
    overrides = [word for word in words if "=" in word and not word.startswith("--")]
    assert load("duplex_paper", overrides).data.train_loader.input_cfg[0].shar_path == "/corpora/asr_qa/train/shar"
    lacking = subprocess.run(["bash", SBATCH], env={**environment, "DATA": ""}, capture_output=True, text=True, cwd=ROOT)
    assert lacking.returncode != 0 and "Set DATA" in lacking.stderr
