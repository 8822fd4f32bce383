"""Nothing is lost on a kill: examples/train_duplex.py, killed anywhere and started again, ends as if nothing had happened.

The trainings are processes of their own, which SIGKILL themselves.
"""

import io
import os
import random
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from nemo_duplex.training.checkpoints import newest_checkpoint
from tests.dummies import speech_like
from tests.training.trainings import Trainings, write_setup

STEPS, EVERY = 13, 3


# ---------------------------------------------------------------- what brings a training down


def kill_in_step(step):
    """SIGKILL between forward and optimizer step."""
    from nemo_duplex.models.duplex_s2s import DuplexS2SModel

    def on_after_backward(model):
        if model.trainer.global_step == step:
            os.kill(os.getpid(), signal.SIGKILL)

    DuplexS2SModel.on_after_backward = on_after_backward


def kill_in_validation(step):
    from nemo_duplex.models.duplex_s2s import DuplexS2SModel

    def on_validation_epoch_start(model):
        if model.trainer.global_step >= step:
            os.kill(os.getpid(), signal.SIGKILL)

    DuplexS2SModel.on_validation_epoch_start = on_validation_epoch_start


def kill_in_write(step):
    """SIGKILL when half of a checkpoint is on disk."""
    spoil_write(step, lambda: os.kill(os.getpid(), signal.SIGKILL))


def fill_disk(step):
    def full():
        raise OSError(28, "No space left on device")

    spoil_write(step, full)


def spoil_write(step, end):
    from nemo_duplex.training.checkpoints import StraightCheckpointIO

    write = StraightCheckpointIO.save_checkpoint

    def save_checkpoint(self, checkpoint, path, storage_options=None):
        if checkpoint["global_step"] < step:
            return write(self, checkpoint, path, storage_options)
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        Path(path).write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
        end()

    StraightCheckpointIO.save_checkpoint = save_checkpoint


def spoil_loss(step, value):
    from nemo_duplex.models.duplex_s2s import DuplexS2SModel

    training_step = DuplexS2SModel.training_step

    def spoilt(self, batch, batch_idx):
        output = training_step(self, batch, batch_idx)
        if self.trainer.global_step != step:
            return output
        return {"loss": output["loss"] * value} if isinstance(output, dict) else output * value

    DuplexS2SModel.training_step = spoilt


# ---------------------------------------------------------------- trainings and what they leave


@pytest.fixture(scope="module")
def trainings(tmp_path_factory):
    return Trainings(write_setup(tmp_path_factory.mktemp("resume"), STEPS, EVERY), preload="tests.training.test_resume")


@pytest.fixture(scope="module")
def whole(trainings, tmp_path_factory):
    """A training that nobody disturbs."""
    out = tmp_path_factory.mktemp("whole")
    code, said = trainings(out)
    assert code == 0, said
    assert f"agent.nemo: {STEPS} steps" in said
    return out


def curve(out):
    """{step: loss} from TensorBoard; a step that was done twice must have given the same."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    losses = {}
    for file in out.glob("experiment/events.out.tfevents*"):
        events = EventAccumulator(str(file)).Reload()
        for event in events.Scalars("train/loss") if "train/loss" in events.Tags()["scalars"] else ():
            assert losses.setdefault(event.step, event.value) == event.value, f"step {event.step} differs in {file}"
    return losses


def checkpoint(out):
    (path,) = out.glob("experiment/checkpoints/*.ckpt")
    return torch.load(path, weights_only=False)


def reached(out):
    """The step from which a training would go on."""
    found = newest_checkpoint(out / "experiment" / "checkpoints")
    return torch.load(found, weights_only=False)["global_step"] if found else 0


def assert_same_end(out, expected):
    assert curve(out) == curve(expected)
    found, wanted = checkpoint(out), checkpoint(expected)
    assert found["global_step"] == wanted["global_step"] == STEPS
    assert found["state_dict"].keys() == wanted["state_dict"].keys()
    assert all(torch.equal(found["state_dict"][name], value) for name, value in wanted["state_dict"].items())
    states = [c["optimizer_states"][0]["state"] for c in (found, wanted)]
    assert all(torch.equal(states[0][i]["exp_avg_sq"], state["exp_avg_sq"]) for i, state in states[1].items())


# ---------------------------------------------------------------- tests


def errors(said):
    return [line.partition("error: ")[2] for line in said.splitlines() if "error: " in line]


@pytest.mark.slow
def test_it_trains_logs_and_writes_an_agent(whole):
    from nemo_duplex import DuplexS2SModel

    losses = curve(whole)
    assert sorted(losses) == list(range(1, STEPS + 1)) and len(set(losses.values())) == STEPS
    assert [p.name for p in (whole / "experiment/checkpoints").iterdir()] == [f"step={STEPS}.ckpt"]
    model = DuplexS2SModel.restore_from(str(whole / "agent.nemo"), map_location="cpu")
    trained = checkpoint(whole)["state_dict"]
    assert all(torch.equal(value, trained[name]) for name, value in model.state_dict().items() if name in trained)
    answer = model.offline_inference(speech_like(1)[None], torch.tensor([16000]))
    assert np.isfinite(answer["audio"].numpy()).all()


COMPOSED = "duration: 4.0, agent_voice: espeak, user_voices: {train: {espeak: 1}}"
VARIANTS = {
    "accumulated, and logged over checkpoints": (["trainer.accumulate_grad_batches=2", "trainer.log_every_n_steps=2"], 2, 2),
    "a worker": (["data.train_loader.num_workers=1"], 1, 1),
    "composed by a worker": (["data.train=null", f"data.compose={{{COMPOSED}}}", "data.train_loader.num_workers=1"], 1, 1),
}


@pytest.mark.slow
@pytest.mark.parametrize("keys, apart, kills", VARIANTS.values(), ids=VARIANTS)
def test_killed_at_random_steps_it_ends_the_same(trainings, tmp_path, keys, apart, kills):
    seed = random.SystemRandom().randrange(10_000)
    print(f"seed of the kills: {seed}")
    chance = random.Random(seed)
    code, said = trainings(tmp_path / "whole", *keys)
    assert code == 0, said
    losses = curve(tmp_path / "whole")
    assert sorted(losses) == list(range(apart, STEPS + 1, apart)) and len(set(losses.values())) == len(losses)

    for step in sorted(chance.sample(range(1, STEPS), kills)):
        sabotage = chance.choice([kill_in_step, kill_in_validation, kill_in_write])
        step = max(step, reached(tmp_path / "killed"))  # the one before may have been killed later than it was asked to be
        print(f"{sabotage.__name__} {step}")
        code, said = trainings(tmp_path / "killed", *keys, sabotage=sabotage, details=(step,))
        assert code == -signal.SIGKILL or sabotage is not kill_in_step or step == STEPS, said
    code, said = trainings(tmp_path / "killed", *keys)
    assert code == 0, said
    assert_same_end(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.slow
def test_half_a_checkpoint_is_never_picked_up(trainings, whole, tmp_path):
    code, said = trainings(tmp_path, sabotage=kill_in_write, details=(2 * EVERY,))
    assert code == -signal.SIGKILL, said
    left = sorted(p.name for p in (tmp_path / "experiment/checkpoints").iterdir())
    assert left == [f".part-step={2 * EVERY}.ckpt", f"step={EVERY}.ckpt"]
    code, said = trainings(tmp_path)
    assert code == 0, said
    assert_same_end(tmp_path, whole)
    assert [p.name for p in (tmp_path / "experiment/checkpoints").iterdir()] == [f"step={STEPS}.ckpt"]


@pytest.mark.slow
def test_a_full_disk_and_a_divergence_are_one_line_and_leave_the_checkpoint(trainings, whole, tmp_path):
    code, said = trainings(tmp_path, sabotage=fill_disk, details=(2 * EVERY,))
    assert code == 2 and "Traceback" not in said
    (line,) = errors(said)
    assert line.startswith(f"no space left on the disk of {tmp_path}/experiment/checkpoints")
    assert [p.name for p in (tmp_path / "experiment/checkpoints").iterdir()] == [f"step={EVERY}.ckpt"]
    code, said = trainings(tmp_path, sabotage=spoil_loss, details=(7, float("nan")))
    assert code == 2 and "Traceback" not in said
    (line,) = errors(said)
    assert "the loss of step 8 is not finite; cuts train-" in line
    assert checkpoint(tmp_path)["global_step"] == 6
    code, said = trainings(tmp_path)
    assert code == 0, said
    assert_same_end(tmp_path, whole)


@pytest.mark.slow
def test_other_data_are_refused_and_moved_ones_are_not(trainings, whole, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    code, said = trainings(out, "data.train_loader.batch_size=4", f"trainer.max_steps={STEPS + 1}")
    assert code == 2 and "Traceback" not in said
    assert "batch_size was 3, is 4" in errors(said)[0]

    shutil.copytree(trainings.setup / "corpus", tmp_path / "corpus")
    more = (f"data.train={tmp_path / 'corpus'}", f"trainer.max_steps={STEPS + 1}")
    code, said = trainings(out, *more)
    assert code == 0, f"The data were only moved: {said}"
    assert [p.name for p in out.glob("experiment/checkpoints/*")] == [f"step={STEPS + 1}.ckpt"]
    shutil.copy(tmp_path / "corpus/train/shar/cuts.000000.jsonl.gz", tmp_path / "corpus/train/shar/cuts.000001.jsonl.gz")
    code, said = trainings(out, *more)
    assert code == 2 and "shar_path was" in errors(said)[0]
