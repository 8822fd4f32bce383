"""Train a duplex agent on two-channel speech, and write it as one self-contained agent.nemo.

    python examples/train_duplex.py --config-name=duplex_tiny data.train=corpus out=run \
        model.pretrained_asr=encoder.nemo model.pretrained_audio_codec=codec.nemo model.tokenizer.model_path=tokenizer.model
"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from nemo_duplex.cli import script


@script("duplex_tiny")
def main(cfg: DictConfig) -> None:
    """Trains a duplex agent. Started again with the same `out` it goes on where it was."""
    import lightning.pytorch as pl
    import torch
    from nemo.utils.exp_manager import exp_manager

    from nemo_duplex.budget import TimeBudget
    from nemo_duplex.data.datamodule import DuplexDataModule
    from nemo_duplex.models.duplex_s2s import DuplexS2SModel
    from nemo_duplex.outputs import whole_file

    pl.seed_everything(cfg.seed, workers=True)
    torch.set_num_threads(cfg.threads)
    out = Path(cfg.out)
    trainer = pl.Trainer(
        **cfg.trainer,
        callbacks=[TimeBudget(cfg.minutes, cfg.cooldown)],
        max_epochs=-1,
        limit_train_batches=cfg.trainer.val_check_interval,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
    )
    exp_manager(trainer, OmegaConf.create({"explicit_log_dir": str(out), **CHECKPOINTS}))
    model = DuplexS2SModel(cfg.model, trainer)
    trainer.fit(model, datamodule=DuplexDataModule(cfg.data, model.dataset()))
    with whole_file(out / "agent.nemo") as path:
        model.save_to(str(path))
    print(f"{out / 'agent.nemo'}: {trainer.global_step} steps")


# NeMo's experiment manager: TensorBoard, and a last checkpoint to go on from.
CHECKPOINTS = {
    "resume_if_exists": True,
    "resume_ignore_no_checkpoint": True,
    "create_tensorboard_logger": True,
    "checkpoint_callback_params": {
        "monitor": "step",
        "mode": "max",
        "save_top_k": 1,
        "save_last": True,
        "every_n_train_steps": 100,
        "every_n_epochs": None,
        "save_nemo_on_train_end": False,
    },
    "log_tflops_per_sec_per_gpu": False,
}


if __name__ == "__main__":
    main()
