"""Measure this model beside NeMo's in-tree one, its streaming engine, or the detector of user activity, on this machine.

python examples/benchmark.py what=train
python examples/benchmark.py what=train size=paper device=cuda precision=bf16 batch=25 seconds=40
python examples/benchmark.py what=stream model=demo/agent.nemo data=demo/corpus
python examples/benchmark.py what=stream device=cuda precision=bf16 parts=[stages]
python examples/benchmark.py what=user_activity threads=1
python examples/benchmark.py what=serve threads=1 model=demo/agent.nemo data=demo/corpus
"""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from nemo_duplex.scripts.cli import script


@script("benchmark")
def main(cfg: DictConfig) -> None:
    """Measures a training step beside one of NeMo's model (what=train); streaming: how many callers an agent serves in time,
    the stages of a full-size model, NeMo's way to do the same, frames late in a conversation (what=stream); how soon a user is
    heard to speak (what=user_activity); or a server and its callers over the network (what=serve)."""
    from nemo_duplex.files.atomic import require_writable, whole_file
    from nemo_duplex.inputs import InputError, existing_file, existing_folder

    if cfg.what not in ("train", "stream", "user_activity", "serve"):
        raise InputError(f"what={cfg.what}: expected train, stream, user_activity or serve.")
    if cfg.out and Path(cfg.out).suffix not in (".json", ".md"):
        raise InputError(f"out={cfg.out}: expected a name that ends in .json or .md.")
    if cfg.out:
        pages = [str(Path(cfg.out).with_suffix(suffix).name) for suffix in (".json", ".md")]
        require_writable(Path(cfg.out).parent, "out", pages)
    if cfg.model:
        existing_file(cfg.model, "model")
    if cfg.data:
        existing_folder(cfg.data, "data")
    result, tables = _measured(cfg.what, OmegaConf.to_container(cfg))
    print("\n\n".join(table.text() for table in tables))
    if cfg.out:
        pages = {".json": json.dumps(result, indent=2), ".md": "\n\n".join(table.markdown() for table in tables)}
        for suffix in {".json", Path(cfg.out).suffix}:
            with whole_file(Path(cfg.out).with_suffix(suffix)) as path:
                path.write_text(pages[suffix] + "\n")


def _measured(what: str, keys: dict) -> tuple[dict, list]:
    """The figures, and their tables."""
    if what == "train":
        from nemo_duplex.benchmark.training_step import TrainingSetting, benchmark_training, training_table

        result = benchmark_training(_setting(TrainingSetting, keys))
        return result, [training_table(result)]
    if what == "stream":
        from nemo_duplex.benchmark.streaming import StreamingSetting, benchmark_streaming, streaming_tables

        result = benchmark_streaming(_setting(StreamingSetting, keys))
        return result, streaming_tables(result)
    if what == "user_activity":
        from nemo_duplex.benchmark.user_activity import ActivitySetting, benchmark_user_activity, user_activity_tables

        result = benchmark_user_activity(_setting(ActivitySetting, keys))
        return result, user_activity_tables(result)
    from nemo_duplex.benchmark.serving import ServingSetting, benchmark_serving, serving_tables

    result = benchmark_serving(_setting(ServingSetting, keys))
    return result, serving_tables(result)


def _setting(kind: type, keys: dict):
    return kind(**{field.name: keys[field.name] for field in fields(kind)})


if __name__ == "__main__":
    main()
