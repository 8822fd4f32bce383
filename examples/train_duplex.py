"""Train a duplex agent on two-channel speech, and write it as one self-contained agent.nemo.

python examples/train_duplex.py data.train=corpus data.validation=corpus out=run minutes=13 \\
    model.pretrained_asr=encoder.nemo model.pretrained_audio_codec=codec.nemo
"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from nemo_duplex.cli import script

# NeMo's experiment manager: TensorBoard, and a last checkpoint to go on from.
EXPERIMENT = {
    "resume_if_exists": True,
    "resume_ignore_no_checkpoint": True,
    "log_tflops_per_sec_per_gpu": False,
    "checkpoint_callback_params": {
        "monitor": "step",
        "mode": "max",
        "save_top_k": 1,
        "every_n_train_steps": 100,
        "every_n_epochs": None,
        "save_nemo_on_train_end": False,
    },
}


@script("duplex_tiny")
def main(cfg: DictConfig) -> None:
    """Trains a duplex agent. Started again with the same `out` it goes on where it was."""
    import lightning.pytorch as pl
    import torch
    from nemo.utils.exp_manager import exp_manager

    from nemo_duplex.budget import TimeBudget
    from nemo_duplex.data.datamodule import DuplexDataModule
    from nemo_duplex.data.tokenizer import corpus_tokenizer
    from nemo_duplex.evaluation.callback import EvaluationCallback, some_dialogues
    from nemo_duplex.models.duplex_s2s import DuplexS2SModel
    from nemo_duplex.outputs import whole_file

    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    torch.set_num_threads(cfg.threads)
    out = Path(cfg.out)
    if cfg.model.tokenizer.model_path is None:
        cfg.model.tokenizer.model_path = str(corpus_tokenizer(cfg.data.train, out / "tokenizer.model", cfg.tokenizer_size))
    callbacks: list[pl.Callback] = [TimeBudget(cfg.minutes, cfg.cooldown)]
    if cfg.listen and cfg.data.validation:
        callbacks.append(EvaluationCallback(some_dialogues(cfg.data.validation, cfg.listen)))
    trainer = pl.Trainer(
        **cfg.trainer,
        callbacks=callbacks,
        max_epochs=-1,
        limit_train_batches=cfg.trainer.val_check_interval,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
    )
    model = DuplexS2SModel(cfg.model, trainer)
    data = DuplexDataModule(cfg.data, model.dataset())
    exp_manager(trainer, OmegaConf.create({"explicit_log_dir": str(out / "experiment"), **EXPERIMENT}))
    trainer.fit(model, datamodule=data)
    with whole_file(out / "agent.nemo") as path:
        model.save_to(str(path))
    print(f"{out / 'agent.nemo'}: {trainer.global_step} steps")


if __name__ == "__main__":
    main()
