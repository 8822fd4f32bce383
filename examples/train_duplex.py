"""Train a duplex agent on two-channel speech, and write it as one self-contained agent.nemo.

python examples/train_duplex.py data.train=corpus data.validation=corpus out=run minutes=13 \\
    model.pretrained_asr=encoder.nemo model.pretrained_audio_codec=codec.nemo
python examples/train_duplex.py data.compose='{duration: 12.8}' out=run ...          # dialogues made while it runs
python examples/train_duplex.py --config-name=duplex_paper data.root=corpora out=run
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig

from nemo_duplex.scripts.cli import script


@script("duplex_tiny")
def main(cfg: DictConfig) -> None:
    """Trains a duplex agent. Started again with the same `out`, it resumes."""
    from nemo_duplex.data.loader_keys import require_data
    from nemo_duplex.files.atomic import require_writable
    from nemo_duplex.inputs import existing_folder, plain

    require_writable(cfg.out, "out", ["agent.nemo", "tokenizer.model"])
    for name in ("train", "validation"):
        if cfg.data.get(name) and isinstance(cfg.data[name], str):
            existing_folder(cfg.data[name], f"data.{name}")
    if "train" in cfg.data:
        require_data(plain(cfg.data))
    import lightning.pytorch as pl

    from nemo_duplex.data.composition import texts_folder
    from nemo_duplex.data.datamodule import DuplexDataModule, refuse_unknown_keys
    from nemo_duplex.data.text_tokenizer import corpus_tokenizer
    from nemo_duplex.evaluation.callback import EvaluationCallback, some_dialogues
    from nemo_duplex.models.duplex_s2s import DuplexS2SModel
    from nemo_duplex.models.in_tree.training import in_tree_training
    from nemo_duplex.models.model_config import ModelConfig
    from nemo_duplex.scripts.hardware import use_threads
    from nemo_duplex.training.trainer import duplex_trainer

    if "yaml" in cfg:  # a file of NeMo's in-tree examples
        cfg = in_tree_training(cfg)
    else:
        for name in ("train_loader", "validation_loader"):
            refuse_unknown_keys(plain(cfg.data[name]), f"data.{name}")
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    use_threads(cfg.threads)
    out = Path(cfg.out)
    config = ModelConfig.of(cfg.model)
    if config.tokenizer.model_path is None and not config.pretrained_llm:
        texts = texts_folder(cfg.data, out)
        path = corpus_tokenizer(texts, out / "tokenizer.model", cfg.tokenizer_size)
        config = replace(config, tokenizer=replace(config.tokenizer, model_path=str(path)))
    heard = some_dialogues(cfg.data.validation, cfg.listen) if cfg.listen and cfg.data.validation else []
    trainer = duplex_trainer(cfg, [EvaluationCallback(heard, out=out, keep=cfg.keep_validations)] if heard else [])
    model = DuplexS2SModel(config, trainer)
    data = DuplexDataModule(cfg.data, model.dataset(**cfg.data.get("dataset", {})))
    trainer.fit(model, datamodule=data)
    model.save_to(str(out / "agent.nemo"))
    if trainer.is_global_zero:
        print(f"{out / 'agent.nemo'}: {trainer.global_step} steps")


if __name__ == "__main__":
    main()
