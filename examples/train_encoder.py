"""Train a small streaming encoder on a corpus or NeMo manifests (CTC), and write it as encoder.nemo, a NeMo speech recogniser.

python examples/train_encoder.py data=corpus out=encoder minutes=20
python examples/train_encoder.py manifests=[bank/manifests/user_train.jsonl] \\
    held_out=[bank/manifests/user_dev.jsonl] out=encoder minutes=90
"""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf

from nemo_duplex.scripts.cli import script


@script("train_encoder")
def main(cfg: DictConfig) -> None:
    """Trains a streaming encoder for an agent. Started again with the same `out`, it continues from its last checkpoint."""
    from nemo_duplex.files.atomic import require_writable

    require_writable(cfg.out, "out", ["encoder.nemo", "quality.json", "training.json", "progress.jsonl", "last.ckpt"])
    from nemo_duplex.perception.ctc_training import EncoderTrainingConfig, train_encoder
    from nemo_duplex.scripts.hardware import use_threads

    settings = OmegaConf.to_container(cfg)
    use_threads(settings.pop("threads"))
    quality = train_encoder(EncoderTrainingConfig(**settings))
    print(f"{cfg.out}/encoder.nemo: {', '.join(f'{key} {value}' for key, value in quality.items())}")


if __name__ == "__main__":
    main()
