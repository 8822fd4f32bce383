"""Full-Duplex-Bench with an agent of yours, with what another model wrote, or with a corpus of yours.

python examples/full_duplex_bench.py model=agent.nemo bench=v1_0 out=answers [version=v1]
python examples/full_duplex_bench.py what=score bench=answers out=scores [people=icc_gt_distribution.json]
python examples/full_duplex_bench.py what=from_corpus data=corpus out=my_bench
"""

from __future__ import annotations

import sys
from pathlib import Path

from omegaconf import DictConfig

from nemo_duplex.inputs import InputError, NotInstalled
from nemo_duplex.scripts.cli import script

NEEDS = {"write": ("bench", "model"), "score": ("bench",), "both": ("bench", "model"), "from_corpus": ("data",)}


@script("full_duplex_bench")
def main(cfg: DictConfig) -> None:
    """Plays Full-Duplex-Bench to an agent and writes what its scripts read; scores such trees, whoever wrote them."""
    from nemo_duplex.evaluation.full_duplex_bench.samples import require_version
    from nemo_duplex.files.atomic import require_new_folder, require_writable

    if cfg.what not in NEEDS:
        raise InputError(f"what={cfg.what}: expected one of {', '.join(NEEDS)}.")
    require_version(cfg.version)
    (require_new_folder if cfg.what == "from_corpus" else require_writable)(cfg.out, "out")
    if missing := [key for key in NEEDS[cfg.what] if cfg[key] is None]:
        raise InputError(f"Not given: {', '.join(missing)}, which what={cfg.what} needs. Add {missing[0]}=...")
    if cfg.what == "from_corpus":
        from nemo_duplex.evaluation.full_duplex_bench.from_corpus import corpus_channels, write_corpus

        found = write_corpus(corpus_channels(cfg.data, cfg.sets), cfg.version, cfg.out)
        print(f"{cfg.out}: {', '.join(f'{count} samples of {task}' for task, count in found.items())}")
    if cfg.what in ("write", "both"):
        _write(cfg)
    if cfg.what == "score" or (cfg.what == "both" and cfg.version != "v2"):
        _score(cfg, cfg.bench if cfg.what == "score" else cfg.out)


def _write(cfg: DictConfig) -> None:
    from nemo_duplex.evaluation.full_duplex_bench.samples import read_tree
    from nemo_duplex.evaluation.full_duplex_bench.write import Writer, check_setting
    from nemo_duplex.files.atomic import sha256
    from nemo_duplex.inputs import existing_file

    path = existing_file(cfg.model, "model")
    read_tree(cfg.bench, cfg.version)
    check_setting(cfg.words, cfg.provider)
    from nemo_duplex.models.duplex_s2s import DuplexS2SModel
    from nemo_duplex.scripts.hardware import require_device, use_threads

    use_threads(cfg.threads)
    agent = DuplexS2SModel.restore_from(str(path), map_location=require_device(cfg.device)).eval()
    writer = Writer(agent, sha256(path), cfg.version, words=cfg.words, provider=cfg.provider, device=cfg.device)
    done = writer.write(cfg.bench, cfg.out, batch_size=cfg.batch_size, overwrite=cfg.overwrite, progress=True)
    print(*done.lines(), f"{cfg.out}: for the official scripts, see docs/how-to/full-duplex-bench.md", "", sep="\n")


def _score(cfg: DictConfig, tree: str) -> None:
    from nemo_duplex.evaluation.activity import SileroVad
    from nemo_duplex.evaluation.full_duplex_bench.results_table import results_table
    from nemo_duplex.evaluation.full_duplex_bench.score import SILERO, score_tree
    from nemo_duplex.evaluation.full_duplex_bench.transcript import write_json

    try:
        vad = SileroVad(*SILERO)
    except NotInstalled:
        vad = None
    results = score_tree(tree, cfg.version, vad=vad, people=cfg.people, provider=cfg.provider)
    write_json(Path(cfg.out) / "full_duplex_bench.json", results | {"bench": str(tree)})
    print(results_table(results, colour=sys.stdout.isatty()))


if __name__ == "__main__":
    main()
