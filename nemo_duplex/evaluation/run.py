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

from nemo_duplex.data.datamodule import shar_cuts
from nemo_duplex.evaluation.activity import voice_activity
from nemo_duplex.evaluation.answers import reference_texts
from nemo_duplex.evaluation.asr import BigramRecogniser
from nemo_duplex.evaluation.baseline import lengths_of_answers, never_listens, yields
from nemo_duplex.evaluation.control_experiments import control_experiments, counts
from nemo_duplex.evaluation.generation import Agent, run_conversations
from nemo_duplex.evaluation.picture import file_name, write_png
from nemo_duplex.evaluation.report import Example, write_html
from nemo_duplex.evaluation.scores import Scored, events, score, spoken_text, summary
from nemo_duplex.files.atomic import whole_file, whole_folder
from nemo_duplex.inputs import InputError, existing_folder
from nemo_duplex.version import __version__

#: Increased when a key of report.json changes its place or meaning.
SCHEMA_VERSION = 1
_VERSIONS = ("torch", "nemo_toolkit", "lhotse", "numpy", "pocketsphinx", "silero-vad")

#: Largest seed and number of turns: what random generators take.
_MOST = 2**32 - 1


def read_sets(data: str | Path, names: Sequence[str], limit: int | None = None) -> dict[str, list[Cut]]:
    """The cuts of a corpus' sets, in its order.

    Args:
        data: corpus folder, as `examples/synthesize.py` writes it.
        limit: at most so many cuts of each set.

    Raises:
        InputError: if a folder is missing or holds no shards, a shard is missing or broken, or a set has no cuts.
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit={limit}: expected at least 1, or null for all conversations.")
    if not names:
        raise InputError("sets=[]: expected at least one set of the corpus, such as sets=[dev].")
    sets = {}
    for name in names:
        folder = existing_folder(existing_folder(data, "data") / name / "shar", f"set {name!r}")
        if not list(folder.glob("cuts.*.jsonl.gz")):
            raise InputError(
                f"set {name!r}: {folder} holds no Lhotse Shar (cuts.*.jsonl.gz). Write it with examples/synthesize.py."
            )
        sets[name] = list(itertools.islice(shar_cuts(folder, f"set {name!r}"), limit))
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
    """Plays every conversation of the sets to an agent, measures what it does, and writes the report.

    Args:
        agent: a DuplexAgent, or anything that generates like one.
        sets: name -> cuts; with a recorded agent (dev) or with `references` alone (impatient).
        out: folder for report.json, report.html, events.csv, timelines/ and conversation.wav.
        batch_size: conversations played at a time.
        vad: what finds the agent's speech: energy or silero.
        asr_turns: agent turns per set and voice that the offline recogniser transcribes; 0 leaves it out.
        control_turns: conversations in which the interrupter is muted and the agent's answer tells something, besides noise and
            silence; 0 leaves all of them out.
        examples: conversations in report.html, with picture and sound, the worst first.
        seed: of everything random.
        device: where the user's audio is put; that of the agent.
        provenance: what is evaluated (model file, checksum, corpus), for the report.
        progress: whether to show a progress bar for each set.

    Returns:
        The content of report.json: `sets.<name>` as `scores.summary` returns it, with the baseline and the word error rates.

    Raises:
        InputError: for a number out of range; naming the set without cuts or the cut that cannot be evaluated.
    """
    if batch_size < 1:
        raise InputError(f"batch_size={batch_size}: expected 1 or more conversations at a time.")
    for key, number in {"asr_turns": asr_turns, "control_turns": control_turns, "examples": examples, "seed": seed}.items():
        if not 0 <= number <= _MOST:
            raise InputError(f"{key}={number}: expected 0 to {_MOST}.")
    started = time.perf_counter()
    detector = voice_activity(vad)
    scored: dict[str, list[Scored]] = {}
    for name, cuts in sets.items():
        cuts = list(cuts)
        if not cuts:
            raise InputError(f"set {name!r} has no cuts: there is nothing to evaluate.")
        label = name if progress else None
        outcomes = run_conversations(agent, cuts, detector, batch_size=batch_size, device=device, label=label)
        scored[name] = [score(outcome) for outcome in outcomes]
    about = dict(provenance or {}) | {"created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "vad": vad, "seed": seed}
    report: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "provenance": about | {"versions": _versions()}}
    report["sets"] = {name: summary(rows, seed) for name, rows in scored.items()}
    everything = [one for rows in scored.values() for one in rows]
    lengths = lengths_of_answers(one.outcome.cut for one in everything)
    for name, rows in scored.items():
        report["sets"][name]["never_listens"] = never_listens(rows, lengths, seed)
        report["sets"][name]["yield_rate"] = yields(rows, lengths, seed).as_dict()
    experiments = (
        control_experiments(agent, everything, lengths, control_turns, device, detector, seed) if control_turns else []
    )
    report["controls"] = [experiment.as_dict() for experiment in experiments]
    report["control_counts"] = counts(experiments)
    _compare_voice_and_text(report, scored, asr_turns, seed)
    report["provenance"]["seconds"] = round(time.perf_counter() - started, 1)
    _write(Path(out), report, scored, choose_examples(scored, examples))
    return report


def _compare_voice_and_text(report: dict[str, Any], scored: Mapping[str, Sequence[Scored]], asr_turns: int, seed: int) -> None:
    """Adds to every set how far voice and text agree, or why that was not measured."""
    missing = "asr_turns=0" if asr_turns == 0 else None
    try:
        outcomes = [one.outcome for rows in scored.values() for one in rows]
        # The agent's own texts too: a recogniser that does not know a wrong answer would blame the voice for it.
        texts = [*reference_texts(outcomes), *(turn.text for outcome in outcomes for turn in outcome.agent if turn.text)]
        recogniser = BigramRecogniser(texts) if not missing and texts else None
        missing = missing or (None if texts else "no reference texts to build the recogniser from")
    except ImportError as error:
        recogniser, missing = None, f"the package pocketsphinx is not installed ({error})"
    except InputError as error:
        recogniser, missing = None, str(error)
    for name, rows in scored.items():
        found = spoken_text(rows, recogniser, asr_turns, seed) if recogniser else {"spoken_wer": {"not_run": missing}}
        report["sets"][name] |= found


def choose_examples(scored: Mapping[str, Sequence[Scored]], most: int) -> list[Example]:
    """The worst conversations of all sets first, then a third of faultless ones, those with most barge-ins."""
    rows = [Example(name, one) for name, row in scored.items() for one in row]
    bad = sorted((e for e in rows if e.scored.mistakes), key=lambda e: -e.scored.mistakes)
    good = sorted((e for e in rows if not e.scored.mistakes), key=lambda e: -len(e.scored.turn_taking.barge_ins))
    wanted_good = min(len(good), max(most - len(bad), -(-most // 3)))
    return [*bad[: most - wanted_good], *good[:wanted_good]]


def _write(out: Path, report: dict[str, Any], scored: Mapping[str, Sequence[Scored]], shown: Sequence[Example]) -> None:
    full = report | {"conversations": {name: [one.as_dict() for one in rows] for name, rows in scored.items()}}
    with whole_file(out / "report.json") as path:
        path.write_text(json.dumps(full, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    rows = [row for name, conversations in scored.items() for row in events(name, conversations)]
    with whole_file(out / "events.csv") as path, path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["set", "conversation", "time", "event", "verdict", "latency", "detail"])
        writer.writeheader()
        writer.writerows(rows)
    with whole_file(out / "report.html") as path:
        write_html(path, report, shown)
    with whole_folder(out / "timelines", replace=True) as folder:
        for example in shown:
            name = file_name(f"{example.set_name}-{example.scored.outcome.id}")
            write_png(folder / f"{name}.png", example.scored)
    if shown:
        outcome = min(shown, key=lambda e: e.scored.mistakes).scored.outcome
        with whole_file(out / "conversation.wav") as path:
            soundfile.write(path, outcome.stereo(outcome.sample_rate), outcome.sample_rate)


def _versions() -> dict[str, str]:
    found = {"nemo_duplex": __version__, "python": platform.python_version()}
    for name in _VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
