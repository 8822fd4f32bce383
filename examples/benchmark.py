"""Measure this model beside NeMo's in-tree one: the same random weights, the same data, the same device, in one run.

python examples/benchmark.py what=train
python examples/benchmark.py what=train size=paper device=cuda precision=bf16 batch=25 seconds=40
"""

from __future__ import annotations

import json
from pathlib import Path

from omegaconf import DictConfig

from nemo_duplex.cli import script


@script("benchmark")
def main(cfg: DictConfig) -> None:
    """Prints a training step of both models: time, frames per second, peak memory, loss."""
    from nemo_duplex.benchmark.training import Setting, benchmark_training, table
    from nemo_duplex.inputs import InputError
    from nemo_duplex.outputs import whole_file

    if cfg.what != "train":
        raise InputError(f"what={cfg.what}: expected train.")
    keys = {key: value for key, value in cfg.items() if key not in ("what", "out")}
    result = benchmark_training(Setting(**{**keys, "precision": str(keys["precision"])}))
    print(table(result))
    if cfg.out:
        with whole_file(Path(cfg.out)) as path:
            path.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
