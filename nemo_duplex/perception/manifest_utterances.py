"""Single utterances of NeMo manifests as training utterances of an ear, and conversations made of several.

Utterances come without their surroundings. In a call there is silence around them, and other turns before; so each lies amid
silence, and some of them, one after the other, make a conversation.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import soxr
from tqdm import tqdm

from nemo_duplex.conversation import Turn, Word
from nemo_duplex.files.nemo_manifest import ManifestRow, NemoManifest
from nemo_duplex.files.odd_rows import OddRow, OddRows
from nemo_duplex.frames import USER_SAMPLE_RATE, Seconds
from nemo_duplex.inputs import InputError
from nemo_duplex.perception.ctc_data import FULL_SCALE, MARGIN_AFTER, MARGIN_BEFORE, Utterance, as_heard
from nemo_duplex.perception.transcripts import Transcripts
from nemo_duplex.words import words

READERS = 2  # threads that decode files
_SLACK: Seconds = 0.1  # by which word times may be late
_BEFORE, _AFTER = (round(margin[1] * USER_SAMPLE_RATE) for margin in (MARGIN_BEFORE, MARGIN_AFTER))  # silence around
_SHORTEST: Seconds = 0.1
_LONGEST: Seconds = 30.0
_SILENT = 3  # of 32768: no sample is louder

#: Turns of a conversation that is made of utterances, and the silence between them.
TURNS = (2, 5)
GAP: tuple[Seconds, Seconds] = (0.2, 2.5)


class Spliced:
    """Samples of recordings at their places amid silence; a slice of it is an array, as of an array.

    Args:
        parts: (sample at which it starts, samples int16 (S,)) of each recording, in their order.
        length: samples in all.

    Examples:
        >>> Spliced([(2, np.array([5, 6], np.int16))], 6)[1:4].tolist()
        [0, 5, 6]
    """

    def __init__(self, parts: Sequence[tuple[int, np.ndarray]], length: int) -> None:
        self.parts, self._length = parts, length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, stretch: slice) -> np.ndarray:
        start, stop, step = stretch.indices(self._length)
        assert step == 1, "a stretch of samples has no steps"
        samples = np.zeros(max(0, stop - start), np.int16)
        for first, part in self.parts:
            begin, end = max(start, first), min(stop, first + len(part))
            if begin < end:
                samples[begin - start : end - start] = part[begin - first : end - first]
        return samples


def manifest_utterances(
    manifests: Sequence[str | Path], odd: OddRows, transcripts: Transcripts | None = None
) -> list[Utterance]:
    """The utterances of NeMo manifests. Their `group` is the `engine` of their row, or else the name of their manifest.

    Args:
        manifests: files.
        odd: counts the rows that cannot be used.
        transcripts: gives rows without a text what is heard; None: they cannot be used.

    Raises:
        InputError: if a manifest is missing, or none of its rows can be used.
    """
    found: list[Utterance] = []
    for path in manifests:
        manifest, before = NemoManifest(path), len(found)
        with ThreadPoolExecutor(READERS) as readers:
            rows = list(manifest)
            found_or_odd = readers.map(partial(_read, transcripts=transcripts), rows)
            each = tqdm(found_or_odd, f"Reading {path}", len(rows), leave=False, unit="", delay=2)
            for row, read in zip(rows, each):
                if isinstance(read, OddRow):
                    odd.add(read, row.place)
                else:
                    found.append(replace(read, group=str(row.other.get("engine") or Path(path).stem)))
        odd.update(manifest.odd)
        if len(found) == before:
            raise InputError(f"manifests: {path} holds no utterance that can be used. {odd.most_frequent()}".rstrip())
    return found


def made_conversations(utterances: Sequence[Utterance], seed: int) -> list[Utterance]:
    """Conversations of `TURNS` utterances each, one after the other at random, with silence (`GAP`) between them.

    Every utterance is in one of them. The samples are those of the utterances, not copies.
    """
    rng = np.random.default_rng(seed)
    order, made = rng.permutation(len(utterances)), []
    position = 0
    while position < len(order):
        chosen = [utterances[i] for i in order[position : position + int(rng.integers(TURNS[0], TURNS[1] + 1))]]
        position += len(chosen)
        made.append(_conversation(chosen, rng))
    return made


def _conversation(chosen: Sequence[Utterance], rng: np.random.Generator) -> Utterance:
    parts: list[tuple[int, np.ndarray]] = []
    turns: list[Turn] = []
    at = _BEFORE
    for utterance in chosen:
        assert isinstance(utterance.audio, Spliced), "conversations are made of utterances of manifests"
        ((_, samples),) = utterance.audio.parts
        parts.append((at, samples))
        turns += [turn.shifted((at - _BEFORE) / USER_SAMPLE_RATE) for turn in utterance.turns]
        at += len(samples) + round(rng.uniform(*GAP) * USER_SAMPLE_RATE)
    length = parts[-1][0] + len(parts[-1][1]) + _AFTER
    first, last = (round(time * USER_SAMPLE_RATE) for time in (turns[0].start, turns[-1].end))
    text, groups = " ".join(turn.text for turn in turns), {utterance.group for utterance in chosen}
    group = groups.pop() if len(groups) == 1 else "several"
    return Utterance(chosen[0].id, Spliced(parts, length), text, first, last, 0, length, tuple(turns), group)


def _read(row: ManifestRow, transcripts: Transcripts | None) -> Utterance | OddRow:
    try:
        return _utterance(row, transcripts)
    except OddRow as odd:
        return odd


def _utterance(row: ManifestRow, transcripts: Transcripts | None) -> Utterance:
    audio, rate = row.samples()
    if len(audio) > 1 and np.abs(audio - audio[0]).max() > 0:
        raise OddRow("several channels that differ", f"{len(audio)} channels", "Keep the speaker's.")
    mono = audio[0] if rate == USER_SAMPLE_RATE else soxr.resample(audio[0], rate, USER_SAMPLE_RATE)
    seconds = len(mono) / USER_SAMPLE_RATE
    if not np.isfinite(mono).all():
        raise OddRow("samples that are no numbers", cure="Write the file again.")
    if not _SHORTEST <= seconds <= _LONGEST:
        raise OddRow(f"not {_SHORTEST:g} to {_LONGEST:g} s long", f"{seconds:.2f} s", "Split longer recordings.")
    samples = (mono * (FULL_SCALE - 1)).round().clip(-FULL_SCALE, FULL_SCALE - 1).astype(np.int16)
    if np.abs(samples).max() <= _SILENT:
        raise OddRow("silence alone", cure="Remove it.")
    if transcripts is not None and not words(row.text):
        heard = transcripts.text(samples, str(row.other.get("language") or "en"))
        row = replace(row, text=heard, other={**row.other, "words": None})
    turn = _turn(row, seconds).shifted(_BEFORE / USER_SAMPLE_RATE)
    if not turn.text:
        raise OddRow("no words in its text", repr(row.text)[:60], "Write down what is said.")
    spoken = Spliced([(_BEFORE, samples)], _BEFORE + len(samples) + _AFTER)
    first, last = (round(time * USER_SAMPLE_RATE) for time in (turn.start, turn.end))
    return Utterance(row.place, spoken, turn.text, first, last, 0, len(spoken), (turn,))


def _turn(row: ManifestRow, seconds: Seconds) -> Turn:
    """What is said, from the first word to the last; without word times as long as the recording."""
    try:
        timed = tuple(
            Word(str(text), int(at), float(start), float(end)) for text, at, start, end in row.other.get("words") or ()
        )
    except (TypeError, ValueError):
        raise OddRow("word times that are none", cure="Give [[text, offset, start, end], ...], or leave them out.") from None
    if any(not 0 <= word.start <= word.end <= seconds + _SLACK for word in timed):
        raise OddRow("word times outside of the recording", f"it has {seconds:.2f} s", "Correct or remove `words`.")
    start, end = (timed[0].start, min(timed[-1].end, seconds)) if timed else (0.0, seconds)
    return as_heard(Turn("user", start, end, row.text, words=timed))
