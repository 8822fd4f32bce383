"""Put a personalised codec inside of a trained agent, and compare the voice before and after.

python examples/swap_codec.py agent=demo/agent.nemo codec=personal/codec.nemo out=demo/my_agent.nemo
python examples/swap_codec.py agent=agent.nemo codec=personal/codec.nemo out=my_agent.nemo data=other_recordings
"""

from __future__ import annotations

import json
from pathlib import Path

from omegaconf import DictConfig

from nemo_duplex.scripts.cli import script


@script("swap_codec")
def main(cfg: DictConfig) -> None:
    """Writes an agent with another codec inside to a new .nemo, and compares both codecs on recordings."""
    from nemo_duplex.files.atomic import require_writable, whole_file
    from nemo_duplex.inputs import InputError, existing_folder

    out = Path(cfg.out)
    folder = Path(cfg.comparison or out.with_name(f"{out.stem}-comparison"))
    require_writable(out.parent, "out", [out.name])
    from nemo_duplex.codec.held_out import HELD_OUT, compare_on

    data = cfg.data or Path(cfg.codec).parent / HELD_OUT
    compared = cfg.data is not None or Path(data).is_dir()
    if compared:
        existing_folder(data, "data")
        require_writable(folder, "comparison", ["before_and_after.json"], folders=["sounds"])
        if out.stem == Path(cfg.agent).stem:
            raise InputError(
                f"out: {out} has the name of the agent, and the comparison could not tell them apart. Choose another."
            )
    from nemo_duplex.models.codec_swap import swap_codec
    from nemo_duplex.scripts.hardware import use_threads

    use_threads(cfg.threads)
    done = swap_codec(cfg.agent, cfg.codec, cfg.out, cfg.allow_other_codes)
    print(f"{out}: {'the same codes, another decoder' if done.same_codes else 'other codes: train the agent further'}")
    if not compared:
        print(
            f"not compared: there is no folder {data}. Give recordings of the voice that no codec was trained on: data=FOLDER"
        )
        return
    found = compare_on(done.before, done.after, data, folder / "sounds", cfg.examples)
    with whole_file(folder / "before_and_after.json") as path:
        path.write_text(json.dumps({"agent": cfg.agent, "codec": cfg.codec, "data": str(data), **found}, indent=2) + "\n")
    before, after = found["mel_distance"].values()
    nearer = f"nearer in {found['nearer']} of {found['recordings']} recordings"
    print(f"mel distance at {done.after.sample_rate} Hz: {before} before, {after} after; {nearer}")
    print(f"{folder / 'sounds'}: hear them recorded, before and after")
    _score(cfg, data, folder)


def _score(cfg: DictConfig, data: str | Path, folder: Path) -> None:
    """What `evaluate.py what=codec` says of both codecs: by the scorers that are installed."""
    from nemo_duplex.evaluation.commands import evaluate_command
    from nemo_duplex.inputs import plain
    from nemo_duplex.scripts.config import ScriptConfig

    given = {"codecs": [cfg.agent, cfg.out], "conventional_codecs": [], "data": str(data), "out": str(folder)}
    same = {key: cfg[key] for key in ("recogniser", "threads", "workers")}
    evaluate_command(plain(ScriptConfig("evaluate", ["what=codec"]).checked()) | given | same)


if __name__ == "__main__":
    main()
