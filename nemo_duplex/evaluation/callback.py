"""A small evaluation during training: after every n-th validation the model answers freely, with pictures, sound and numbers.

<out>/validation/step-400/     written whole or not at all
    dev-0-0000007.png          both channels on a time axis, and the reference (picture.py)
    dev-0-0000007.wav          user left, agent right
    numbers.json               barge-ins, latencies, false alarms, answers: of all dialogues, and of each
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import soundfile
import torch
from lhotse.cut import Cut
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from matplotlib.figure import Figure

from nemo_duplex.data.datamodule import shar_cuts, shar_folder
from nemo_duplex.data.datasets import datasets_of, is_mixture
from nemo_duplex.evaluation.activity import voice_activity
from nemo_duplex.evaluation.answers import exact_match
from nemo_duplex.evaluation.generation import run_conversations
from nemo_duplex.evaluation.picture import conversation_figure
from nemo_duplex.evaluation.predictions import file_name
from nemo_duplex.evaluation.scores import Scored, score
from nemo_duplex.evaluation.turn_taking import pool
from nemo_duplex.files.atomic import whole_folder

_LOGGED = ("success_rate", "mean_stop_latency", "false_alarm_rate", "first_response_latency", "no_response_rate")
_STEP = "step-"


class EvaluationCallback(pl.Callback):
    """A small evaluation on fixed dialogues, logged as `eval_...` beside the validation loss.

    Ranks that hold the whole model share the dialogues, and the numbers are those of all of them, however many ranks there are.
    Ranks that hold parts of it all play the same ones, so that they stay in step. Only rank 0 draws and writes. It draws no
    random numbers: training is the same with and without this callback.

    Args:
        cuts: the dialogues; a dozen shows a trend, and costs seconds.
        every_n_validations: 1 evaluates after every validation.
        pictures: how many dialogues get a picture and sound, the first ones.
        out: folder in which `validation/step-<n>/` is written; None writes to the loggers only.
        keep: how many of these folders are kept, the latest ones; 0 keeps all.
        batch_size, vad: as in `evaluate`.

    Examples:
        >>> callback = EvaluationCallback(some_dialogues(corpus, 2), every_n_validations=5)
        >>> len(callback.cuts)
        2
    """

    def __init__(
        self,
        cuts: Sequence[Cut],
        every_n_validations: int = 1,
        pictures: int = 3,
        out: str | Path | None = None,
        keep: int = 10,
        batch_size: int = 8,
        vad: str = "energy",
    ) -> None:
        assert every_n_validations > 0, f"every_n_validations must be positive, got {every_n_validations}"
        self.cuts, self.every_n_validations, self.pictures = list(cuts), every_n_validations, pictures
        self.folder = None if out is None else Path(out) / "validation"
        self.keep, self.batch_size, self.vad = keep, batch_size, voice_activity(vad)
        self.validations = 0

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        self.validations += 1
        if self.validations % self.every_n_validations:
            return
        shares = _shares(self.cuts, 1 if pl_module.device_mesh is not None else trainer.world_size)
        own = shares[trainer.global_rank % len(shares)]  # ranks that hold parts of one model have one share
        outcomes = run_conversations(pl_module, own, self.vad, batch_size=self.batch_size, device=str(pl_module.device))
        scored = [score(outcome) for outcome in outcomes]
        if len(shares) > 1:
            scored = _of_all_ranks(scored)
        pl_module.log_dict(logged_metrics(scored))
        if trainer.is_global_zero:
            self._show(trainer, scored)

    def _show(self, trainer: pl.Trainer, scored: Sequence[Scored]) -> None:
        step = trainer.global_step
        shown = [one for one in scored[: self.pictures] if one.outcome.agent_sound is not None]
        figures = [conversation_figure(one, f"{one.outcome.id} · step {step}") for one in shown]
        if self.folder is not None:
            with whole_folder(self.folder / f"{_STEP}{step}", replace=True) as folder:
                _write(folder, scored, figures)
            _keep_latest(self.folder, self.keep)
        for number, (one, figure) in enumerate(zip(shown, figures)):
            for logger in trainer.loggers:
                _log(logger, f"conversation/{number}", one, figure, step)


def _shares(cuts: list[Cut], ranks: int) -> list[list[Cut]]:
    """The dialogues of each rank, in order."""
    size = -(-len(cuts) // ranks)
    return [cuts[rank * size : (rank + 1) * size] for rank in range(ranks)]


def _of_all_ranks(scored: list[Scored]) -> list[Scored]:
    """The conversations of all ranks, in the order of the dialogues; those of other ranks come without their sound."""
    silent = [
        replace(one, outcome=replace(one.outcome, agent_sound=None, user_sound=None, reference_sound=None)) for one in scored
    ]
    found: list[list[Scored]] = [[] for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(found, silent)
    found[torch.distributed.get_rank()] = scored
    return [one for rows in found for one in rows]


def _write(folder: Path, scored: Sequence[Scored], figures: Sequence[Figure]) -> None:
    for one, figure in zip(scored, figures):
        name = file_name(one.outcome.id)
        figure.savefig(folder / f"{name}.png")
        rate = _rate(one)
        soundfile.write(folder / f"{name}.wav", one.outcome.stereo(rate), rate)
    (folder / "numbers.json").write_text(json.dumps(numbers(scored), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _log(logger: pl.loggers.Logger, name: str, scored: Scored, figure: Figure, step: int) -> None:
    """Picture and sound of one conversation, for the loggers that can show them."""
    rate = _rate(scored)
    audio = scored.outcome.stereo(rate)
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_figure(name, figure, step, close=False)
        logger.experiment.add_audio(name, audio.mean(axis=1), step, sample_rate=rate)  # it plays mono only
    elif isinstance(logger, WandbLogger):
        logger.log_image(name, [figure], step)
        logger.log_audio(f"{name}/audio", [audio], step, sample_rate=[rate])


def _rate(scored: Scored) -> int:
    assert scored.outcome.agent_sound is not None, "What was played to an agent has its sound."
    return scored.outcome.agent_sound.sample_rate


def _keep_latest(folder: Path, keep: int) -> None:
    """Removes all but the last `keep` validations; a folder is renamed before it is removed, so half of one is never seen."""
    steps = sorted(folder.glob(f"{_STEP}*"), key=lambda path: int(path.name.removeprefix(_STEP)))
    for old in steps[:-keep] if keep else []:
        leaving = old.with_name(f".{old.name}")
        os.replace(old, leaving)
        shutil.rmtree(leaving, ignore_errors=True)


def some_dialogues(folder: str | Path, count: int) -> list[Cut]:
    """The first `count` dialogues of a corpus' dev set, or of a Shar folder; of a mixture, of each of its datasets in turn."""
    if is_mixture(folder):
        folders = [Path(one["shar_path"]) for one in datasets_of(folder, "dev")]
    else:
        folders = [shar_folder(folder, "dev")]
    in_turn = itertools.zip_longest(*(itertools.islice(shar_cuts(one), count) for one in folders))
    return [cut for cuts in in_turn for cut in cuts if cut is not None][:count]


def logged_metrics(scored: Sequence[Scored]) -> dict[str, float]:
    """The headline as numbers to log; undefined ones are left out."""
    pooled = pool([one.turn_taking for one in scored])
    found = {f"eval_{name}": pooled[name] for name in _LOGGED}
    found["eval_exact_match"] = exact_match([one.answers for one in scored])["all"].value
    return {name: float(value) for name, value in found.items() if value is not None}


def numbers(scored: Sequence[Scored]) -> dict[str, Any]:
    """The content of numbers.json: everything pooled (None where undefined), and dialogue by dialogue."""
    answered = exact_match([one.answers for one in scored])["all"]
    return {
        "turn_taking": pool([one.turn_taking for one in scored]),
        "exact_match": answered.as_dict(),
        "conversations": [one.as_dict() for one in scored],
    }
