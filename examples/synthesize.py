"""Speak dialogues into a corpus of two-channel cuts.

python examples/synthesize.py out=corpus hours=3 duration=12.8
python examples/synthesize.py out=corpus hours=3 duration=12.8 codec=codec.nemo      # adds the codes; what is there stays
python examples/synthesize.py out=corpus hours=100 source=[dialogues.jsonl] slice=$SLURM_ARRAY_TASK_ID/16
"""

from __future__ import annotations

import os
from pathlib import Path

from omegaconf import DictConfig

from nemo_duplex.scripts.cli import script


@script("synthesize")
def main(cfg: DictConfig) -> None:
    """Speaks text dialogues into two-channel cuts (Lhotse Shar), with barge-in, pauses inside user turns, and noise."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # one thread per worker process

    from nemo_duplex.files.atomic import require_writable
    from nemo_duplex.frames import AGENT_SAMPLE_RATE
    from nemo_duplex.inputs import InputError
    from nemo_duplex.synthesis.cuts import DialogueSpec
    from nemo_duplex.synthesis.executors import parse_slice
    from nemo_duplex.synthesis.pipeline import CorpusSpec, source_summary, synthesize
    from nemo_duplex.synthesis.timing import Rhythm

    if cfg.executor != "local":
        raise InputError(f"executor={cfg.executor}: there is 'local' so far; spread jobs over machines with slice=i/n.")
    require_writable(cfg.out, "out", ["corpus.json"])
    codec = None
    if cfg.codec is not None:  # NeMo takes ten seconds to import; but a wrong file must be known before hours of work
        from nemo_duplex.codec.fsq_codec import FSQCodec
        from nemo_duplex.codec.precompute import add_codes

        codec = FSQCodec.restore_from(cfg.codec)
        if codec.sample_rate != AGENT_SAMPLE_RATE:
            rates = f"{codec.sample_rate} Hz, the agent's voice of a corpus {AGENT_SAMPLE_RATE} Hz"
            raise InputError(f"codec: {cfg.codec} has {rates}. Leave codec out: training encodes as it goes.")
    rhythm = Rhythm(response_gap=cfg.response_gap, barge_in=cfg.barge_in, long_silence=cfg.long_silence)
    dialogues = DialogueSpec(cfg.seed, cfg.pause, quiet=cfg.quiet, duration=cfg.duration, rhythm=rhythm)
    spec = CorpusSpec(cfg.hours, cfg.dev, cfg.agent_utterances, tuple(cfg.source), dialogues, cfg.max_odd_rows, cfg.language)
    for line in source_summary(spec):
        print(line)
    workers = (os.cpu_count() or 1) if cfg.workers is None else cfg.workers
    summary = synthesize(spec, Path(cfg.out), cfg.sets, workers, parse_slice(cfg.slice), cfg.overwrite)
    if summary is None:
        print(f"{cfg.out}: slice {cfg.slice} is done, others are not yet")
        return
    for name, facts in summary["sets"].items():
        left_out = facts.get("left_out", {})
        print(f"{name}: " + ", ".join(f"{key.replace('_', ' ')} {facts[key]}" for key in facts if key != "left_out"))
        for reason, found in left_out.items():
            print(f"  left out: {found['count']} x {reason}: {found['first'][0]}")
    for name in summary["sets"]:
        shar = Path(cfg.out, name, "shar")
        if codec is not None and any(shar.glob("target_audio.*")):
            add_codes(shar, codec, replace=cfg.overwrite)


if __name__ == "__main__":
    main()
