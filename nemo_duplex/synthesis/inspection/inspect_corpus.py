"""Looks at a corpus: what it holds, counted, and dialogues of it to see and hear, as inspect.json and inspect.html."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from nemo_duplex.conversation import Speaker
from nemo_duplex.files.atomic import require_writable, whole_file
from nemo_duplex.files.odd_rows import OddRow
from nemo_duplex.inputs import existing_folder
from nemo_duplex.synthesis.inspection.channel_audio import Channel, channel
from nemo_duplex.synthesis.inspection.findings import Findings
from nemo_duplex.synthesis.inspection.page import Dialogue, write_page
from nemo_duplex.synthesis.inspection.samples import Sample, read_drawn
from nemo_duplex.synthesis.inspection.set_facts import SetFacts
from nemo_duplex.synthesis.inspection.sets import CorpusSet, corpus_sets, speakers_of, summary_of
from nemo_duplex.synthesis.inspection.turn_checks import turns_of
from nemo_duplex.version import __version__

FILES = ("inspect.json", "inspect.html")
_MEASURED = 24  # dialogues of each set whose levels are measured
_SILENT_DB = -65.0
_NO_NOISE_DB = -100.0  # what is below has no signal-to-noise ratio


def inspect_corpus(
    folder: str | Path,
    speakers: Mapping[str, str] | None = None,
    examples: int = 8,
    report: str | Path | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Counts what a corpus holds and writes inspect.json and inspect.html.

    The manifests are read once, in constant memory; audio is read of the dialogues that are drawn alone.

    Args:
        folder: a corpus of `synthesize`, or any folder with two-channel Lhotse Shar.
        speakers: {name: user or agent}; None: they are called so.
        examples: dialogues on the page, of all sets in turn.
        report: folder to write to; None: the corpus, or what a single Shar folder lies in, because Lhotse takes every file in
            such a folder for a field.
        progress: whether to show a progress bar.

    Returns:
        What inspect.json says.

    Raises:
        InputError: for a folder without Shar, or one that cannot be written.
    """
    root = existing_folder(folder, "inspect")
    sets = corpus_sets(root, "inspect")
    out = Path(report) if report is not None else place_of_report(root, sets)
    require_writable(out, "report", FILES)
    roles = speakers_of(speakers)
    facts, samples = _counted(sets, roles, examples, progress)
    shown = _shares(samples, examples)
    dialogues: list[Dialogue] = []
    levels: dict[str, Any] = {}
    for one in sets:
        measured = _read(one, samples[one.name], roles)
        chosen = {drawn.cut_id for drawn in samples[one.name].drawn()[: shown[one.name]]}
        read = list(_looked_at(measured, chosen, dialogues))
        if any(read):
            levels[one.name] = _levels(read)
    summaries = _summaries(root, sets)
    result = {
        "folder": str(root),
        "hours": round(sum(f.seconds for f in facts.values()) / 3600, 4),
        "sets": {name: f.describe() | {"levels": levels.get(name, {})} for name, f in facts.items()},
        "left_out": {name: found for dataset, summary in summaries.items() for name, found in _left_out(summary, dataset)},
        "made_with": {key: version for s in summaries.values() for key, version in (s.get("versions") or {}).items()},
        "nemo_duplex": __version__,
    }
    with whole_file(out / "inspect.json") as path:
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    with whole_file(out / "inspect.html") as path:
        write_page(path, result, facts, dialogues)
    return result | {"page": str(out / "inspect.html")}


def place_of_report(root: Path, sets: list[CorpusSet]) -> Path:
    """Where the report goes: into the corpus, or beside a Shar folder that was given itself."""
    return root.resolve().parent if any(one.folder == root for one in sets) else root


def lines(result: Mapping[str, Any]) -> Iterator[str]:
    """What to print of `inspect_corpus`, in short."""
    for name, facts in result["sets"].items():
        gaps = facts["gaps"]
        line = f"{name}: {facts['hours']:.2f} h, {facts['cuts']} cuts"
        if facts["user_turns"]:
            line += f", {facts['user_turns']} user and {facts['agent_turns']} agent turns"
            line += f", {facts['user_words']} and {facts['agent_words']} words, {facts['voices']} voices"
        yield line
        if facts["agent_turns"] and facts["user_turns"]:
            answers, rest = gaps["user_to_agent"], gaps["agent_to_user"]
            shown = [f"agent after user {answers['p50']} s"] if answers["count"] else []
            if rest["count"]:
                shown.append(f"user after agent {rest['p50']} s (5 to 95 %: {rest['p5']} to {rest['p95']})")
            rate = "" if facts["barge_in_rate"] is None else f" ({100 * facts['barge_in_rate']:.0f} % of answers that go on)"
            barge_ins = f"{facts['barge_ins']} barge-ins{rate}, {facts['cut_answers']} answers cut"
            yield f"  gaps: {', '.join(shown) or 'none'}; {barge_ins}"
        if facts["events"]:
            yield "  events: " + ", ".join(f"{found['count']} {kind}" for kind, found in facts["events"].items())
        for title, key in (("engines", "hours_of_engines"), ("datasets", "hours_of_datasets")):
            if facts[key]:
                yield f"  {title}: " + ", ".join(f"{who} {hours:.2f} h" for who, hours in facts[key].items())
        for reason, found in facts["odd"].items():
            yield f"  odd: {found['count']} x {reason}: {found['first'][0]}"
    for name, reasons in result["left_out"].items():
        for reason, found in reasons.items():
            yield f"left out of {name}: {found['count']} x {reason}"
    yield f"{result['page']}: open it in a browser to see and hear dialogues"


def _counted(
    sets: list[CorpusSet], roles: Mapping[str, Speaker], examples: int, progress: bool
) -> tuple[dict[str, SetFacts], dict[str, Sample]]:
    facts = {one.name: SetFacts(one.name, roles) for one in sets}
    samples = {one.name: Sample(max(_MEASURED, examples)) for one in sets}
    shards = [shard for one in sets for shard in one.shards]
    for shard in tqdm(shards, desc="inspect", unit=" shards", disable=not progress, delay=2):
        own = facts[shard.set_name]
        try:
            for cut in shard.manifest():
                dialogues = own.dialogues
                eventful = own.add(cut)
                if own.dialogues > dialogues:
                    samples[shard.set_name].add(cut, shard, eventful)
        except OddRow as odd:
            own.odd.error(odd.reason, odd.detail)
    return facts, samples


def _shares(samples: Mapping[str, Sample], examples: int) -> dict[str, int]:
    """How many dialogues of each set the page shows: one of each in turn, as long as there are."""
    shown = dict.fromkeys(samples, 0)
    there = {name: len(sample.drawn()) for name, sample in samples.items()}
    while sum(shown.values()) < min(examples, sum(there.values())):
        for name in shown:
            if shown[name] < there[name] and sum(shown.values()) < examples:
                shown[name] += 1
    return shown


def _read(one: CorpusSet, sample: Sample, roles: Mapping[str, Speaker]) -> Iterator[Dialogue]:
    for cut in read_drawn(one.shards, sample.drawn()):
        channels: dict[Speaker, Channel] = {}
        for speaker in ("user", "agent"):
            try:
                read = channel(cut, speaker)  # type: ignore[arg-type]
            except OddRow:
                continue
            if read is not None:
                channels[speaker] = read  # type: ignore[index]
        yield Dialogue(one.name, cut, turns_of(cut, roles, Findings()), channels)


def _looked_at(measured: Iterator[Dialogue], chosen: set[str], shown: list[Dialogue]) -> Iterator[dict[str, float]]:
    """The levels of each dialogue; those that were chosen are kept for the page."""
    for dialogue in measured:
        if dialogue.cut.id in chosen:
            shown.append(dialogue)
        yield _levels_of(dialogue)


def _levels_of(dialogue: Dialogue) -> dict[str, float]:
    """RMS of the speech of each channel, and of what is around the user's, in dB against full scale."""
    found = {}
    for speaker, read in dialogue.channels.items():
        spans = [(s.start, s.end) for s in dialogue.turns[speaker]]
        spoken = [level for start, end in spans for level in read.within(max(0.0, start), end) if level > _SILENT_DB]
        if spoken:
            found[f"{speaker}_speech_db"] = _mean_db(np.array(spoken))
        around = read.levels[read.outside(spans, 0.16, 0.5)]
        if speaker == "user" and len(around):
            found["noise_db"] = _mean_db(around)
            if spoken and found["noise_db"] > _NO_NOISE_DB:
                found["snr_db"] = found["user_speech_db"] - found["noise_db"]
    return found


def _levels(read: list[dict[str, float]]) -> dict[str, Any]:
    keys = sorted({key for levels in read for key in levels})
    found: dict[str, Any] = {"measured_on": len(read)}
    for key in keys:
        values = [levels[key] for levels in read if key in levels]
        found[key] = {f"p{share}": round(float(np.percentile(values, share)), 1) for share in (5, 50, 95)}
    return found


def _mean_db(levels: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(10 ** (levels / 10))))


def _summaries(root: Path, sets: list[CorpusSet]) -> dict[str, dict[str, Any]]:
    """{name: what its corpus.json says} of the corpora in a folder: the folder itself (""), or the datasets of a mixture."""
    names = dict.fromkeys(["", *(one.name.rpartition("/")[0] for one in sets)])
    return {name: summary for name in names if (summary := summary_of(root / name))}


def _left_out(summary: Mapping[str, Any], dataset: str) -> Iterator[tuple[str, Any]]:
    """Rows of the source and dialogues of the sets that were not used, by reason, as corpus.json counts them."""
    places = {"the source": summary.get("source"), **(summary.get("sets") or {})}
    found = {name: place.get("left_out") for name, place in places.items() if isinstance(place, dict)}
    if isinstance(source := summary.get("source"), dict):
        found["the recordings"] = source.get("recordings_left_out")
    for name, reasons in found.items():
        if isinstance(reasons, dict) and reasons:
            yield f"{dataset}: {name}" if dataset else name, reasons
