"""Plan a fleet of servers: blocking, waiting, a lost server, a rolling upgrade; or compare one real server with its simulation.

python examples/simulate_fleet.py servers=2800 lost=56
python examples/simulate_fleet.py upgrade_at=400 span=7200 wave=0.25
python examples/simulate_fleet.py model=demo/agent.nemo servers=1 seats=16 callers=16 call=2 span=60
"""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from nemo_duplex.scripts.cli import script


@script("simulate_fleet")
def main(cfg: DictConfig) -> None:
    """Simulates servers and callers by events with a seed, and prints what happened to the callers."""
    from nemo_duplex.benchmark.fleet import Fleet, Simulation
    from nemo_duplex.files.atomic import require_writable, whole_file
    from nemo_duplex.inputs import InputError, existing_file

    if cfg.out and Path(cfg.out).suffix != ".json":
        raise InputError(f"out={cfg.out}: expected a name that ends in .json.")
    if cfg.out:
        require_writable(Path(cfg.out).parent, "out", [Path(cfg.out).name])
    keys = OmegaConf.to_container(cfg)
    fleet = Fleet(**{field.name: keys[field.name] for field in fields(Fleet)})
    if cfg.model is not None:
        existing_file(cfg.model, "model")
        if cfg.servers != 1:
            raise InputError(
                f"servers={cfg.servers}: a real server is one. Add servers=1, and its seats, callers, call and span."
            )
        from nemo_duplex.benchmark.arrivals import compare_arrivals, lines
        from nemo_duplex.benchmark.serving import ServingSetting

        result = compare_arrivals(ServingSetting(model=cfg.model), fleet)
        print(*lines(result), sep="\n")
    else:
        outcome = Simulation(fleet).run()
        result = {"fleet": asdict(fleet), "outcome": asdict(outcome) | {"blocked": outcome.blocked}}
        print(*outcome.lines(), sep="\n")
    if cfg.out:
        with whole_file(cfg.out) as path:
            path.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
