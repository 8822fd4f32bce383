"""Train the agent's codec on one speaker, or personalise a trained one, and write it as codec.nemo.

python examples/train_codec.py data=corpus out=codec minutes=20
python examples/train_codec.py data=wavs out=personal init=codec/codec.nemo freeze_encoder=true
python examples/train_codec.py data=wavs out=plain adversarial=null
python examples/train_codec.py data=wavs out=nanocodec init=nvidia/nemo-nano-codec-22khz-0.6kbps-12.5fps
"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from nemo_duplex.scripts.cli import script


@script("train_codec")
def main(cfg: DictConfig) -> None:
    """Trains the agent's codec on one speaker. Started again with the same `out`, it resumes."""
    from nemo_duplex.files.atomic import require_writable
    from nemo_duplex.inputs import existing_file, existing_folder

    for key in ("data", "held_out_data"):
        if cfg[key] is not None:
            (existing_file if Path(cfg[key]).is_file() else existing_folder)(cfg[key], key)
    require_writable(
        cfg.out, "out", ["codec.nemo", "quality.json", "training.json", "last.ckpt"], folders=["held_out", "validation"]
    )
    from nemo_duplex.codec.codec_training import CodecTrainingConfig, train_codec
    from nemo_duplex.scripts.hardware import use_threads

    settings = OmegaConf.to_container(cfg)
    use_threads(settings.pop("threads"))
    quality = train_codec(CodecTrainingConfig(**settings))
    figures = {key: value for key, value in quality.items() if key not in ("data", "validations")}
    print(f"{cfg.out}/codec.nemo: {', '.join(f'{key} {value}' for key, value in figures.items())}")


if __name__ == "__main__":
    main()
