"""Talk with an agent for an hour, and see whether it is at the end what it was at the start: soak.json.

python examples/soak.py model=agent.nemo data=corpus out=soak
"""

from __future__ import annotations

import json
from pathlib import Path

from omegaconf import DictConfig

from nemo_duplex.scripts.cli import script


@script("soak")
def main(cfg: DictConfig) -> None:
    """Plays conversations to one session for an hour; compares metrics, memory and cost of its first and last minutes."""
    from nemo_duplex.files.atomic import require_space, require_writable, sha256, whole_file
    from nemo_duplex.inputs import existing_file

    out, model_path = Path(cfg.out), existing_file(cfg.model, "model")
    require_writable(out, "out", ["soak.json"])
    require_space(out, 10_000_000)
    from nemo_duplex.evaluation.activity import voice_activity
    from nemo_duplex.evaluation.endurance import soak_report, soak_table
    from nemo_duplex.evaluation.long_session import Playlist, play
    from nemo_duplex.evaluation.sets import read_sets
    from nemo_duplex.models.duplex_s2s import DuplexS2SModel
    from nemo_duplex.scripts.hardware import require_device, use_threads

    use_threads(cfg.threads)
    device = require_device(cfg.device)
    cuts = [cut for cuts in read_sets(cfg.data, cfg.sets).values() for cut in cuts]
    playlist, vad = Playlist.of(cuts, cfg.minutes, cfg.compared, cfg.seed), voice_activity(cfg.vad)
    model = DuplexS2SModel.restore_from(str(model_path), map_location=device).eval()
    minutes = [cfg.compared, cfg.minutes / 2, cfg.minutes]
    log = play(model, playlist, vad, memory_at=minutes, label="session", system_prompt=cfg.system_prompt)
    found = {"model": str(model_path), "model_sha256": sha256(model_path), **soak_report(model, playlist, log, cfg.seed)}
    with whole_file(out / "soak.json") as path:
        path.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    print(soak_table(found))


if __name__ == "__main__":
    main()
