"""Measure this model beside NeMo's in-tree one, or its streaming engine, in one run on this machine.

python examples/benchmark.py what=train
python examples/benchmark.py what=train size=paper device=cuda precision=bf16 batch=25 seconds=40
python examples/benchmark.py what=stream model=demo/agent.nemo data=demo/corpus
python examples/benchmark.py what=stream device=cuda precision=bf16 parts=[stages]
"""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from nemo_duplex.scripts.cli import script


@script("benchmark")
def main(cfg: DictConfig) -> None:
    """Measures a training step beside one of NeMo's model (what=train), or streaming: how many callers an agent serves in time,
    the stages of a full-size model, NeMo's way to do the same, frames late in a conversation (what=stream)."""
    from nemo_duplex.files.atomic import whole_file
    from nemo_duplex.inputs import InputError

    if cfg.what not in ("train", "stream"):
        raise InputError(f"what={cfg.what}: expected train or stream.")
    if cfg.out and Path(cfg.out).suffix not in (".json", ".md"):
        raise InputError(f"out={cfg.out}: expected a name that ends in .json or .md.")
    from nemo_duplex.benchmark import streaming, training
    from nemo_duplex.benchmark.streaming_tables import tables

    benchmarks = {
        "train": (training.Setting, training.benchmark_training, lambda result: [training.table(result)]),
        "stream": (streaming.Setting, streaming.benchmark_streaming, tables),
    }
    setting, benchmark, shown = benchmarks[cfg.what]
    keys = {key: value for key, value in OmegaConf.to_container(cfg).items() if key in {f.name for f in fields(setting)}}
    result = benchmark(setting(**{**keys, "precision": str(cfg.precision)}))
    print("\n\n".join(table.text() for table in shown(result)))
    if cfg.out:
        pages = {".json": json.dumps(result, indent=2), ".md": "\n\n".join(table.markdown() for table in shown(result))}
        for suffix in {".json", Path(cfg.out).suffix}:
            with whole_file(Path(cfg.out).with_suffix(suffix)) as path:
                path.write_text(pages[suffix] + "\n")


if __name__ == "__main__":
    main()
