"""What a validation leaves behind: numbers, pictures and sound, in the loggers and in a folder of its own."""

import json
import random
from types import SimpleNamespace

import lightning.pytorch as pl
import numpy as np
import pytest
import soundfile
import torch
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from matplotlib.image import imread
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nemo_duplex.evaluation.activity import SileroVad, energy_vad
from nemo_duplex.evaluation.callback import EvaluationCallback, logged_metrics, some_dialogues
from nemo_duplex.evaluation.generation import run_conversations
from nemo_duplex.evaluation.picture import conversation_figure
from nemo_duplex.evaluation.scores import score
from nemo_duplex.inputs import InputError
from tests.evaluation.agents import Oracle, Talker, write_set


class TrainedOracle(pl.LightningModule):
    """Something that Lightning can train and that talks like an oracle."""

    def __init__(self, cuts):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.oracle = Oracle(cuts)
        for name in ("layout", "tokenizer", "user_sample_rate", "agent_sample_rate", "offline_inference"):
            setattr(self, name, getattr(self.oracle, name))

    def training_step(self, batch, batch_idx):
        return (self.weight - 1).square().sum()

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.weight.sum())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(cuts, callback, epochs=2, logger=False):
    """`epochs` of two steps and a validation each."""
    loader = torch.utils.data.DataLoader(torch.zeros(2, 1), num_workers=0)
    options = {"accelerator": "cpu", "max_epochs": epochs, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(logger=logger, callbacks=[callback], enable_checkpointing=False, **options)
    trainer.fit(TrainedOracle(cuts), loader, loader)
    return trainer


@pytest.mark.parametrize(("every", "times"), [(1, [2, 4]), (2, [4])])
def test_metrics_pictures_and_sound_reach_tensorboard(every, times, cuts, tmp_path):
    callback = EvaluationCallback(cuts, every_n_validations=every, pictures=1)
    trainer = fit(cuts, callback, logger=TensorBoardLogger(str(tmp_path), name="", version=""))
    assert trainer.callback_metrics["eval_success_rate"] == 1
    seen = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0, "images": 0, "audio": 0}).Reload()
    assert [e.value for e in seen.Scalars("eval_exact_match")] == [1.0] * len(times)
    assert [e.step for e in seen.Images("conversation/0")] == times
    assert [e.step for e in seen.Audio("conversation/0")] == times
    sound = seen.Audio("conversation/0")[0]
    assert (sound.sample_rate, sound.length_frames) == (22050, 16 * 22050)
    assert not seen.Tags()["images"][1:], "one picture was asked for"


def test_every_validation_has_a_folder_of_pictures_sound_and_numbers(cuts, tmp_path):
    fit(cuts, EvaluationCallback(cuts, pictures=2, out=tmp_path))
    assert sorted(p.name for p in (tmp_path / "validation").iterdir()) == ["step-2", "step-4"]
    folder = tmp_path / "validation" / "step-2"
    assert sorted(p.name for p in folder.iterdir()) == ["d0.png", "d0.wav", "d1.png", "d1.wav", "numbers.json"]
    assert imread(folder / "d0.png").shape[1] > 900
    found = json.loads((folder / "numbers.json").read_text())
    assert found["turn_taking"]["success_rate"] == 1 and found["turn_taking"]["n_barge_in"] == len(cuts)
    assert 0.5 < found["turn_taking"]["mean_stop_latency"] < 0.7 and found["exact_match"]["value"] == 1
    assert [c["id"] for c in found["conversations"]] == ["d0", "d1", "d2"], "numbers are of all dialogues"


def test_the_user_is_left_and_the_agent_right(cuts, tmp_path):
    fit(cuts, EvaluationCallback(cuts, pictures=1, out=tmp_path), epochs=1)
    heard, rate = soundfile.read(tmp_path / "validation" / "step-2" / "d0.wav")
    assert heard.shape == (round(cuts[0].duration * rate), 2)
    user, agent = (np.abs(heard[round(a * rate) : round(b * rate)]).mean(axis=0) for a, b in ((1.0, 2.5), (3.2, 4.9)))
    assert user[0] > 50 * user[1] and agent[1] > 50 * agent[0]


def test_the_last_validations_are_kept(cuts, tmp_path):
    fit(cuts, EvaluationCallback(cuts, pictures=0, out=tmp_path, keep=2), epochs=6)
    assert sorted(p.name for p in (tmp_path / "validation").iterdir()) == ["step-10", "step-12"], "10 comes after 8"


def test_all_validations_are_kept_by_0(cuts, tmp_path):
    fit(cuts, EvaluationCallback(cuts, pictures=0, out=tmp_path, keep=0), epochs=3)
    assert sorted(p.name for p in (tmp_path / "validation").iterdir()) == ["step-2", "step-4", "step-6"]


def test_a_sanity_check_is_no_validation_and_other_ranks_write_nothing(cuts, tmp_path):
    """Two ranks and a sanity check, as the callback sees them: all play, so that sharded models stay in step."""
    played, logged = [], []
    module = TrainedOracle(cuts)
    inference = module.offline_inference
    module.offline_inference = lambda *args: played.append(1) or inference(*args)
    module.log_dict = lambda values: logged.append(values)
    callback = EvaluationCallback(cuts, pictures=1, out=tmp_path)
    module._device_mesh = "of two ranks"
    about = {"sanity_checking": True, "is_global_zero": True, "global_step": 7, "loggers": []}
    trainer = SimpleNamespace(**about, world_size=2, global_rank=1)
    callback.on_validation_epoch_end(trainer, module)
    assert not played and not logged
    trainer.sanity_checking, trainer.is_global_zero = False, False
    callback.on_validation_epoch_end(trainer, module)
    assert len(played) == 1 and logged[0]["eval_success_rate"] == 1 and not (tmp_path / "validation").exists()
    trainer.is_global_zero = True
    callback.on_validation_epoch_end(trainer, module)
    assert [p.name for p in (tmp_path / "validation").iterdir()] == ["step-7"]


def test_every_second_validation_begins_with_the_second(cuts, tmp_path):
    fit(cuts, EvaluationCallback(cuts, every_n_validations=2, pictures=0, out=tmp_path, keep=0), epochs=5)
    assert sorted(p.name for p in (tmp_path / "validation").iterdir()) == ["step-4", "step-8"]


def test_zero_is_logged_and_undefined_is_not(cuts):
    """Of an agent that never stops every barge-in fails, so that there is no latency of a stop."""
    found = logged_metrics([score(outcome) for outcome in run_conversations(Talker(), cuts, energy_vad)])
    assert found == {
        "eval_success_rate": 0.0,
        "eval_false_alarm_rate": 0.0,
        "eval_no_response_rate": 1.0,
        "eval_exact_match": 0.0,
    }


def test_every_picture_has_the_id_of_its_own_dialogue(cuts, monkeypatch):
    titles = []
    monkeypatch.setattr(
        "nemo_duplex.evaluation.callback.conversation_figure",
        lambda scored, title: titles.append((scored.outcome.id, title)) or conversation_figure(scored, title),
    )
    fit(cuts, EvaluationCallback(cuts, pictures=2), epochs=1)
    assert titles == [("d0", "d0 · step 2"), ("d1", "d1 · step 2")]


def test_the_named_detector_is_used(cuts):
    assert isinstance(EvaluationCallback(cuts, vad="silero").vad, SileroVad)
    with pytest.raises(InputError, match="vad=ears"):
        EvaluationCallback(cuts, vad="ears")


def test_the_dialogues_are_the_first_of_the_dev_set(cuts, tmp_path):
    write_set(tmp_path / "dev" / "shar", cuts)
    write_set(tmp_path / "train" / "shar", cuts[::-1])
    assert [cut.id for cut in some_dialogues(tmp_path, 2)] == ["d0", "d1"]


def test_of_a_mixture_they_come_from_its_datasets_in_turn(cuts, tmp_path):
    for name, some in (("long", cuts), ("short", [cuts[0].with_id("s0")]), ("no dev", [])):
        if some:
            write_set(tmp_path / name / "dev" / "shar", some)
    summary = {"datasets": {name: {"hours": 0.0} for name in ("long", "short", "no dev")}}
    (tmp_path / "mixture.json").write_text(json.dumps(summary))
    assert [cut.id for cut in some_dialogues(tmp_path, 3)] == ["d0", "s0", "d1"]
    assert [cut.id for cut in some_dialogues(tmp_path, 1)] == ["d0"]


def test_what_is_written_is_whole_or_not_there(cuts, tmp_path, monkeypatch):
    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(soundfile, "write", full_disk)
    with pytest.raises(OSError, match="No space"):
        fit(cuts, EvaluationCallback(cuts, out=tmp_path), epochs=1)
    assert list((tmp_path / "validation").iterdir()) == []


def test_an_id_from_a_corpus_names_no_other_folder(cuts, tmp_path):
    elsewhere = cuts[0].with_id("../../../away/d 0")
    fit([elsewhere], EvaluationCallback([elsewhere], out=tmp_path), epochs=1)
    names = {p.name for p in (tmp_path / "validation" / "step-2").iterdir()}
    assert names == {"_.._.._away_d_0.png", "_.._.._away_d_0.wav", "numbers.json"}


def test_training_draws_the_same_with_and_without_it(cuts, tmp_path):
    def drawn_after(callback):
        pl.seed_everything(7, verbose=False)
        fit(cuts, callback, epochs=1)
        return random.random(), np.random.rand(), torch.rand(1).item()

    assert drawn_after(EvaluationCallback(cuts, out=tmp_path)) == drawn_after(pl.Callback())


class OfflineWandb(WandbLogger):
    """Weights & Biases as far as the callback knows it; opens no run and no connection."""

    def __init__(self):
        self.shown = []

    save_dir = name = version = None

    def log_metrics(self, metrics, step=None):
        pass

    def log_hyperparams(self, params):
        pass

    def log_graph(self, model):
        pass

    def save(self):
        pass

    def finalize(self, status):
        pass

    def log_image(self, key, images, step=None, **kwargs):
        self.shown.append((key, len(images), step))

    def log_audio(self, key, audios, step=None, **kwargs):
        assert audios[0].shape[1] == 2 and kwargs["sample_rate"] == [22050]
        self.shown.append((key, len(audios), step))


def test_weights_and_biases_sees_and_hears_too(cuts):
    logger = OfflineWandb()
    fit(cuts, EvaluationCallback(cuts, pictures=1), epochs=1, logger=logger)
    assert logger.shown == [("conversation/0", 1, 2), ("conversation/0/audio", 1, 2)]


def validate(rank, ranks, cuts, folder):
    """One of several processes that train the same model."""
    torch.distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=ranks)
    model = TrainedOracle(cuts)
    model.log_dict = lambda found: (folder / f"logged-{rank}.json").write_text(json.dumps(found))
    about = {"global_rank": rank, "world_size": ranks, "global_step": 7, "is_global_zero": rank == 0, "loggers": []}
    trainer = SimpleNamespace(**about, sanity_checking=False)
    EvaluationCallback(cuts, pictures=2, out=folder).on_validation_epoch_end(trainer, model)


@pytest.mark.slow
def test_two_ranks_share_the_dialogues_and_find_the_numbers_of_one(cuts, tmp_path):
    """Three dialogues on two ranks: two and one."""
    found = {}
    for ranks in (1, 2):
        (tmp_path / str(ranks)).mkdir()
        given = (ranks, cuts, tmp_path / str(ranks))
        torch.multiprocessing.start_processes(validate, given, nprocs=ranks, start_method="fork")
        found[ranks] = json.loads((tmp_path / str(ranks) / "validation" / "step-7" / "numbers.json").read_text())
    assert found[1] == found[2] and [one["id"] for one in found[2]["conversations"]] == ["d0", "d1", "d2"]
    logged = [json.loads((tmp_path / "2" / f"logged-{rank}.json").read_text()) for rank in (0, 1)]
    assert logged[0] == logged[1] == json.loads((tmp_path / "1" / "logged-0.json").read_text())
    assert logged[0]["eval_exact_match"] == 1
    shown = {path.name for path in (tmp_path / "2" / "validation" / "step-7").iterdir()}
    assert shown == {"numbers.json", "d0.png", "d0.wav", "d1.png", "d1.wav"}
