"""Check everything that needs a GPU in one command: ticks, a training step beside NeMo's, the GPU tests. Writes gpu.json.

python examples/gpu_check.py
python examples/gpu_check.py minutes=4 parts=[ticks,tests] callers=[1,256]
python examples/gpu_check.py device=cpu size=tiny
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from nemo_duplex.scripts.cli import script


@script("gpu_check")
def main(cfg: DictConfig) -> None:
    """Measures ticks by callers, a training step and its use of the GPU's arithmetic, the same step of NeMo's, and runs the
    tests that need a GPU; says which expected figures were reached. Ends with 1 if a part failed."""
    started = time.perf_counter()
    from nemo_duplex.files.atomic import require_writable, whole_file
    from nemo_duplex.inputs import InputError

    out = Path(cfg.out)
    if out.suffix != ".json":
        raise InputError(f"out={cfg.out}: expected a name that ends in .json.")
    require_writable(out.parent, "out", [out.name, out.with_suffix(".md").name])
    from nemo_duplex.benchmark.gpu_check import GpuCheckSetting, check_gpu
    from nemo_duplex.benchmark.gpu_report import failed, gpu_tables, verdicts

    def save(result: Mapping[str, Any]) -> None:
        with whole_file(out) as path:
            path.write_text(json.dumps({**result, "verdicts": verdicts(result)}, indent=2) + "\n")
        with whole_file(out.with_suffix(".md")) as path:
            path.write_text("\n\n".join(table.markdown() for table in gpu_tables(result)) + "\n")

    keys = OmegaConf.to_container(cfg)
    result = check_gpu(GpuCheckSetting(**{field.name: keys[field.name] for field in fields(GpuCheckSetting)}), save, started)
    print("\n\n".join(table.text() for table in gpu_tables(result)))
    if failed(result):
        sys.exit(1)


if __name__ == "__main__":
    main()
