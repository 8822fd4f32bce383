import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nemo_duplex.evaluation.callback import EvaluationCallback
from tests.evaluation.agents import Oracle


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


@pytest.mark.parametrize(("every", "times"), [(1, [2, 4]), (2, [4])])
def test_metrics_pictures_and_sound_reach_tensorboard(every, times, cuts, tmp_path):
    loader = torch.utils.data.DataLoader(torch.zeros(2, 1), num_workers=0)
    logger = TensorBoardLogger(str(tmp_path), name="", version="")
    callback = EvaluationCallback(cuts, every_n_validations=every, pictures=1)
    options = {"accelerator": "cpu", "max_epochs": 2, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(logger=logger, callbacks=[callback], enable_checkpointing=False, **options)
    trainer.fit(TrainedOracle(cuts), loader, loader)
    assert trainer.callback_metrics["eval_success_rate"] == 1
    seen = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0, "images": 0, "audio": 0}).Reload()
    assert [e.value for e in seen.Scalars("eval_exact_match")] == [1.0] * len(times)
    assert [e.step for e in seen.Images("conversation/0")] == times
    assert [e.step for e in seen.Audio("conversation/0")] == times
