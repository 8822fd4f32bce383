"""Speak all that a source of dialogues needs into a bank, before corpora are made of it.

python examples/make_bank.py out=bank source=[dialogues.jsonl] agent_voice=hibari takes=2 \\
    user_voices.train='{kokoro: 1}'
python examples/synthesize.py out=corpus bank=bank source=[dialogues.jsonl] agent_voice=hibari \\
    user_voices.train='{kokoro: 1}' takes=2 hours=100
"""

from __future__ import annotations

import os

from omegaconf import DictConfig, OmegaConf

from nemo_duplex.scripts.cli import script


@script("make_bank")
def main(cfg: DictConfig) -> None:
    """Speaks all that a source of dialogues needs into a bank, once, so that slow voices cost no time when corpora are made."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # one thread per worker process

    from nemo_duplex.synthesis.bank_filling import make_bank

    make_bank(OmegaConf.to_container(cfg))


if __name__ == "__main__":
    main()
