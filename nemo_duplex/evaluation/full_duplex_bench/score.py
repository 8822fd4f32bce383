"""Computes the metrics of a tree that this package or somebody else wrote. Needs no torch and no model.

A sample that cannot be scored is left out, counted and named; it is never a failure of the model, and never a success.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from nemo_duplex.evaluation.activity import Vad
from nemo_duplex.evaluation.full_duplex_bench.metric import Metric, mean, pooled_mean, pooled_median, share
from nemo_duplex.evaluation.full_duplex_bench.overlaps import timing
from nemo_duplex.evaluation.full_duplex_bench.published import published
from nemo_duplex.evaluation.full_duplex_bench.samples import Sample, Version, read_tree
from nemo_duplex.evaluation.full_duplex_bench.takeover import Backchannels, backchannels, takeover_latency, takes_over
from nemo_duplex.evaluation.full_duplex_bench.transcript import TimedWord, is_time, read_json, read_transcript
from nemo_duplex.evaluation.full_duplex_bench.wav_files import RATE, duration, read_wav, timing_notes
from nemo_duplex.evaluation.scorer import Scorer
from nemo_duplex.files.odd_rows import OddRow, OddRows
from nemo_duplex.inputs import InputError, existing_file

#: Rates an answer to an interruption from 0 to 5, from (what the user said before, the interruption, the answer); None: failed.
Rater = Callable[[str, str, str], float | None]

_Read = TypeVar("_Read")

FORMULAS = Scorer(
    "full_duplex_bench",
    "d7336bd",
    about="formulas of the official scripts, from the words in output.json; the published figures have words by "
    "parakeet-tdt-0.6b-v2",
)
TIMING = Scorer("full_duplex_bench_timing", "d7336bd", about="overlaps and gaps as get_timing.py finds them; the mean is ours")
BEHAVIOURS = ("C_RESPOND", "C_RESUME", "C_UNCERTAIN_HANDLING", "C_UNKNOWN")
_TAKEOVER_IS = {"pause_handling": "lower", "backchannel": "lower"}
#: Shortest span, shortest pause and margin (Seconds) of Silero in the official scripts: the defaults of its package.
SILERO = (0.25, 0.1, 0.03)
_ROUNDED = 1  # digits of Silero's times in the script for backchannels
_NO_RATING = "needs a judge: give one, or run the official script, which writes rating.json"
_NO_VAD = "needs Silero VAD: pip install silero-vad"
_NO_BEHAVIOUR = "needs a judge: run evaluate.py --task behavior of the benchmark, which writes content_tag.json"


def score_tree(
    bench: str | Path,
    version: Version,
    *,
    vad: Vad | None = None,
    people: str | Path | None = None,
    rater: Rater | None = None,
    provider: str | None = None,
) -> dict[str, Any]:
    """The metrics of every task below a folder.

    Args:
        bench: folder of tasks, or folder of one task, with the outputs of a model.
        version: of the benchmark; v2 has no metrics that can be computed without its judge.
        vad: finds speech, as `activity.SileroVad(*SILERO)` does; None: what needs it is not run.
        people: JSON of {ID: density of people's backchannels over bins of 0.2 s} (`icc_gt_distribution.json`).
        rater: rates answers to interruptions; without one, ratings that the official script wrote are read.
        provider: whose results of v3 are scored; None: the only ones that there are.

    Returns:
        {benchmark, version, tasks: {folder: {task, samples, scored, odd, notes, metrics, published, rows}}, scorers}: `metrics`
        are entries as `Metric.entry` makes them, `rows` what was found in each sample.

    Raises:
        InputError: if there are no samples, or none that can be scored, and for v2.
    """
    if version == "v2":
        raise InputError("version=v2: its scores are those of a judge (Gemini). Run its scripts on the files written.")
    tree = read_tree(bench, version)
    density = _density(people)
    tasks: dict[str, Any] = {}
    left_out = OddRows()
    for folder, samples in tree.samples.items():
        task, odd = samples[0].task.name, OddRows()
        if version == "v3":
            from nemo_duplex.evaluation.full_duplex_bench.score_tool_use import score_tool_use

            found = score_tool_use(samples, provider, odd)
        elif version == "v1.5":
            found = _overlap_handling(samples, vad, odd)
        elif task == "backchannel":
            found = _backchannels(samples, vad, density, odd)
        else:
            found = _takeovers(task, samples, rater, odd)
        left_out.update(odd)
        about = {"task": task, "samples": len(samples), "scored": len(found["rows"]), "odd": odd.describe()}
        notes = [*found.pop("notes", []), *(timing_notes([s.folder for s in samples]) if version != "v3" else [])]
        tasks[folder] = about | {"notes": notes} | found | {"published": published(version, task, folder)}
    left_out.check("bench", sum(task["scored"] for task in tasks.values()), 1.0, "bench", "samples")
    return {
        "benchmark": "Full-Duplex-Bench",
        "version": version,
        "other_folders": list(tree.other_folders),
        "tasks": tasks,
        "scorers": {scorer.name: scorer.as_dict() for scorer in (FORMULAS, TIMING)},
    }


# --- version 1


def _takeovers(task: str, samples: Sequence[Sample], rater: Rater | None, odd: OddRows) -> dict[str, Any]:
    """Pauses, smooth turn-taking, interruptions: from the words alone."""
    rows: list[dict[str, Any]] = []
    early, clean = [], []
    for sample, words in _readable(samples, odd, _words):
        since = None
        if task != "pause_handling":
            try:
                since = sample.event()[0 if task == "smooth_turn_taking" else 1]
            except OddRow as unusable:
                odd.add(unusable, sample.name)
                continue
        taken = takes_over(words)
        latency = takeover_latency(words, since) if taken and since is not None else None
        rows.append({"sample": sample.name, "takeover": taken, "latency": latency} | _rating(task, sample, words, taken, rater))
        if task == "user_interruption" and words and since is not None and words[0].start < since:
            early.append(sample.name)
        if (sample.folder / "clean_output.json").is_file():
            clean.append(sample.name)
    rate = Metric("takeover_rate", "lower" if task in _TAKEOVER_IS else "higher")
    metrics = {rate.name: rate.entry(FORMULAS, share([row["takeover"] for row in rows]))}
    if task != "pause_handling":
        latency_of = Metric("latency", "lower", "s")
        metrics["latency"] = latency_of.entry(FORMULAS, mean([r["latency"] for r in rows if r["latency"] is not None]))
    if task == "user_interruption":
        metrics["rating"] = _rating_entry(rows, rater)
    notes = []
    if early:
        notes.append(
            f"{len(early)} samples have words before the end of the interruption, such as {early[0]}: write output.json with "
            "words after it only, as asr.py --task user_interruption does"
        )
    if clean:
        notes.append(
            f"{len(clean)} samples have a clean_output.json too, such as {clean[0]}: the official script would count those as "
            "samples of their own; keep v1 and v1.5 in separate folders"
        )
    return {"rows": rows, "metrics": metrics, "notes": notes}


def _rating(task: str, sample: Sample, words: Sequence[TimedWord], taken: bool, rater: Rater | None) -> dict[str, Any]:
    """Of the answer to an interruption; only answers that take the turn are rated."""
    if task != "user_interruption" or not taken:
        return {}
    if rater is not None:
        event = sample.annotation()[0]
        texts = str(event.get("context", "")), str(event.get("interrupt", ""))
        return {"rating": rater(*texts, " ".join(word.text for word in words))}
    try:
        found = read_json(sample.folder / "rating.json")
    except OddRow:
        return {"rating": None}
    rating = found.get("rating") if isinstance(found, dict) else None
    return {"rating": float(rating) if is_time(rating) and 0 <= rating <= 5 else None}


def _rating_entry(rows: Sequence[Mapping[str, Any]], rater: Rater | None) -> dict[str, Any]:
    metric, asked = Metric("rating", "higher"), [row for row in rows if "rating" in row]
    ratings = [row["rating"] for row in asked if row["rating"] is not None]
    if rater is None and not ratings:
        return metric.missing(_NO_RATING)
    entry = metric.entry(FORMULAS, mean(ratings)) | {"failed": len(asked) - len(ratings)}
    return entry | {"scorer": "judge" if rater is not None else "rating.json of the official script"}


def _backchannels(
    samples: Sequence[Sample], vad: Vad | None, density: Mapping[str, Any] | None, odd: OddRows
) -> dict[str, Any]:
    names = (Metric("takeover_rate", "lower"), Metric("frequency", "higher", "1/s"), Metric("divergence", "lower"))
    if vad is None:
        return {"rows": [], "metrics": {metric.name: metric.missing(_NO_VAD) for metric in names}}

    def listen(sample: Sample) -> Backchannels:
        sample.check()
        words = _words(sample)
        sound, path = read_wav(sample.folder / "output.wav", RATE), sample.folder / "output.wav"
        speech = [(round(start, _ROUNDED), min(round(end, _ROUNDED), len(sound) / RATE)) for start, end in vad(sound, RATE)]
        people = density.get(sample.folder.name) if density is not None else None
        if density is not None and people is None:
            raise OddRow("an ID without people's backchannels", cure="Give the file with their places for these data.")
        return backchannels(speech, words, duration(path), people)

    rows: list[dict[str, Any]] = [
        {"sample": sample.name} | found._asdict() for sample, found in _readable(samples, odd, listen)
    ]
    takeover, frequency, divergence = names
    metrics = {
        "takeover_rate": takeover.entry(FORMULAS, share([row["takeover"] for row in rows])),
        "frequency": frequency.entry(FORMULAS, mean([row["frequency"] for row in rows])),
        "divergence": divergence.missing("needs people=icc_gt_distribution.json")
        if density is None
        else divergence.entry(FORMULAS, mean([row["divergence"] for row in rows])),
    }
    return {"rows": rows, "metrics": metrics}


def _words(sample: Sample) -> tuple[TimedWord, ...]:
    return read_transcript(sample.folder / "output.json")


# --- version 1.5


def _overlap_handling(samples: Sequence[Sample], vad: Vad | None, odd: OddRows) -> dict[str, Any]:
    """Stop and response latency from the sound; behaviour as the official judge's files say."""
    interrupted = samples[0].task.name == "user_interruption"
    stop = [Metric(name, "lower" if interrupted else None, "s") for name in ("stop_latency", "median_stop_latency")]
    response = [Metric(name, "lower" if interrupted else None, "s") for name in ("response_latency", "median_response_latency")]
    rows: list[dict[str, Any]] = []
    if vad is None:
        metrics = {metric.name: metric.missing(_NO_VAD) for metric in (*stop, *response)}
    else:

        def listen(sample: Sample) -> dict[str, Any]:
            sample.event()
            user, agent = (vad(read_wav(sample.folder / name, RATE), RATE) for name in ("input.wav", "output.wav"))
            return timing(user, agent).as_dict()

        rows = [{"sample": sample.name} | found for sample, found in _readable(samples, odd, listen)]
        stops, responses = ([[b - a for a, b in row[f"latency_{kind}_list"]] for row in rows] for kind in ("stop", "resp"))
        metrics = {
            metric.name: metric.entry(TIMING, estimate(values))
            for metrics_of, values in ((stop, stops), (response, responses))
            for metric, estimate in zip(metrics_of, (pooled_mean, pooled_median), strict=True)
        }
    return {"rows": rows, "metrics": metrics | _behaviours(samples)}


def _behaviours(samples: Sequence[Sample]) -> dict[str, Any]:
    """Shares of the classes in `content_tag.json`, where the official judge wrote them."""
    found: list[str] = []
    for sample in samples:
        try:
            content = read_json(sample.folder / "content_tag.json")
        except OddRow:
            continue
        tags = content.get("behaviour") if isinstance(content, dict) else None
        found += [str(tag) for tag in (tags if isinstance(tags, list) else [])]
    counts = Counter(found)
    entries = {}
    for name in BEHAVIOURS:
        metric = Metric(name.removeprefix("C_").lower())
        entries[metric.name] = (
            metric.entry(TIMING, share([True] * counts[name] + [False] * (len(found) - counts[name])))
            | {"scorer": "content_tag.json of the official script"}
            if found
            else metric.missing(_NO_BEHAVIOUR)
        )
    return entries


# --- reading


def _readable(samples: Sequence[Sample], odd: OddRows, read: Callable[[Sample], _Read]) -> Iterator[tuple[Sample, _Read]]:
    """What is read of each sample; those that are odd are counted."""
    for sample in samples:
        try:
            found = read(sample)
        except OddRow as unusable:
            odd.add(unusable, sample.name)
        else:
            yield sample, found


def _density(people: str | Path | None) -> dict[str, list[float]] | None:
    if people is None:
        return None
    path = existing_file(people, "people")
    try:
        content = read_json(path)
    except OddRow as odd:
        raise InputError(f"people: {odd}.") from None
    if not isinstance(content, dict) or not all(_is_density(values) for values in content.values()):
        raise InputError(f"people: {path} is not {{ID: [numbers]}}. Give icc_gt_distribution.json of the benchmark.")
    return content


def _is_density(values: Any) -> bool:
    return isinstance(values, list) and bool(values) and all(is_time(v) and v >= 0 for v in values) and sum(values) > 0
