"""What `examples/make_bank.py` does: speaks all that a source of dialogues needs into a bank, once.

With `manifests`, it also keeps what quick voices say, and lists all that the source needs (`bank_manifests`).

With `takes`, a dialogue is said by so many users and no others. So the turns of a source are a finite list, the same for every
corpus that is made of it, and slow voices speak it before any corpus is made. What is said beside turns (`events`, hesitations)
is not in the list: it is spoken and kept when a corpus is made.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from nemo_duplex.conversation import Speaker
from nemo_duplex.files.atomic import remove_abandoned, require_space, require_writable
from nemo_duplex.files.odd_rows import OddRow
from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.bank_manifests import BankManifests, DialogueNumber, row
from nemo_duplex.synthesis.corpus_spec import CorpusSpec, corpus_spec
from nemo_duplex.synthesis.executors import parse_slice, run_locally
from nemo_duplex.synthesis.mixture import parts_of
from nemo_duplex.synthesis.opened_corpus import OpenedCorpus
from nemo_duplex.synthesis.ray_data import map_on_ray_data
from nemo_duplex.synthesis.ray_executor import RayCluster, connected
from nemo_duplex.synthesis.spoken_turns import spoken_at_all
from nemo_duplex.synthesis.text.sources import Split
from nemo_duplex.synthesis.tts.bank import KeptUtterance
from nemo_duplex.synthesis.tts.cast import Cast
from nemo_duplex.synthesis.tts.utterance import Voice

_CHUNK = 16  # dialogues that a local process speaks before it says that it did, and of which slices are made
_BYTES_PER_SECOND = 33e3  # of FLAC of one voice at 24 kHz, in 16 bits
_SECONDS_PER_LETTER = 0.07


@dataclass(frozen=True)
class Chunk:
    """Some dialogues of a split, spoken one after the other."""

    split: Split
    first: int
    count: int


@dataclass(frozen=True)
class Filling:
    """What is spoken, and what of it is told.

    Args:
        all_voices: whether the bank keeps what quick voices say, too; and whether rows of manifests are made.
        only_kept: whether slow voices speak nothing more.

    Examples:
        >>> Filling(all_voices=True)
        Filling(all_voices=True, only_kept=False)
    """

    all_voices: bool = False
    only_kept: bool = False


@dataclass(frozen=True)
class Filled:
    """What was done of some dialogues.

    Args:
        num_dialogues: how many they are.
        counts: of each engine, as `fill_bank` returns them.
        rows: of manifests, for each dialogue: who speaks, and the row.

    Examples:
        >>> filled = Filled(1, {"kokoro": Counter(spoken=2, kept=1)}, [])
        >>> filled.counts["kokoro"].total()
        3
    """

    num_dialogues: int
    counts: dict[str, Counter[str]]
    rows: list[tuple[DialogueNumber, list[tuple[Speaker, dict[str, Any]]]]]


def make_bank(keys: Mapping[str, Any]) -> None:
    """Fills the bank `out` with what the keys of `conf/make_bank.yaml` need, and prints what it holds.

    Raises:
        InputError: for a value that cannot be, a source or voice that cannot be used, a folder that cannot be written.
    """
    if keys["executor"] not in ("local", "ray"):
        raise InputError(f"executor={keys['executor']}: expected local or ray.")
    folder = Path(keys["out"])
    require_writable(folder, "out")
    reserved = dict(keys["ray"])
    batch, slice_ = reserved.pop("batch"), parse_slice(keys["slice"])
    if keys["only_kept"] and not keys["manifests"]:
        raise InputError(
            "only_kept=true: slow voices speak nothing then, and quick ones are not kept; give manifests=true too."
        )
    cluster = RayCluster(**reserved) if keys["executor"] == "ray" else None
    parts = parts_of({**keys, "bank": keys["out"]})
    specs = [corpus_spec(part.keys) for part in parts]
    with connected(cluster, keys["workers"]) if cluster and len(parts) > 1 else contextlib.nullcontext():
        for part, spec in zip(parts, specs):
            which = f"{part.name}: " * bool(part.name)
            if not spec.source:
                print(
                    f"{which}the built-in dialogues are no list: make the corpus with bank={folder}, which keeps what they need"
                )
                continue
            for line in _opened(spec).summary():
                print(f"{which}{line}")
            manifests = None
            if keys["manifests"] and slice_ == (0, 1):
                manifests = BankManifests(folder / "manifests" / (part.name or ""), _dialogues(_chunks(spec)))
            filling = Filling(all_voices=keys["manifests"], only_kept=keys["only_kept"])
            for line in _lines(fill_bank(spec, keys["workers"], slice_, cluster, batch, filling, manifests)):
                print(f"{which}{line}")
            if keys["manifests"]:
                lines = (
                    manifests.summary() if manifests else ["no manifests: they are written without slice=, after all slices"]
                )
                for line in lines:
                    print(f"{which}{line}")


def fill_bank(
    spec: CorpusSpec,
    workers: int | None = None,
    slice: tuple[int, int] = (0, 1),
    cluster: RayCluster | None = None,
    batch: int = _CHUNK,
    filling: Filling = Filling(),
    manifests: BankManifests | None = None,
) -> dict[str, Counter[str]]:
    """Speaks what the dialogues of a source need into the bank of a spec; what is there stays.

    Args:
        spec: with a bank, a source and takes.
        workers: processes; None: one per CPU core, on a cluster as many as there is room for.
        slice: (i, n): only every n-th chunk of dialogues from i on.
        cluster: of Ray, on which a stage of Ray Data speaks; None: local processes do.
        batch: dialogues that an actor of the stage is given at once.
        filling: what is spoken.
        manifests: written too, of all dialogues: not with a slice.

    Returns:
        {engine: {"spoken", "kept", "refused", "missing": utterances; "milliseconds": of what was spoken; "work": milliseconds
        that took}}.

    Raises:
        InputError: without a source or takes, for a source or voice that cannot be used, a full disk.
    """
    assert spec.cast.bank is not None, "a bank is asked for"
    if not spec.source:
        raise InputError("source=[]: the built-in dialogues are no list that a bank could hold; give files of dialogues.")
    if spec.cast.takes is None:
        raise InputError(
            "takes=null: any user may say any dialogue, which no bank can hold: give the number of takes, such as 2."
        )
    folder = Path(spec.cast.bank)
    _remove_unfinished(folder)
    chunks = list(_chunks(spec))[slice[0] :: slice[1]]
    require_space(folder, int(_bytes_to_come(spec, chunks, filling)))
    found: dict[str, Counter[str]] = {}
    num_dialogues = sum(chunk.count for chunk in chunks)
    with (
        tqdm(total=num_dialogues, desc="bank", unit=" dialogues", disable=not chunks, delay=2) as progress,
        manifests or contextlib.nullcontext(),
    ):
        if cluster is None:
            run = run_locally(partial(_speak, spec, filling), [[chunk] for chunk in chunks], workers)
        else:
            run = map_on_ray_data(partial(_Speaker, spec, filling, chunks), num_dialogues, batch, workers, cluster, folder)
        with closing(run) as results:
            for filled in results:
                progress.update(filled.num_dialogues)
                for engine, counted in filled.counts.items():
                    found.setdefault(engine, Counter()).update(counted)
                if manifests is not None:
                    for dialogue, rows in filled.rows:
                        manifests.add(dialogue, rows)
    return found


def utterances_of(corpus: OpenedCorpus, chunk: Chunk) -> Iterator[tuple[Speaker, str, Voice]]:
    """(speaker, text, voice) of all that the dialogues of a chunk need: each user turn in each take, the answers once."""
    cast = corpus.cast
    assert cast.takes is not None, "takes make the list finite"
    for index in range(chunk.first, chunk.first + chunk.count):
        dialogue = corpus.source.dialogue(chunk.split, index, np.random.default_rng(0))
        users = {cast.take(chunk.split, dialogue.id, number).unperturbed for number in range(cast.takes)}
        for exchange in dialogue.exchanges:
            yield "agent", exchange.agent, replace(cast.agent, language=dialogue.language)
            for user in sorted(users, key=lambda voice: voice.id) if exchange.user else ():
                yield "user", exchange.spoken, replace(user, language=dialogue.language)


def _chunks(spec: CorpusSpec) -> Iterator[Chunk]:
    sizes: dict[Split, int] = _opened(spec).source.describe()["dialogues"]
    for split, size in sizes.items():
        for first in range(0, size, _CHUNK):
            yield Chunk(split, first, min(_CHUNK, size - first))


def _dialogues(chunks: Iterable[Chunk]) -> Iterator[DialogueNumber]:
    """The dialogues of chunks, in order."""
    for chunk in chunks:
        for index in range(chunk.first, chunk.first + chunk.count):
            yield chunk.split, index


class _Speaker:
    """Speaks dialogues of chunks by their numbers, with voices that are opened once."""

    def __init__(self, spec: CorpusSpec, filling: Filling, chunks: list[Chunk]) -> None:
        self._spec, self._filling, self._chunks = spec, filling, chunks
        self._ends = np.cumsum([chunk.count for chunk in chunks])
        _opened(spec)

    def __call__(self, numbers: list[int]) -> Filled:
        return _speak(self._spec, self._filling, [self._dialogue(number) for number in numbers])

    def _dialogue(self, number: int) -> Chunk:
        which = int(np.searchsorted(self._ends, number, side="right"))
        chunk = self._chunks[which]
        return Chunk(chunk.split, chunk.first + number - int(self._ends[which] - chunk.count), 1)


def _speak(spec: CorpusSpec, filling: Filling, chunks: list[Chunk]) -> Filled:
    """Speaks what chunks of dialogues need; what is kept is read, so that a damaged file is made again."""
    corpus = _opened(spec)
    found: dict[str, Counter[str]] = {}
    rows = []
    for split, index in _dialogues(chunks):
        own: list[tuple[Speaker, dict[str, Any]]] = []
        for speaker, text, voice in utterances_of(corpus, Chunk(split, index, 1)):
            is_quick = corpus.cast.is_quick(voice)
            if is_quick and not filling.all_voices:
                continue
            counted = found.setdefault(corpus.cast.engine_of(voice), Counter())
            may_speak = is_quick or not filling.only_kept
            if (kept := _kept(corpus.cast, text, voice, may_speak, counted)) is not None and filling.all_voices:
                own.append((speaker, row(kept, voice, split)))
        rows += [((split, index), own)] if filling.all_voices else []
    return Filled(sum(chunk.count for chunk in chunks), found, rows)


def _kept(cast: Cast, text: str, voice: Voice, may_speak: bool, counted: Counter[str]) -> KeptUtterance | None:
    """What the bank has of an utterance, after it was spoken if it may be; None if it has nothing. Counts what was done."""
    if (kept := cast.kept(text, voice)) is not None:
        counted["kept"] += 1
        return kept
    if not may_speak:
        counted["missing"] += 1
        return None
    begin = time.process_time()
    try:
        spoken = spoken_at_all(cast.keep, text, voice)
    except OddRow:  # the dialogue is left out, and counted, when a corpus is made
        counted["refused"] += 1
        return None
    counted["spoken"] += 1
    counted["milliseconds"] += round(1000 * spoken.duration)
    counted["work"] += round(1000 * (time.process_time() - begin))
    return spoken


def _bytes_to_come(spec: CorpusSpec, chunks: list[Chunk], filling: Filling) -> float:
    """What the missing utterances will take on the disk, by the letters of the first chunk."""
    if not chunks:
        return 0
    cast, letters = _opened(spec).cast, 0
    for _, text, voice in utterances_of(_opened(spec), chunks[0]):
        is_to_be_spoken = filling.all_voices if cast.is_quick(voice) else not filling.only_kept
        letters += len(text) if is_to_be_spoken and cast.kept(text, voice) is None else 0
    per_dialogue = letters * _SECONDS_PER_LETTER * _BYTES_PER_SECOND / chunks[0].count
    return per_dialogue * sum(chunk.count for chunk in chunks)


def _remove_unfinished(folder: Path) -> None:
    """Removes what killed processes were writing."""
    for files in folder.glob("*/*"):
        remove_abandoned(files)


def _lines(found: Mapping[str, Counter[str]]) -> Iterator[str]:
    if not found:
        yield "no voice of this corpus is kept in a bank: all of them speak fast"
    for engine, counted in found.items():
        hours, work = counted["milliseconds"] / 3.6e6, counted["work"]
        rate = f", {counted['milliseconds'] / work:.1f} x real time on one core" if work else ""
        others = f", {counted['refused']} it cannot say" if counted["refused"] else ""
        others += f", {counted['missing']} are missing and left out" if counted["missing"] else ""
        yield f"{engine}: {counted['spoken']} utterances spoken, {hours:.2f} h{rate}; {counted['kept']} were there{others}"


@lru_cache(maxsize=1)
def _opened(spec: CorpusSpec) -> OpenedCorpus:
    return OpenedCorpus(spec)
