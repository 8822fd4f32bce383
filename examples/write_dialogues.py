"""Have a language model write short dialogues, or questions about recordings: text for synthesize.py.

python examples/write_dialogues.py out=written count=10000
python examples/write_dialogues.py out=written llm=http://localhost:8000/v1 llm_model=llama count=10000
python examples/write_dialogues.py out=questions what=asr_qa source=[manifest.json] llm=http://localhost:8000/v1 llm_model=llama
"""

from __future__ import annotations

import os
from pathlib import Path

from omegaconf import DictConfig

from nemo_duplex.scripts.cli import script


@script("write_dialogues")
def main(cfg: DictConfig) -> None:
    """Has a language model write short dialogues, or questions about recordings, and keeps those that follow the rules."""
    from nemo_duplex.files.atomic import require_writable
    from nemo_duplex.inputs import plain

    require_writable(cfg.out, "out", ["dialogues.jsonl", "summary.json"], folders=["written", "answers"])
    if cfg.threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(cfg.threads)
    from nemo_duplex.scripts.hardware import use_threads
    from nemo_duplex.synthesis.writing.endpoint import Endpoint
    from nemo_duplex.synthesis.writing.run import SMOLLM2, WritingSpec, write_dialogues

    use_threads(cfg.threads)
    endpoint = None
    if cfg.llm != SMOLLM2:
        endpoint = Endpoint(cfg.llm, cfg.llm_model or "", plain(cfg.request), cfg.parallel, cfg.timeout, cfg.tries)
    folder = Path(cfg.model_folder) if cfg.model_folder else None
    spec = WritingSpec(cfg.what, Path(cfg.out), cfg.count, cfg.seed, tuple(cfg.source), endpoint, folder)
    summary = write_dialogues(spec)
    asked, accepted = summary["asked"], summary["accepted"]
    print(f"{cfg.out}/dialogues.jsonl: {accepted} rows of {asked} written; {summary['tokens_per_second']} tokens/s")
    for reason, found in summary["rejected"].items():
        print(f"  rejected: {found['count']} x {reason}")
    if gone := summary["rows_replaced"]:
        print(f"  {gone} rows of an earlier run are gone; with its keys, it writes them again from what it kept")
    if cfg.count is not None and accepted < cfg.count:
        why = "too little of what was written is accepted" if cfg.what == "topic" else "there was no more to write from"
        print(f"  fewer than count={cfg.count}: {why}")


if __name__ == "__main__":
    main()
