"""A whole corpus: which shards it has, what makes them, what is written about them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from lhotse import MonoCut
from tqdm import tqdm

from nemo_duplex.conversation import Speaker
from nemo_duplex.files.atomic import require_space, whole_file
from nemo_duplex.files.odd_rows import OddRow, OddRows
from nemo_duplex.frames import FRAME_RATE, Seconds
from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.cuts import DialogueCuts, DialogueSet, DialogueSpec, agent_utterance, spoken_turn, utterance_cut
from nemo_duplex.synthesis.executors import run_locally
from nemo_duplex.synthesis.grammar import Grammar
from nemo_duplex.synthesis.shards import Shard, clear, shards_of
from nemo_duplex.synthesis.text_sources import DialogueFiles, TextSource
from nemo_duplex.synthesis.tts.espeak import EspeakEngine
from nemo_duplex.synthesis.tts.utterance import Utterance
from nemo_duplex.synthesis.tts.voices import AGENT_VOICE, FASTEST_USER, NUM_SPEAKERS, voice_data
from nemo_duplex.version import __version__

SETS = ("train", "dev", "impatient", "agent")

_SHARD_SIZE = {"train": 50, "dev": 50, "impatient": 50, "agent": 300}
_FIELDS = {name: ("recording", "target_audio") for name in SETS} | {"agent": ("recording",)}
_PILOT = 50  # dialogues whose mean length tells how many make the hours asked for, within some 5 %
_BYTES_PER_HOUR = 130e6  # FLAC: 45 to 80 MB user (noise does not compress), 36 MB agent
_SHORTEST: Seconds = 4.0  # of cuts of equal length: a shorter one holds no exchange
_LONGEST: Seconds = 3600.0
_MOST = 1_000_000  # of anything: a typing error must not fill the memory
_FORMAT = 1  # of what is written; shards of different formats are not mixed
_SPEECH_OF_FILES = 2  # of the speech of people's own texts: without silence around it, in the language of its script

_LeftOut = dict[str, dict[str, str]]  # {reason: {what: detail}}


@dataclass(frozen=True)
class CorpusSpec:
    """A corpus. The same spec gives the same bytes, with any number of workers or slices.

    Args:
        hours: of train; approximate where dialogues are whole.
        dev: dialogues of dev, and as many of Impatient.
        agent_utterances: `count` of `TextSource.agent_texts`, the sentences for the codec.
        source: files of dialogues; none: the built-in grammar.
        dialogues: how they are made.
        max_odd_rows: largest share of the rows of `source` that may be left out because they cannot be used.
        language: of the dialogues of `source` that do not name theirs; None: the one of their script.

    Examples:
        >>> CorpusSpec(hours=5, dialogues=DialogueSpec(duration=12.8)).dev
        60
    """

    hours: float = 1.0
    dev: int = 60
    agent_utterances: int = 1500
    source: tuple[str, ...] = ()
    dialogues: DialogueSpec = field(default_factory=DialogueSpec)
    max_odd_rows: float = 0.5
    language: str | None = None

    def __post_init__(self) -> None:
        dialogues = self.dialogues
        if self.language is not None and not self.source:
            raise InputError(f"language={self.language}: the built-in dialogues are English; give `source`, or leave it out.")
        shares = {"pause": dialogues.pause, "quiet": dialogues.quiet, "max_odd_rows": self.max_odd_rows}
        shares |= {"barge_in": dialogues.rhythm.barge_in, "long_silence": dialogues.rhythm.long_silence}
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise InputError(f"{name}={share}: expected a share from 0 to 1.")
        amounts = {"hours": self.hours, "dev": self.dev, "agent_utterances": self.agent_utterances, "seed": dialogues.seed}
        for name, amount in amounts.items():
            if not 0 <= amount <= _MOST:
                raise InputError(f"{name}={amount}: expected 0 to {_MOST}.")
        if not 0 < dialogues.rhythm.response_gap <= 5:
            raise InputError(f"response_gap={dialogues.rhythm.response_gap}: expected seconds, more than 0 and up to 5.")
        if dialogues.duration is not None:
            whole = FRAME_RATE.time(FRAME_RATE.nearest(dialogues.duration))
            if not _SHORTEST <= dialogues.duration <= _LONGEST or abs(whole - dialogues.duration) > 1e-6:
                raise InputError(
                    f"duration={dialogues.duration:g}: expected {_SHORTEST:g} to {_LONGEST:g} s, a multiple of "
                    f"{FRAME_RATE.seconds} s, such as {min(max(whole, _SHORTEST), _LONGEST):g}."
                )


def synthesize(
    spec: CorpusSpec,
    out: Path,
    sets: Sequence[str] = SETS,
    workers: int = 1,
    slice: tuple[int, int] = (0, 1),
    overwrite: bool = False,
) -> dict[str, Any] | None:
    """Makes the sets of a corpus, or what is missing in them.

    Args:
        spec: the corpus.
        out: its folder.
        sets: of `SETS`.
        workers: processes.
        slice: (i, n): only every n-th shard from i on, for one of n jobs on one folder.
        overwrite: whether to remove all sets from the folder first.

    Returns:
        What `corpus.json` says; None while shards of other slices are missing.

    Raises:
        InputError: for an unknown set, a source that cannot be read or spoken, a folder made with other settings, a full disk.
    """
    if not sets:
        raise InputError(f"sets=[]: expected some of {', '.join(SETS)}.")
    if workers < 1:
        raise InputError(f"workers={workers}: expected 1 or more processes.")
    for name in sets:
        if name not in SETS:
            raise InputError(f"sets: {name!r} is none of {', '.join(SETS)}.")
    if overwrite and slice != (0, 1):
        raise InputError("overwrite=true would remove what the other slices make: use an empty folder, or leave slice out.")
    maker = _maker(spec)
    shards = [shard for name in sets for shard in maker.shards(name)]
    if overwrite:
        for name in SETS:
            clear(out, name)
    todo = [shard for shard in shards[slice[0] :: slice[1]] if shard.done(out) is None]
    hours = sum(maker.seconds_per_item(shard.set_name) * shard.count for shard in todo) / 3600
    require_space(out, int(hours * _BYTES_PER_HOUR))
    with tqdm(total=sum(s.count for s in todo), desc="synthesis", unit=" cuts", disable=not todo, delay=2) as progress:
        with closing(run_locally(partial(_make_shard, spec, out), todo, workers)) as markers:
            for marker in markers:
                progress.update(marker["shard"]["count"])
    if any(shard.done(out, check_content=False) is None for shard in shards):
        return None
    return _summarize(maker, out)


def source_summary(spec: CorpusSpec) -> list[str]:
    """What was imported of a corpus' source and what was left out, as lines to print; none for the built-in dialogues."""
    source = _maker(spec).source
    return source.summary() if isinstance(source, DialogueFiles) else []


class _Maker:
    """Makes the shards of one spec in one process."""

    def __init__(self, spec: CorpusSpec) -> None:
        self.spec = spec
        self.engine = EspeakEngine(voice_data())
        self.source: TextSource = Grammar()
        if spec.source:
            if spec.language is not None and (reason := _cannot_say(self.engine, "a", spec.language)):
                raise InputError(f"language={spec.language}: {reason.detail}")
            cannot_say, too_long = partial(_cannot_say, self.engine), partial(_too_long, self.engine)
            self.source = DialogueFiles(spec.source, spec.max_odd_rows, cannot_say, too_long, spec.language)
        self.dialogues = DialogueCuts(spec.dialogues, self.source, self.engine)
        self._seconds: dict[str, Seconds] = {}

    def shards(self, set_name: str) -> list[Shard]:
        return shards_of(set_name, self._num_items(set_name), _SHARD_SIZE[set_name], self._fingerprint)

    def make(self, shard: Shard, out: Path) -> dict[str, Any]:
        content: dict[str, Any] = {}
        cuts = self._utterances(shard, content) if shard.set_name == "agent" else self._dialogues(shard, content)
        return shard.write(out, cuts, _FIELDS[shard.set_name], content)

    def seconds_per_item(self, set_name: str) -> Seconds:
        """Mean length of the first items."""
        if set_name not in self._seconds:
            lengths = list(self._lengths(set_name))
            self._seconds[set_name] = sum(lengths) / max(1, len(lengths))
        return self._seconds[set_name]

    def _lengths(self, set_name: str) -> Iterator[Seconds]:
        if set_name == "agent":
            for text in self.agent_texts[:_PILOT]:
                with contextlib.suppress(OddRow):  # counted where the set is made
                    yield self._agent_utterance(text).duration
        elif set_name == "train" and self.spec.dialogues.duration is not None:
            yield self.spec.dialogues.duration
        else:
            for index in range(_PILOT if set_name == "train" else min(_PILOT, max(self.spec.dev, 1))):
                yield self.dialogues.spoken(cast(DialogueSet, set_name), index).conversation.duration

    def _agent_utterance(self, text: str) -> Utterance:
        return agent_utterance(text, self.engine, self.source.language_of(text))

    @cached_property
    def agent_texts(self) -> list[str]:
        return self.source.agent_texts(self.spec.agent_utterances)

    def _num_items(self, set_name: str) -> int:
        if set_name == "train":
            return math.ceil(self.spec.hours * 3600 / self.seconds_per_item("train") - 1e-6)
        return len(self.agent_texts) if set_name == "agent" else self.spec.dev

    @cached_property
    def _fingerprint(self) -> str:
        spec = _as_written(self.spec) | {"source": ()}  # a source is known by its content, not by its path
        del spec["max_odd_rows"]  # it ends a run or changes nothing
        made_of = {
            "format": _FORMAT,
            "spec": spec,
            "source": self.source.describe()["sha256"],
            "engine": [self.engine.name, self.engine.version],
            "agent": {key: value for key, value in asdict(AGENT_VOICE).items() if value is not None},
        }
        if self.spec.source:
            made_of["speech"] = _SPEECH_OF_FILES
        return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:16]

    def _dialogues(self, shard: Shard, content: dict[str, Any]) -> Iterator[MonoCut]:
        counts: Counter[str] = Counter()
        texts: set[str] = set()
        voices: set[str] = set()
        left_out: _LeftOut = {}
        for index in range(shard.first, shard.first + shard.count):
            cut = self.dialogues.cut(cast(DialogueSet, shard.set_name), index)
            counts.update(_events(cut))
            for name, (reason, detail) in (cut.custom.get("left_out") or {}).items():
                left_out.setdefault(reason, {})[f"dialogue {name}"] = detail
            texts |= {s.custom.get("full_text", s.text) for s in cut.supervisions}
            voices.add(cut.custom["voice"])
            yield cut
        content |= {"counts": dict(counts), "texts": sorted(texts), "voices": sorted(voices), "left_out": left_out}

    def _utterances(self, shard: Shard, content: dict[str, Any]) -> Iterator[MonoCut]:
        num_cuts, seconds = 0, 0.0
        left_out: _LeftOut = {}
        for index, text in enumerate(self.agent_texts[shard.first : shard.first + shard.count], shard.first):
            try:
                spoken = self._agent_utterance(text)
            except OddRow as odd:
                left_out.setdefault(odd.reason, {})[f"answer {index}"] = odd.detail
                continue
            num_cuts, seconds = num_cuts + 1, seconds + spoken.duration
            yield utterance_cut(f"agent-{index:06d}", spoken)
        counts = {"cuts": num_cuts, "seconds": round(seconds, 3)}
        content |= {"counts": counts, "texts": [], "voices": [AGENT_VOICE.id], "left_out": left_out}


def _cannot_say(engine: EspeakEngine, text: str, language: str | None) -> OddRow | None:
    reason = engine.cannot_say(text, replace(AGENT_VOICE, language=language))
    return None if reason is None else OddRow("a text that the voices cannot say", reason)


def _too_long(engine: EspeakEngine, speaker: Speaker, text: str, language: str | None) -> OddRow | None:
    """Why a turn is too long for every voice that may speak it; None if it is not."""
    voice = AGENT_VOICE if speaker == "agent" else FASTEST_USER
    try:
        spoken_turn(engine.speak, speaker, text, replace(voice, language=language))
    except OddRow as odd:
        return odd
    return None


@lru_cache(maxsize=1)
def _maker(spec: CorpusSpec) -> _Maker:
    return _Maker(spec)


def _make_shard(spec: CorpusSpec, out: Path, shard: Shard) -> dict[str, Any]:
    return _maker(spec).make(shard, out)


def _as_written(spec: CorpusSpec) -> dict[str, Any]:
    """The spec in the words of corpus.json and of the fingerprints in it."""
    written = asdict(spec)
    written["dialogues"]["surroundings"] = written["dialogues"].pop("acoustics")
    if spec.language is None:  # so that corpora without it keep their fingerprint
        del written["language"]
    return written


def _events(cut: MonoCut) -> dict[str, float]:
    """Counts what happens in a cut."""
    user = [s.custom for s in cut.supervisions if s.speaker == "user"]
    agent = [s.custom for s in cut.supervisions if s.speaker == "agent"]
    interrupts = cut.custom.get("interrupts", [])
    return {
        "cuts": 1,
        "seconds": cut.duration,
        "user_turns": len(user),
        "agent_turns": len(agent),
        "pauses": sum(len(turn.get("pauses", ())) for turn in user),
        "barge_ins": sum(turn.get("barge_in", False) for turn in user),
        "cut_answers": sum("cut" in turn for turn in agent),
        "unfinished_turns": sum(turn.get("unfinished", False) for turn in user + agent),
        "unseen_questions": sum(not turn["seen"] for turn in user),
        "quiet_cuts": not user,
        "onsets_after_the_first": max(len(interrupts) - 1, 0),
        "interruptions": sum(interrupts),
    }


def _summarize(maker: _Maker, out: Path) -> dict[str, Any]:
    """Writes corpus.json about the complete sets, and texts.txt with the texts of train, for a tokenizer."""
    sets: dict[str, Any] = {}
    for name in SETS:
        markers = [shard.done(out, check_content=False) for shard in maker.shards(name)]
        whole = [marker for marker in markers if marker is not None]
        if whole and len(whole) == len(markers):
            sets[name] = _facts(whole)
            if name == "train":
                texts = sorted({text for marker in whole for text in marker["texts"]})
                with whole_file(out / "texts.txt") as path:
                    path.write_text("".join(f"{' '.join(text.split())}\n" for text in texts), encoding="utf-8")
    summary = {
        "sets": sets,
        "source": maker.source.describe(),
        "spec": _as_written(maker.spec),
        "speakers_to_draw_from": NUM_SPEAKERS,
        "versions": {"nemo_duplex": __version__, maker.engine.name: maker.engine.version, "numpy": np.__version__},
    }
    with whole_file(out / "corpus.json") as path:
        path.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    return summary


def _facts(markers: list[dict[str, Any]]) -> dict[str, Any]:
    """What all shards of a set hold."""
    counts: Counter[str] = Counter()
    for marker in markers:
        counts.update(marker["counts"])
    facts: dict[str, Any] = {"hours": round(counts.pop("seconds", 0) / 3600, 3)}
    facts |= {key: count for key, count in counts.items() if count}
    facts["speakers"] = len({voice for marker in markers for voice in marker["voices"]})
    left_out = OddRows()
    for reason, found in _merged(marker.get("left_out", {}) for marker in markers).items():
        for what, detail in found.items():
            left_out.add(OddRow(reason, detail), what)
    if left_out:
        facts["left_out"] = left_out.describe()
    if counts["onsets_after_the_first"]:
        facts["interruption_rate"] = round(counts["interruptions"] / counts["onsets_after_the_first"], 4)
    return facts


def _merged(parts: Iterable[_LeftOut]) -> _LeftOut:
    whole: _LeftOut = {}
    for part in parts:
        for reason, found in part.items():
            whole.setdefault(reason, {}).update(found)
    return whole
