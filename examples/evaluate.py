"""Let an agent talk through a corpus and measure how it does: report.html, report.json, events.csv, pictures, a recording.

python examples/evaluate.py model=agent.nemo data=corpus out=evaluation
"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from nemo_duplex.scripts.cli import script


@script("evaluate")
def main(cfg: DictConfig) -> None:
    """Plays conversations to an agent that answers freely, and measures turn-taking, answers and voice."""
    from nemo_duplex.files.atomic import require_space, require_writable, sha256
    from nemo_duplex.inputs import existing_file

    out, model_path = Path(cfg.out), existing_file(cfg.model, "model")
    files = ("report.json", "report.html", "events.csv", "conversation.wav")
    require_writable(out, "out", files, folders=["timelines"])
    require_space(out, 100_000_000)
    from nemo_duplex.evaluation.report import table
    from nemo_duplex.evaluation.run import evaluate, read_sets
    from nemo_duplex.models.duplex_s2s import DuplexS2SModel
    from nemo_duplex.scripts.hardware import require_device, use_threads

    use_threads(cfg.threads)
    device = require_device(cfg.device)
    sets = read_sets(cfg.data, cfg.sets, cfg.limit)
    report = evaluate(
        DuplexS2SModel.restore_from(str(model_path), map_location=device).eval(),
        sets,
        out,
        batch_size=cfg.batch_size,
        vad=cfg.vad,
        asr_turns=cfg.asr_turns,
        control_turns=cfg.control_turns,
        examples=cfg.examples,
        seed=cfg.seed,
        device=device,
        provenance={"model": str(model_path), "model_sha256": sha256(model_path), "data": str(cfg.data)},
    )
    print(table(report))
    print(f"\n{out / 'report.html'}: open it in a browser to see and hear the conversations")


if __name__ == "__main__":
    main()
