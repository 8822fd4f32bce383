"""Manifests of a bank: which of its files a source needs, who says what in them and when, for training on utterances.

<bank>/manifests/{user,agent}_{train,dev}.jsonl    NeMo manifests, with the keys words, voice, engine, language and split
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from nemo_duplex.conversation import SPEAKERS, Speaker
from nemo_duplex.files.atomic import remove_abandoned
from nemo_duplex.files.nemo_manifest import manifest_writer
from nemo_duplex.frames import Seconds
from nemo_duplex.synthesis.text.sources import Split
from nemo_duplex.synthesis.tts.bank import KeptUtterance
from nemo_duplex.synthesis.tts.utterance import Voice

#: Split and number of a dialogue.
DialogueNumber = tuple[Split, int]


def row(kept: KeptUtterance, voice: Voice, split: Split) -> dict[str, Any]:
    """What a manifest says about an utterance."""
    return {
        "audio_filepath": kept.path,
        "duration": round(kept.duration, 6),
        "text": kept.text,
        "words": [[text, offset, round(start, 4), round(end, 4)] for text, offset, start, end in kept.words],
        "voice": voice.id,
        "engine": voice.engine,
        "language": kept.language,
        "split": split,
    }


class BankManifests:
    """Writes the manifests of a source in the order of its dialogues, in whichever order they are done; use it in a `with`.

    A file of the bank has one row: in dev, if a dialogue of dev needs it. An earlier manifest stays until the block ends.

    Args:
        folder: of the manifests.
        order: all dialogues, those of dev first.

    Examples:
        >>> kept = KeptUtterance(Path("bank/x/ab/1.flac"), "Yes.", 0.5, [["Yes", 0, 0.1, 0.4]], "en")
        >>> with BankManifests(Path("bank/manifests"), iter([("train", 0)])) as manifests:
        ...     manifests.add(("train", 0), [("agent", row(kept, Voice("agent", "hibari"), "train"))])
        >>> Path("bank/manifests/agent_train.jsonl").read_text()[:42]
        '{"audio_filepath": "../x/ab/1.flac", "dura'
    """

    def __init__(self, folder: Path, order: Iterator[DialogueNumber]) -> None:
        self._folder, self._order = folder, order
        self._waiting: dict[DialogueNumber, Sequence[tuple[Speaker, Mapping[str, Any]]]] = {}
        self._written: set[str] = set()
        self._seconds: Counter[str] = Counter()
        self._count: Counter[str] = Counter()

    def __enter__(self) -> BankManifests:
        remove_abandoned(self._folder)
        self._next = next(self._order, None)
        self._names = [f"{speaker}_{split}" for speaker in SPEAKERS for split in get_args(Split)]
        self._add: dict[str, Callable[[Mapping[str, Any]], None]] = {}
        with contextlib.ExitStack() as files:
            for name in self._names:
                self._add[name] = files.enter_context(manifest_writer(self._folder / f"{name}.jsonl"))
            self._files = files.pop_all()
        return self

    def __exit__(self, *error: Any) -> bool | None:
        assert error[0] is not None or self._next is None, f"dialogue {self._next} was not added"
        return self._files.__exit__(*error)

    def add(self, dialogue: DialogueNumber, rows: Sequence[tuple[Speaker, Mapping[str, Any]]]) -> None:
        """Adds what the bank has of a dialogue: who speaks, and a `row`."""
        self._waiting[dialogue] = rows
        while self._next in self._waiting:
            for speaker, about in self._waiting.pop(self._next):
                self._write(f"{speaker}_{about['split']}", about)
            self._next = next(self._order, None)

    def _write(self, name: str, about: Mapping[str, Any]) -> None:
        audio = about["audio_filepath"].stem  # the hash of all that decides its samples
        if audio in self._written:
            return
        self._written.add(audio)
        self._add[name](about)
        self._count[name] += 1
        self._seconds[name] += about["duration"]

    def summary(self) -> list[str]:
        """What was written, as lines to print."""
        return [
            f"{self._folder / name}.jsonl: {self._count[name]} utterances, {_hours(self._seconds[name])}"
            for name in self._names
        ]


def _hours(seconds: Seconds) -> str:
    return f"{seconds / 3600:.2f} h"
