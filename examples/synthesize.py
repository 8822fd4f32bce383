"""Speak dialogues into a corpus of two-channel cuts.

python examples/synthesize.py out=corpus hours=3 duration=12.8
python examples/synthesize.py out=corpus hours=3 duration=12.8 codec=codec.nemo      # adds the codes; what is there stays
python examples/synthesize.py out=corpus hours=100 source=[dialogues.jsonl] slice=$SLURM_ARRAY_TASK_ID/16
python examples/synthesize.py out=/shared/corpus hours=1000 executor=ray ray.address=auto
python examples/synthesize.py --config-name=data/voices out=corpus                   # a mixture of datasets
python examples/synthesize.py inspect=corpus      # what is in it: figures, and a page with dialogues to see and hear
python examples/synthesize.py check=corpus        # what is wrong with it
"""

from __future__ import annotations

import os

from omegaconf import DictConfig, OmegaConf

from nemo_duplex.scripts.cli import script


@script("synthesize")
def main(cfg: DictConfig) -> None:
    """Speaks text dialogues into two-channel cuts (Lhotse Shar), with barge-in, pauses inside user turns, and noise (out=);
    or shows what a corpus holds (inspect=), or what is wrong with it (check=)."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # one thread per worker process

    from nemo_duplex.synthesis.inspection.commands import asked_for, look_at
    from nemo_duplex.synthesis.run import run

    keys = OmegaConf.to_container(cfg)
    run(keys) if asked_for(keys) == "out" else look_at(keys)


if __name__ == "__main__":
    main()
