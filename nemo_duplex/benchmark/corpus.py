"""Whether a corpus is understood by an ear that was not trained on it: Whisper's word errors, turn by turn, and DistillMOS.

Every turn is heard by itself, in its own channel, with a margin: that of the user as it is on disk, so with the noise and the
room of the corpus. Turns that are cut off, unfinished or not English are left out; quality is not told of less than a second
of speech.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from lhotse import SupervisionSegment
from lhotse.cut import Cut
from tqdm import tqdm

from nemo_duplex.benchmark.machine import cpu_threads, describe_machine
from nemo_duplex.benchmark.table import Table
from nemo_duplex.conversation import SPEAKERS, Speaker
from nemo_duplex.evaluation.confidence import estimate_ratio
from nemo_duplex.evaluation.speech.distillmos import DistillMOS
from nemo_duplex.evaluation.speech.joined_speech import joined_speech
from nemo_duplex.evaluation.speech.normalized_text import word_errors
from nemo_duplex.evaluation.speech.whisper import Whisper
from nemo_duplex.files.odd_rows import OddRow, OddRows
from nemo_duplex.frames import Seconds
from nemo_duplex.inputs import InputError, NotInstalled
from nemo_duplex.synthesis.inspection.channel_audio import channel
from nemo_duplex.synthesis.inspection.findings import Findings
from nemo_duplex.synthesis.inspection.samples import Sample, read_drawn
from nemo_duplex.synthesis.inspection.sets import CorpusSet, corpus_sets, speakers_of
from nemo_duplex.synthesis.inspection.turn_checks import turns_of

_MARGIN: Seconds = 0.2
_WORST = 10


@dataclass(frozen=True)
class CorpusSetting:
    """What is measured; the keys of `conf/benchmark.yaml` that say "corpus" or nothing.

    Args:
        data: the corpus.
        dialogues: that are heard, of all sets alike, drawn by a hash of their ids.
        quality: whether DistillMOS judges the agent's turns.
        threads: of the CPU; the recogniser has one.
    """

    data: str | None = None
    dialogues: int = 200
    quality: bool = True
    threads: int = 1


@dataclass(frozen=True)
class HeardTurn:
    """A turn and what was heard of it.

    Args:
        of: its cut.
        set_name, speaker, voice, engine: whose it is.
        text, transcript: what it says and what Whisper hears.
        errors, words: of the transcript; of the text.
        mos: DistillMOS; None where it was not judged, or is too short to be.
    """

    of: str
    set_name: str
    speaker: Speaker
    voice: str
    engine: str
    text: str
    transcript: str
    errors: int
    words: int
    mos: float | None = None


@dataclass
class Ears:
    """The judges that are installed; of the others, why not. `mos`: of the agent's turns in each dialogue, joined; `odd`: what
    could not be read."""

    whisper: Whisper
    quality: DistillMOS | None = None
    not_run: str | None = field(default=None)
    mos: list[float] = field(default_factory=list)
    odd: OddRows = field(default_factory=OddRows)


def benchmark_corpus(setting: CorpusSetting) -> dict[str, Any]:
    """Listens to a corpus.

    Returns:
        `channels`: word errors of each; `groups`: of each set, channel and engine; `voices`: the worst of the users;
        `unread`: shards and channels that cannot be read; `worst`: the turns with the most errors; `quality`: DistillMOS of the
        agent, of the turns of a dialogue joined and of each turn alone (short ones are rated lower, as they are), or `not_run`
        and why.

    Raises:
        InputError: if there is no corpus, or nothing in it that can be heard.
        NotInstalled: if Whisper is missing.
    """
    if setting.data is None:
        raise InputError("what=corpus listens to a corpus: give data=FOLDER.")
    sets = corpus_sets(setting.data, "data")
    with cpu_threads(setting.threads):
        ears = _ears(setting.quality)
        heard = list(_heard(sets, setting.dialogues, ears))
    if not heard:
        said = f"data: {setting.data} has no whole English turn to listen to. {ears.odd.most_frequent()}"
        raise InputError(said.strip())
    agent_mos = [t.mos for t in heard if t.mos is not None]
    users = [t for t in heard if t.speaker == "user"]
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": describe_machine("cpu"),
        "setting": asdict(setting),
        "dialogues": len({t.of for t in heard}),
        "channels": {who: _errors([t for t in heard if t.speaker == who]) for who in SPEAKERS},
        "groups": _grouped(heard, lambda t: f"{t.set_name}, {t.speaker}, {t.engine or 'unknown engine'}"),
        "voices": dict(list(_grouped(users, lambda t: f"{t.engine} {t.voice}".strip()).items())[:_WORST]),
        "quality": _quality(agent_mos, ears),
        "unread": ears.odd.describe(),
        "worst": [asdict(t) for t in sorted(heard, key=lambda t: (-t.errors, t.of))[:_WORST] if t.errors],
    }


def corpus_tables(result: Mapping[str, Any]) -> list[Table]:
    """Word errors by channel, by set and engine, by voice; quality; the worst turns."""
    about = [f"{result['date']}, {result['machine']}", f"{result['dialogues']} dialogues, turn by turn, Whisper tiny.en int8"]
    about += [f"left out: {found['count']} x {reason}: {found['first'][0]}" for reason, found in result["unread"].items()]
    columns = ["", "word errors", "95 %", "words"]
    quality = result["quality"]
    said = quality["not_run"] or "; ".join(
        f"mean {of['mean']:.2f}, 5th percentile {of['p5']:.2f}, {of[what]} {what}"
        for what, of in (("dialogues", quality["of_dialogues"]), ("turns", quality["of_turns"]))
        if of[what]
    )
    tables = [
        Table("Word errors", [*about, f"DistillMOS of the agent: {said}"], columns, _rows(result["channels"])),
        Table("By set, channel and engine", [], columns, _rows(result["groups"])),
        Table("The users' voices that are understood worst", [], columns, _rows(result["voices"])),
    ]
    if result["worst"]:
        rows = [
            [f"{t['of']}, {t['speaker']} {t['voice']}", str(t["errors"]), t["text"], t["transcript"]] for t in result["worst"]
        ]
        tables.append(Table("The turns that are understood worst", [], ["turn", "errors", "says", "heard"], rows))
    return tables


def _ears(quality: bool) -> Ears:
    whisper = Whisper()
    if not quality:
        return Ears(whisper, not_run="not run: quality=false")
    try:
        return Ears(whisper, DistillMOS())
    except NotInstalled as missing:
        return Ears(whisper, not_run=f"not run: {missing}")


def _heard(sets: Sequence[CorpusSet], dialogues: int, ears: Ears) -> Iterator[HeardTurn]:
    samples = {one.name: Sample(dialogues) for one in sets}
    for one in sets:
        for shard in one.shards:
            try:
                for cut in shard.manifest():
                    if "target_audio" in (cut.custom or {}):
                        samples[one.name].add(cut, shard, eventful=False)
            except OddRow as odd:  # what comes before is heard
                ears.odd.add(OddRow(odd.reason), odd.detail)
    left = [one for one in sets if samples[one.name].drawn()]
    read = 0
    with tqdm(total=dialogues, desc="corpus", unit=" dialogues", delay=2) as bar:
        for number, one in enumerate(left):
            share = (dialogues - read) // (len(left) - number)
            drawn = samples[one.name].drawn()[:share]
            before = read
            for cut in read_drawn(one.shards, drawn):
                try:
                    yield from _heard_cut(one.name, cut, ears)
                except OddRow as odd:
                    ears.odd.add(OddRow(odd.reason), odd.detail)
                read += 1
                bar.update()
            for _ in range(len(drawn) - (read - before)):
                ears.odd.add(OddRow("a dialogue whose shard cannot be read"), one.name)


def _heard_cut(set_name: str, cut: Cut, ears: Ears) -> Iterator[HeardTurn]:
    """The whole turns of both channels.

    Raises:
        OddRow: if a channel cannot be decoded.
    """
    for speaker, turns in turns_of(cut, speakers_of(None), Findings()).items():
        whole = [s for s in turns if _is_whole(s)]
        read = channel(cut, speaker) if whole else None
        whole = [s for s in whole if read is not None and s.start < read.duration and s.end > 0]
        if read is None or not whole:
            continue
        for s in whole:
            yield _heard_turn(set_name, cut, s, read.samples, read.sample_rate, ears)
        if speaker == "agent" and ears.quality is not None:
            joined = joined_speech(read.samples, read.sample_rate, [(s.start, s.end) for s in whole])
            mos = ears.quality.score(joined, read.sample_rate)
            ears.mos += [] if mos is None else [mos]


def _is_whole(s: SupervisionSegment) -> bool:
    custom = s.custom or {}
    english = (s.language or "en").lower().startswith("en")
    return english and bool((s.text or "").strip()) and not {"cut", "unfinished", "full_text"} & set(custom)


def _heard_turn(set_name: str, cut: Any, s: SupervisionSegment, samples: np.ndarray, rate: int, ears: Ears) -> HeardTurn:
    custom, own = cut.custom or {}, s.custom or {}
    speaker: Speaker = "agent" if s.speaker == "agent" else "user"
    audio = samples[max(0, round((s.start - _MARGIN) * rate)) : round((s.end + _MARGIN) * rate)]
    transcript = ears.whisper.transcribe(audio, rate)
    errors, words = word_errors(s.text, transcript)
    mos = ears.quality.score(audio, rate) if ears.quality is not None and speaker == "agent" else None
    voice, engine = str(own.get("voice") or custom.get("voice") or ""), str(own.get("engine") or "")
    engine = engine or (str(custom.get("engine") or "") if speaker == "user" else str(custom.get("agent_engine") or "agent"))
    return HeardTurn(cut.id, set_name, speaker, voice, engine, s.text, transcript, errors, words, mos)


def _errors(turns: Sequence[HeardTurn]) -> dict[str, Any]:
    """Errors over words, pooled; the interval is a bootstrap over dialogues."""
    parts: dict[str, tuple[int, int]] = {}
    for t in turns:
        errors, words = parts.get(t.of, (0, 0))
        parts[t.of] = errors + t.errors, words + t.words
    return estimate_ratio(list(parts.values()), proportion=False).as_dict()


def _grouped(turns: Sequence[HeardTurn], key: Any) -> dict[str, Any]:
    """{group: word errors}, the worst first."""
    groups: dict[str, list[HeardTurn]] = {}
    for t in turns:
        groups.setdefault(key(t), []).append(t)
    found = {name: _errors(own) for name, own in groups.items()}
    return dict(sorted(found.items(), key=lambda item: -(item[1]["value"] or 0)))


def _quality(of_turns: Sequence[float], ears: Ears) -> dict[str, Any]:
    if not ears.mos:
        return {"not_run": ears.not_run or "not run: the agent has no whole turns with a second of speech"}
    return {"not_run": None, "of_dialogues": _spread(ears.mos, "dialogues"), "of_turns": _spread(of_turns, "turns")}


def _spread(mos: Sequence[float], what: str) -> dict[str, Any]:
    if not mos:
        return {"mean": None, "p5": None, what: 0}
    return {"mean": float(np.mean(mos)), "p5": float(np.percentile(mos, 5)), what: len(mos)}


def _rows(errors: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    return [[name, _percent(e["value"]), _interval(e["ci95"]), f"{e['n']:.0f}"] for name, e in errors.items()]


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def _interval(ci95: Sequence[float] | None) -> str:
    return "–" if ci95 is None else f"{100 * ci95[0]:.1f} to {100 * ci95[1]:.1f} %"
