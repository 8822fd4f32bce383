"""Train a small streaming encoder on the user's side of a corpus (CTC), and write it as encoder.nemo, a NeMo speech recogniser.

python examples/train_encoder.py data=corpus out=encoder minutes=20
"""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf

from nemo_duplex.scripts.cli import script


@script("train_encoder")
def main(cfg: DictConfig) -> None:
    """Trains a streaming encoder for an agent. Started again with the same `out`, it continues from its last checkpoint."""
    import torch

    from nemo_duplex.perception.ctc_training import EncoderTrainingConfig, train_encoder

    settings = OmegaConf.to_container(cfg)
    if threads := settings.pop("threads"):
        torch.set_num_threads(threads)
    quality = train_encoder(EncoderTrainingConfig(**settings))
    print(f"{cfg.out}/encoder.nemo: {', '.join(f'{key} {value}' for key, value in quality.items())}")


if __name__ == "__main__":
    main()
