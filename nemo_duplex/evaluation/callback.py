"""During training: after every n-th validation the model talks, freely, and TensorBoard shows and plays what became of it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import lightning.pytorch as pl
from lhotse import CutSet
from lhotse.cut import Cut
from lightning.pytorch.loggers import TensorBoardLogger

from nemo_duplex.data.datamodule import shar_folder
from nemo_duplex.evaluation.activity import voice_activity
from nemo_duplex.evaluation.answers import exact_match
from nemo_duplex.evaluation.generation import perform
from nemo_duplex.evaluation.picture import conversation_figure
from nemo_duplex.evaluation.scores import Judged, judge
from nemo_duplex.evaluation.turn_taking import pool

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_LOGGED = ("success_rate", "mean_stop_latency", "false_alarm_rate", "first_response_latency", "no_response_rate")


class EvaluationCallback(pl.Callback):
    """A small evaluation on fixed dialogues, logged as `eval_...` beside the validation loss.

    Every rank plays the same dialogues, so that sharded models stay in step; only rank 0 draws.

    Args:
        cuts: the dialogues; a dozen shows a trend, and costs seconds.
        every_n_validations: 1 evaluates after every validation.
        pictures: dialogues that are drawn and heard.
        batch_size, vad: as in `evaluate`.
    """

    def __init__(
        self, cuts: Sequence[Cut], every_n_validations: int = 1, pictures: int = 2, batch_size: int = 8, vad: str = "energy"
    ) -> None:
        assert every_n_validations > 0, f"every_n_validations must be positive, got {every_n_validations}"
        self.cuts, self.every_n_validations, self.pictures = list(cuts), every_n_validations, pictures
        self.batch_size, self.vad = batch_size, voice_activity(vad)
        self.validations = 0

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        self.validations += 1
        if self.validations % self.every_n_validations:
            return
        records = perform(pl_module, self.cuts, self.vad, batch_size=self.batch_size, device=str(pl_module.device))
        judged = [judge(record) for record in records]
        pl_module.log_dict(metrics(judged))
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    self._show(logger.experiment, judged[: self.pictures], trainer.global_step)

    def _show(self, writer: SummaryWriter, judged: Sequence[Judged], step: int) -> None:
        for number, j in enumerate(judged):
            rate = j.record.sample_rate
            writer.add_figure(f"conversation/{number}", conversation_figure(j), step)
            writer.add_audio(f"conversation/{number}", j.record.stereo(rate).mean(axis=1), step, sample_rate=rate)


def some_dialogues(folder: str | Path, count: int) -> list[Cut]:
    """The first `count` dialogues of a corpus' dev set, or of a Shar folder."""
    return list(itertools.islice(CutSet.from_shar(in_dir=shar_folder(folder, "dev")), count))


def metrics(judged: Sequence[Judged]) -> dict[str, float]:
    """The headline as numbers to log; what is undefined on these dialogues is left out."""
    pooled = pool([j.turn_taking for j in judged])
    found = {f"eval_{name}": pooled[name] for name in _LOGGED}
    found["eval_exact_match"] = exact_match([j.answers for j in judged])["all"].value
    return {name: float(value) for name, value in found.items() if value is not None}
