"""What must not be twice: ids in a corpus; speakers, recordings and unseen questions in train and in an evaluation set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
from lhotse import SupervisionSegment
from lhotse.cut import Cut

from nemo_duplex.conversation import Speaker
from nemo_duplex.synthesis.inspection.findings import Findings
from nemo_duplex.words import words

#: Engines that are for evaluation alone: no voice of theirs may be in train.
FOR_EVALUATION_ALONE = ("flite",)


@dataclass
class Met:
    """What was met in a part of a set, in so few bytes that a corpus of any size fits into memory: hashes, and some names.

    Args:
        ids: of cuts.
        voices: {(engine, voice) of the users: the first cut with it}.
        engines: {engine of the users: the first cut with it}.
        recordings: {hash of a user's channel with speech, or of the name of a recording in it: the first cut with it}.
        questions: hashes of what users say.
        unseen: {hash of a question that is marked as unseen in train: a cut with it, and the question}.
        rates: {(speaker, sample rate): [number of cuts, the first one]}.
    """

    ids: list[int] = field(default_factory=list)
    voices: dict[tuple[str, str], str] = field(default_factory=dict)
    engines: dict[str, str] = field(default_factory=dict)
    recordings: dict[int, str] = field(default_factory=dict)
    questions: set[int] = field(default_factory=set)
    unseen: dict[int, tuple[str, str]] = field(default_factory=dict)
    rates: dict[tuple[str, int], tuple[int, str]] = field(default_factory=dict)

    def add(self, cut: Cut, turns: Mapping[Speaker, Sequence[SupervisionSegment]], user: np.ndarray | None) -> None:
        """Notes a cut; `user` is the user's channel (S,), None where it could not be read."""
        self.ids.append(hashed(cut.id))
        custom = cut.custom or {}
        for s in turns["user"]:
            own = s.custom or {}
            engine, voice = (str(own.get(key) or custom.get(key) or "") for key in ("engine", "voice"))
            if voice:
                self.voices.setdefault((engine, voice), cut.id)
            if engine:
                self.engines.setdefault(engine, cut.id)
            question = " ".join(words(s.text or ""))
            if question:
                self.questions.add(hashed(question))
                if own.get("seen") is False:
                    self.unseen.setdefault(hashed(question), (cut.id, s.text))
        for recording in _named_recordings(custom, turns["user"]):
            self.recordings.setdefault(hashed(f"recording {recording}"), f"{cut.id}, recording {recording}")
        if user is not None and turns["user"]:
            self.recordings.setdefault(hashed(np.round(user * 32767).astype(np.int16).tobytes()), f"{cut.id}, its user channel")

    def add_rate(self, cut: Cut, speaker: str, rate: int) -> None:
        """Notes the sample rate of a channel."""
        count, first = self.rates.get((speaker, rate), (0, cut.id))
        self.rates[speaker, rate] = count + 1, first

    def update(self, other: Met) -> None:
        """Adds what was met in the next part."""
        self.ids += other.ids
        self.voices = other.voices | self.voices
        self.engines = other.engines | self.engines
        self.recordings = other.recordings | self.recordings
        self.questions |= other.questions
        self.unseen = other.unseen | self.unseen
        for key, (count, first) in other.rates.items():
            known = self.rates.get(key, (0, first))
            self.rates[key] = known[0] + count, known[1]


def check_rates(sets: Mapping[str, Met], found: Findings) -> None:
    """Finds sets in which cuts have different sample rates in one channel: Lhotse would play some at the wrong pitch."""
    for name, met in sets.items():
        for speaker in ("user", "agent"):
            rates = sorted(((n, rate, first) for (who, rate), (n, first) in met.rates.items() if who == speaker), reverse=True)
            for count, rate, first in rates[1:]:
                detail = f"{name}: {count} with {rate} Hz, the first {first}; {rates[0][0]} with {rates[0][1]} Hz"
                found.error(f"{speaker} channels of different sample rates", detail)


def check_splits(train: Mapping[str, Met], evaluation: Mapping[str, Met], found: Findings) -> None:
    """Finds what evaluation sets share with train and should not."""
    for name, met in train.items():
        for engine, cut in met.engines.items():
            if engine.split()[0].split(":")[0] in FOR_EVALUATION_ALONE:
                found.error("an engine in train that is for evaluation alone", f"{cut}: {engine}")
        for other_name, other in evaluation.items():
            pair = f"{name} and {other_name}"
            for engine, voice in sorted(met.voices.keys() & other.voices.keys()):
                both = f"{met.voices[engine, voice]} and {other.voices[engine, voice]}"
                found.error("a user's voice in train and in evaluation", f"{pair}: {voice} {engine}".rstrip() + f" ({both})")
            for key in met.recordings.keys() & other.recordings.keys():
                found.error("a recording in train and in evaluation", f"{other.recordings[key]}, also {met.recordings[key]}")
            for key in met.questions & other.unseen.keys():
                cut, text = other.unseen[key]
                found.error("a question that is marked as unseen and is in train", f"{cut}: {text!r:.80}")


def repeated(met: Mapping[str, Met]) -> set[int]:
    """Hashes of ids that occur more than once in all sets together."""
    ids = np.concatenate([np.zeros(0, np.uint64), *(np.array(m.ids, np.uint64) for m in met.values())])
    unique, counts = np.unique(ids, return_counts=True)
    return {int(one) for one in unique[counts > 1]}


def _named_recordings(custom: Mapping, turns: Sequence[SupervisionSegment]) -> list[str]:
    """Ids of recordings of people that users' turns were taken from, where the corpus names them."""
    named = [(s.custom or {}).get("recording") for s in turns] + [custom.get("recordings")]
    return [str(one) for value in named if value for one in (value if isinstance(value, list) else [value])]


def hashed(content: str | bytes) -> int:
    """64 bits that stand for a text or bytes, such as the id of a cut in `Met.ids`."""
    data = content if isinstance(content, bytes) else content.encode()
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "big")
