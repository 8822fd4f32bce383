"""During training: after every n-th validation the model talks, freely, and one sees and hears what became of it.

<out>/validation/step-400/     whole, or not there
    dev-0-0000007.png          both channels on a time axis, and the reference (picture.py)
    dev-0-0000007.wav          user left, agent right
    numbers.json               barge-ins, latencies, false alarms, answers: of all dialogues, and of each
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import soundfile
from lhotse import CutSet
from lhotse.cut import Cut
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from matplotlib.figure import Figure

from nemo_duplex.data.datamodule import shar_folder
from nemo_duplex.evaluation.activity import voice_activity
from nemo_duplex.evaluation.answers import exact_match
from nemo_duplex.evaluation.generation import run_conversations
from nemo_duplex.evaluation.picture import conversation_figure
from nemo_duplex.evaluation.scores import Judged, judge
from nemo_duplex.evaluation.turn_taking import pool
from nemo_duplex.files.atomic import whole_folder

_LOGGED = ("success_rate", "mean_stop_latency", "false_alarm_rate", "first_response_latency", "no_response_rate")
_STEP = "step-"


class EvaluationCallback(pl.Callback):
    """A small evaluation on fixed dialogues, logged as `eval_...` beside the validation loss.

    Every rank plays the same dialogues, so that sharded models stay in step; only rank 0 draws and writes. Nothing is drawn by
    lot: what is trained is the same with and without this callback.

    Args:
        cuts: the dialogues; a dozen shows a trend, and costs seconds.
        every_n_validations: 1 evaluates after every validation.
        pictures: dialogues that are drawn and heard: the first ones.
        out: folder in which `validation/step-<n>/` is written; None writes to the loggers only.
        keep: so many of these folders are kept, the latest; 0 keeps all.
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
        records = run_conversations(pl_module, self.cuts, self.vad, batch_size=self.batch_size, device=str(pl_module.device))
        judged = [judge(record) for record in records]
        pl_module.log_dict(metrics(judged))
        if trainer.is_global_zero:
            self._show(trainer, judged)

    def _show(self, trainer: pl.Trainer, judged: Sequence[Judged]) -> None:
        step, shown = trainer.global_step, judged[: self.pictures]
        figures = [conversation_figure(j, f"{j.record.id} · step {step}") for j in shown]
        if self.folder is not None:
            with whole_folder(self.folder / f"{_STEP}{step}", replace=True) as folder:
                _write(folder, judged, figures)
            _keep_latest(self.folder, self.keep)
        for number, (j, figure) in enumerate(zip(shown, figures)):
            for logger in trainer.loggers:
                _log(logger, f"conversation/{number}", j, figure, step)


def _write(folder: Path, judged: Sequence[Judged], figures: Sequence[Figure]) -> None:
    for j, figure in zip(judged, figures):
        name = re.sub(r"[^\w.-]", "_", j.record.id).lstrip(".")
        figure.savefig(folder / f"{name}.png")
        rate = j.record.sample_rate
        soundfile.write(folder / f"{name}.wav", j.record.stereo(rate), rate)
    (folder / "numbers.json").write_text(json.dumps(numbers(judged), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _log(logger: pl.loggers.Logger, name: str, judged: Judged, figure: Figure, step: int) -> None:
    """One conversation to see and hear, for the loggers that can show it."""
    rate = judged.record.sample_rate
    heard = judged.record.stereo(rate)
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_figure(name, figure, step, close=False)
        logger.experiment.add_audio(name, heard.mean(axis=1), step, sample_rate=rate)  # it plays mono only
    elif isinstance(logger, WandbLogger):
        logger.log_image(name, [figure], step)
        logger.log_audio(f"{name}/audio", [heard], step, sample_rate=[rate])


def _keep_latest(folder: Path, keep: int) -> None:
    """Removes all but the last `keep` validations; a folder that is being removed is no longer seen."""
    steps = sorted(folder.glob(f"{_STEP}*"), key=lambda path: int(path.name.removeprefix(_STEP)))
    for old in steps[:-keep] if keep else []:
        leaving = old.with_name(f".{old.name}")
        os.replace(old, leaving)
        shutil.rmtree(leaving, ignore_errors=True)


def some_dialogues(folder: str | Path, count: int) -> list[Cut]:
    """The first `count` dialogues of a corpus' dev set, or of a Shar folder."""
    return list(itertools.islice(CutSet.from_shar(in_dir=shar_folder(folder, "dev")), count))


def metrics(judged: Sequence[Judged]) -> dict[str, float]:
    """The headline as numbers to log; what is undefined on these dialogues is left out."""
    pooled = pool([j.turn_taking for j in judged])
    found = {f"eval_{name}": pooled[name] for name in _LOGGED}
    found["eval_exact_match"] = exact_match([j.answers for j in judged])["all"].value
    return {name: float(value) for name, value in found.items() if value is not None}


def numbers(judged: Sequence[Judged]) -> dict[str, Any]:
    """What numbers.json holds: everything pooled (None where it is undefined on these dialogues), and dialogue by dialogue."""
    answered = exact_match([j.answers for j in judged])["all"]
    return {
        "turn_taking": pool([j.turn_taking for j in judged]),
        "exact_match": answered.as_dict(),
        "conversations": [j.as_dict() for j in judged],
    }
