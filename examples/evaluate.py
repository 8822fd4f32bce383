"""Measure how an agent converses, or what any other model did: report.html, report.json, events.csv, pictures, a recording.

python examples/evaluate.py model=agent.nemo data=corpus out=evaluation
python examples/evaluate.py outputs=other_model out=evaluation
python examples/evaluate.py what=speech outputs=evaluation out=evaluation
python examples/evaluate.py what=compare a=evaluation b=evaluation_of_before out=comparison
python examples/evaluate.py what=codec codecs=[codec.nemo] data=corpus out=codecs
python examples/evaluate.py what=encoder encoders=[encoder.nemo] manifests=[people.jsonl] out=hearing
python examples/evaluate.py what=selftest
"""

from __future__ import annotations

import sys

from omegaconf import DictConfig

from nemo_duplex.scripts.cli import script


@script("evaluate")
def main(cfg: DictConfig) -> None:
    """Plays conversations to an agent that answers freely, or reads what another model did, and measures turn-taking, answers,
    speech and reasoning, beside the paper's tables. Ends with 1 if a number does not keep its limit (fail_under, fail_over)."""
    from nemo_duplex.evaluation.commands import evaluate_command
    from nemo_duplex.inputs import plain

    failures = evaluate_command(plain(cfg))
    for failure in failures:
        print(f"fails: {failure}", file=sys.stderr)
    if failures:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
