"""What `examples/synthesize.py` does: makes a corpus, or each dataset of a mixture, and says what it made."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_duplex.files.atomic import require_writable
from nemo_duplex.frames import AGENT_SAMPLE_RATE
from nemo_duplex.inputs import InputError
from nemo_duplex.scripts.values import as_typed
from nemo_duplex.synthesis.corpus_spec import corpus_spec
from nemo_duplex.synthesis.executors import parse_slice
from nemo_duplex.synthesis.impatient_cuts import write_impatient
from nemo_duplex.synthesis.mixture import SUMMARY, Part, parts_of, summarize_mixture
from nemo_duplex.synthesis.pipeline import SETS, source_summary, synthesize
from nemo_duplex.synthesis.ray_executor import RayCluster, connected

if TYPE_CHECKING:
    from nemo_duplex.codec.fsq_codec import FSQCodec


def run(keys: Mapping[str, Any]) -> None:
    """Makes what the keys of `conf/synthesize.yaml` ask for.

    Raises:
        InputError: for a value that cannot be, a source or voice that cannot be used, a folder that cannot be written.
    """
    if keys["executor"] not in ("local", "ray"):
        raise InputError(f"executor={keys['executor']}: expected local or ray.")
    if keys["impatient_of"] is not None:
        _run_impatient(keys)
        return
    parts = parts_of(keys)
    specs = [corpus_spec(part.keys) for part in parts]  # all are checked before the first is made
    for part in parts:
        require_writable(part.out, "out", ["corpus.json"])
    codec = _codec(keys["codec"])
    cluster = RayCluster(**keys["ray"]) if keys["executor"] == "ray" else None
    workers, slice_ = keys["workers"], parse_slice(keys["slice"])
    summaries: list[dict[str, Any] | None] = []
    with connected(cluster, workers) if cluster and len(parts) > 1 else nullcontext():
        for part, spec in zip(parts, specs):
            for line in source_summary(spec):
                print(line)
            made = synthesize(
                spec, part.out, part.keys["sets"], workers, slice_, keys["overwrite"], cluster, keys["check_hashes"]
            )
            summaries.append(made)
            _finish(part, made, codec, keys["overwrite"])
        for number, (part, spec) in enumerate(zip(parts, specs)):  # other slices may have been done since
            if summaries[number] is None and len(parts) > 1:
                summaries[number] = synthesize(spec, part.out, part.keys["sets"], workers, slice_, False, cluster, False)
                _finish(part, summaries[number], codec, False)
    for part, summary in zip(parts, summaries):
        if summary is None:
            print(f"{part.out}: slice {keys['slice']} is done, others are not yet")
    complete = [summary for summary in summaries if summary is not None]
    if keys["datasets"] and len(complete) == len(parts):
        total = summarize_mixture(Path(keys["out"]), parts, complete)["total"]
        print(f"mixture: {', '.join(f'{key} {value}' for key, value in total.items())}: {Path(keys['out'], SUMMARY)}")


def _finish(part: Part, summary: dict[str, Any] | None, codec: FSQCodec | None, overwrite: bool) -> None:
    """Says what a corpus holds, and adds the codes, if all slices of it are there."""
    if summary is not None:
        _print_sets(part, summary)
        if codec is not None:
            _add_codes(part, summary, codec, overwrite)


def _run_impatient(keys: Mapping[str, Any]) -> None:
    out = Path(keys["out"])
    without_effect: dict[str, Any] = {"executor": "local", "codec": None, "datasets": {}, "sets": list(SETS)}
    for key, unused in without_effect.items():
        if keys[key] != unused:
            raise InputError(
                f"impatient_of: {key}={as_typed(keys[key])} has no effect on the set that is made of it. Leave it out."
            )
    require_writable(out, "out", ["corpus.json"])
    rhythm = corpus_spec(keys).dialogues.rhythm
    slice_ = parse_slice(keys["slice"])
    how = (keys["workers"], slice_, keys["overwrite"], keys["check_hashes"])
    summary = write_impatient(Path(keys["impatient_of"]), out, rhythm, *how)
    if summary is None:
        print(f"{out}: slice {keys['slice']} is done, others are not yet")
        return
    facts = summary["sets"]["impatient"]
    print("impatient: " + ", ".join(f"{key.replace('_', ' ')} {facts[key]}" for key in facts))


def _codec(path: str | None) -> FSQCodec | None:
    """The codec whose codes are added. NeMo takes ten seconds to import, but a wrong file must be known before hours."""
    if path is None:
        return None
    from nemo_duplex.codec.fsq_codec import FSQCodec

    codec = FSQCodec.restore_from(path, map_location="cpu")
    if codec.sample_rate != AGENT_SAMPLE_RATE:
        rates = f"{codec.sample_rate} Hz, the agent's voice of a corpus {AGENT_SAMPLE_RATE} Hz"
        raise InputError(f"codec: {path} has {rates}. Leave codec out: training encodes as it goes.")
    return codec


def _add_codes(part: Part, summary: dict[str, Any], codec: FSQCodec, overwrite: bool) -> None:
    from nemo_duplex.codec.precompute import add_codes

    for name in summary["sets"]:
        shar = part.out / name / "shar"
        if any(shar.glob("target_audio.*")):
            add_codes(shar, codec, replace=overwrite)


def _print_sets(part: Part, summary: dict[str, Any]) -> None:
    for name, facts in summary["sets"].items():
        which = f"{part.name} {name}" if part.name else name
        print(f"{which}: " + ", ".join(f"{key.replace('_', ' ')} {facts[key]}" for key in facts if key != "left_out"))
        for reason, found in facts.get("left_out", {}).items():
            print(f"  left out: {found['count']} x {reason}: {found['first'][0]}")
