"""A whole evaluation: conversations in, report.json, events.csv, report.html and pictures out."""

from __future__ import annotations

import csv
import itertools
import json
import platform
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import soundfile
from lhotse import CutSet
from lhotse.cut import Cut

from nemo_duplex.evaluation.activity import voice_activity
from nemo_duplex.evaluation.answers import reference_texts
from nemo_duplex.evaluation.baseline import lengths_of_answers, never_listens, yields
from nemo_duplex.evaluation.controls import controls
from nemo_duplex.evaluation.generation import Agent, run_conversations
from nemo_duplex.evaluation.picture import write_png
from nemo_duplex.evaluation.report import Example, write_html
from nemo_duplex.evaluation.scores import Judged, events, judge, spoken_text, summary
from nemo_duplex.evaluation.speech import BigramRecogniser
from nemo_duplex.files.atomic import whole_file, whole_folder
from nemo_duplex.inputs import InputError, existing_folder
from nemo_duplex.version import __version__

#: Raised when a key of report.json changes its place or meaning.
SCHEMA_VERSION = 1
_VERSIONS = ("torch", "nemo_toolkit", "lhotse", "numpy", "pocketsphinx", "silero-vad")


def read_sets(data: str | Path, names: Sequence[str], limit: int | None = None) -> dict[str, list[Cut]]:
    """The cuts of a corpus' sets, in its order.

    Args:
        data: corpus folder, as `examples/synthesize.py` writes it.
        limit: at most so many cuts of each set.

    Raises:
        InputError: if a folder is missing or holds no shards, or a set has no cuts.
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit={limit}: expected at least 1, or null for all conversations.")
    sets = {}
    for name in names:
        folder = existing_folder(existing_folder(data, "data") / name / "shar", f"set {name!r}")
        if not list(folder.glob("cuts.*.jsonl.gz")):
            raise InputError(
                f"set {name!r}: {folder} holds no Lhotse Shar (cuts.*.jsonl.gz). Write it with examples/synthesize.py."
            )
        cuts = CutSet.from_shar(in_dir=folder)
        sets[name] = list(itertools.islice(cuts, limit))
        if not sets[name]:
            raise InputError(f"set {name!r}: {folder} has no cuts. Write it again with examples/synthesize.py.")
    return sets


def evaluate(
    agent: Agent,
    sets: Mapping[str, Sequence[Cut] | CutSet],
    out: str | Path,
    *,
    batch_size: int = 8,
    vad: str = "energy",
    asr_turns: int = 60,
    examples: int = 6,
    control_turns: int = 5,
    seed: int = 0,
    device: str = "cpu",
    provenance: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Lets an agent talk through every conversation of the sets and writes down how it did.

    Args:
        agent: a DuplexS2SModel, or anything that generates like one.
        sets: name -> cuts; with a recorded agent (dev) or with `references` alone (impatient).
        out: folder for report.json, report.html, events.csv, timelines/ and conversation.wav.
        vad: what finds the agent's speech: energy or silero.
        asr_turns: agent turns per set and voice that the offline recogniser listens to; 0 leaves it out.
        control_turns: conversations in which the interrupter is muted, besides noise and silence; 0 leaves all controls out.
        examples: conversations shown and heard in report.html, the worst first.
        seed: of every draw.
        provenance: what is evaluated (model file, checksum, corpus), for the report.

    Returns:
        The content of report.json: `sets.<name>.<metric>` = {value, n, ci95, bootstrap95}; see `scores.summary`.

    Raises:
        InputError: naming the set without cuts or the cut that cannot be evaluated.
    """
    started = time.perf_counter()
    detector = voice_activity(vad)
    judged: dict[str, list[Judged]] = {}
    for name, cuts in sets.items():
        cuts = list(cuts)
        if not cuts:
            raise InputError(f"set {name!r} has no cuts: there is nothing to evaluate.")
        label = name if progress else None
        records = run_conversations(agent, cuts, detector, batch_size=batch_size, device=device, label=label)
        judged[name] = [judge(record) for record in records]
    about = dict(provenance or {}) | {"created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "vad": vad, "seed": seed}
    report: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "provenance": about | {"versions": _versions()}}
    report["sets"] = {name: summary(rows, seed) for name, rows in judged.items()}
    everything = [j for rows in judged.values() for j in rows]
    lengths = lengths_of_answers(j.record.cut for j in everything)
    for name, rows in judged.items():
        report["sets"][name]["never_listens"] = never_listens(rows, lengths, seed)
        report["sets"][name]["yield_rate"] = yields(rows, lengths, seed).as_dict()
    held = controls(agent, everything, lengths, control_turns, device) if control_turns else []
    report["controls"] = [control.as_dict() for control in held]
    _listen(report, judged, asr_turns, seed)
    report["provenance"]["seconds"] = round(time.perf_counter() - started, 1)
    _write(Path(out), report, judged, choose_examples(judged, examples))
    return report


def _listen(report: dict[str, Any], judged: Mapping[str, Sequence[Judged]], asr_turns: int, seed: int) -> None:
    """Adds spoken-vs-text consistency to every set, or says why there is none."""
    missing = "asr_turns=0" if asr_turns == 0 else None
    try:
        records = [j.record for rows in judged.values() for j in rows]
        # What the agent wrote counts too: a recogniser that cannot hear a wrong answer would blame the voice for it.
        texts = [*reference_texts(records), *(turn.text for record in records for turn in record.agent if turn.text)]
        recogniser = BigramRecogniser(texts) if not missing and texts else None
        missing = missing or (None if texts else "no reference texts to build the recogniser from")
    except ImportError as error:
        recogniser, missing = None, f"the package pocketsphinx is not installed ({error})"
    for name, rows in judged.items():
        found = spoken_text(rows, recogniser, asr_turns, seed) if recogniser else {"spoken_wer": {"not_run": missing}}
        report["sets"][name] |= found


def choose_examples(judged: Mapping[str, Sequence[Judged]], most: int) -> list[Example]:
    """The worst conversations of all sets first, then a third of faultless ones, those with most barge-ins."""
    rows = [Example(name, j) for name, row in judged.items() for j in row]
    bad = sorted((e for e in rows if e.judged.mistakes), key=lambda e: -e.judged.mistakes)
    good = sorted((e for e in rows if not e.judged.mistakes), key=lambda e: -len(e.judged.turn_taking.barge_ins))
    wanted_good = min(len(good), max(most - len(bad), -(-most // 3)))
    return [*bad[: most - wanted_good], *good[:wanted_good]]


def _write(out: Path, report: dict[str, Any], judged: Mapping[str, Sequence[Judged]], shown: Sequence[Example]) -> None:
    full = report | {"conversations": {name: [j.as_dict() for j in rows] for name, rows in judged.items()}}
    with whole_file(out / "report.json") as path:
        path.write_text(json.dumps(full, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    rows = [row for name, scored in judged.items() for row in events(name, scored)]
    with whole_file(out / "events.csv") as path, path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["set", "conversation", "time", "event", "verdict", "latency", "detail"])
        writer.writeheader()
        writer.writerows(rows)
    with whole_file(out / "report.html") as path:
        write_html(path, report, shown)
    with whole_folder(out / "timelines", replace=True) as folder:
        for example in shown:
            write_png(folder / f"{example.set_name}-{example.judged.record.id}.png", example.judged)
    if shown:
        record = min(shown, key=lambda e: e.judged.mistakes).judged.record
        with whole_file(out / "conversation.wav") as path:
            soundfile.write(path, record.stereo(record.sample_rate), record.sample_rate)


def _versions() -> dict[str, str]:
    found = {"nemo_duplex": __version__, "python": platform.python_version()}
    for name in _VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
