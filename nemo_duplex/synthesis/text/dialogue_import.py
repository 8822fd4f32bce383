"""From files of rows to a store of dialogues, row by row; what is left out is counted by its reason, with its place."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import parent_process
from pathlib import Path
from typing import Any, cast

from tqdm import tqdm

from nemo_duplex.conversation import SPEAKERS, Speaker
from nemo_duplex.files.json_rows import JsonRow
from nemo_duplex.files.odd_rows import OddRow, OddRows
from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.text.dialogue_filters import checked, without_greeting
from nemo_duplex.synthesis.text.dialogue_rows import (
    dialogue_id,
    dialogue_label,
    dialogue_language,
    rows_inside,
    spoken_turns,
)
from nemo_duplex.synthesis.text.dialogue_store import StoreWriter
from nemo_duplex.synthesis.text.recordings import Recordings, imported_audio, recording_files
from nemo_duplex.synthesis.text.row_files import name_among, rows_of
from nemo_duplex.synthesis.text.sentences import MOST_WORDS, SENTENCES, plain_sentence, sentences
from nemo_duplex.synthesis.text.spoken_form import is_english, spoken_form
from nemo_duplex.synthesis.text.text_spec import NOT_SPEECH, TextSpec

#: From a text and its language to why no voice can say it, or None.
CannotSay = Callable[[Speaker, str, str | None], OddRow | None]
#: From a speaker, a text and its language to why no voice says it in time, or None.
TooLong = Callable[[Speaker, str, str | None], OddRow | None]

_NUM_MEASURED = 100  # dialogues that are spoken when files are read: a second or two


class DialogueImport:
    """Reads files into a store.

    Args:
        files: to read, in this order.
        spec: how.
        normalizes: whether English texts are written out in words.
        cannot_say, too_long: as for `DialogueFiles`.
    """

    def __init__(
        self,
        files: Sequence[Path],
        spec: TextSpec,
        normalizes: bool = False,
        cannot_say: CannotSay | None = None,
        too_long: TooLong | None = None,
    ) -> None:
        self._files, self._spec, self._cannot_say, self._too_long = files, spec, cannot_say, too_long
        self._allowed = tuple(kind for kind in NOT_SPEECH if kind not in spec.leave_out)
        self._form = None if spec.form == SENTENCES else spec.form
        self._normalizes = normalizes
        self._odd = OddRows()
        self._taken_out: Counter[str] = Counter()

    def write(self, folder: Path) -> None:
        """Fills the empty folder of a store.

        Raises:
            InputError: if a file cannot be read or has no usable row, if more rows than allowed are left out, or fewer than two
                dialogues are left.
        """
        with (
            StoreWriter(folder, self._spec.keep_duplicates) as store,
            Recordings(recording_files(self._spec.recordings), folder / "recordings.part", self._spec.longest_turn) as found,
        ):
            self._recordings = found
            for number, path in enumerate(self._files):
                self._read(number, path, store)
            self._odd.check("source", store.count, self._spec.max_odd_rows, "max_odd_rows")
            if self._too_long is not None:
                self._measure(store, self._too_long)
            if store.count < 2:
                raise InputError(
                    f"source: {store.count} dialogue in {', '.join(map(str, self._files))}; train and dev need at least two. "
                    f"{self._odd.most_frequent()}"
                )
            facts = {"files": list(map(str, self._files)), "taken_out": dict(self._taken_out)}
            store.finish(facts | {"odd": self._odd.state(), "odd_recordings": found.odd.state()})

    def _read(self, number: int, path: Path, store: StoreWriter) -> None:
        odd, before, prefix = OddRows(), store.count, name_among(path, self._files)
        in_a_worker = parent_process() is not None
        found = self._paired(path, store, odd) if self._spec.form == SENTENCES else rows_of(path, "source")
        rows = tqdm(found, f"Reading {path}", unit=" rows", delay=2, leave=False, disable=in_a_worker)
        for row in rows:
            inside = rows_inside(row.value, self._form)
            for position, value in enumerate(inside, start=1):
                where = f"{row.number}.{position}" if len(inside) > 1 else str(row.number)
                own = dialogue_id(value)
                place = f"{path}:{row.line}" + (f" (dialogue {own})" if own else "")
                try:
                    if row.odd is not None:
                        raise row.odd
                    labels = {"source": dialogue_label(value, "source") or path.name.split(".")[0]}
                    labels |= {"topic": topic} if (topic := dialogue_label(value, "topic")) else {}
                    dialogue = {"id": own or f"{prefix}:{where}", **labels, "at": f"{path}:{row.line}"}
                    spoken = self._spoken(value)
                    recording = next((turn["audio"]["id"] for turn in spoken["turns"] if "audio" in turn), None)
                    store.add(dialogue | spoken, number, prefix, group=recording)
                except OddRow as reason:
                    odd.add(reason, place)
        if not odd and store.count == before:
            raise InputError(f"source: {path} holds no rows. Give a file of JSON lines.")
        odd.check(f"source: {path}", store.count - before, most=1.0, key="max_odd_rows")
        self._odd.update(odd)

    def _paired(self, path: Path, store: StoreWriter, odd: OddRows) -> Iterator[JsonRow]:
        """Rows of two sentences of a text file, one of the user and the next one of the agent; `odd` counts those of no use."""
        spec, first, number = self._spec, None, 0
        for line, text in sentences(path, "source"):
            try:
                said = plain_sentence(text, most=spec.max_words or MOST_WORDS)
                reasons = (self._cannot_say and self._cannot_say(speaker, said, spec.language) for speaker in SPEAKERS)
                if reason := next(filter(None, reasons), None):
                    raise reason
                if not spec.keep_duplicates and not store.is_new(said):
                    raise OddRow("a sentence that was there before", repr(said), "Set text.keep_duplicates=true to use it.")
            except OddRow as reason:
                odd.add(reason, f"{path}:{line}")
                continue
            if first is None:
                first = (line, said)
                continue
            number += 1
            turns = [{"role": "user", "text": first[1]}, {"role": "agent", "text": said}]
            yield JsonRow(number, first[0], {"turns": turns})
            first = None

    def _spoken(self, row: Any) -> dict[str, Any]:
        """Language and turns of a row."""
        spec = self._spec
        language = dialogue_language(row) or spec.language
        pairs = spoken_turns(row, self._form, spec.context, self._allowed)
        if not spec.keep_greetings:
            pairs = without_greeting(pairs)
        speeches = list(itertools.chain(*pairs))
        texts = [self._in_words(speech.text, language) for speech in speeches]
        checked(texts, spec)
        for speaker, text in zip(itertools.cycle(SPEAKERS), texts):
            if self._cannot_say is not None and (reason := self._cannot_say(speaker, text, language)):
                raise reason
        self._taken_out.update(kind for speech in speeches for kind in speech.taken_out)
        turns: list[dict[str, Any]] = [
            {"role": role, "text": text} for role, text in zip(itertools.cycle(("user", "agent")), texts)
        ]
        for turn, speech in zip(turns, speeches):
            if speech.audio is not None:
                turn["audio"] = imported_audio(speech.audio, turn["role"], spec.longest_turn)
        if (utterance := self._utterance_id(row)) is not None:
            audio = self._recordings.find(utterance)
            turns[0]["audio"] = audio | {"text": self._in_words(audio["text"], language)}
        return {"language": language, "turns": turns}

    def _utterance_id(self, row: Any) -> str | None:
        """The recording that a row asks about; None if it asks about none.

        Raises:
            OddRow: if it names one and no recordings are given, or the other way round.
        """
        named = row.get("utt_id") if isinstance(row, dict) else None
        if isinstance(named, str | int) and not isinstance(named, bool):
            if not self._spec.recordings:
                raise OddRow("a question about a recording", f"it is {named!r}", "Give text.recordings=[manifest].")
            return str(named)
        if self._spec.recordings:
            raise OddRow("a question without an 'utt_id'", cure='Name the recording that it is about: "utt_id": ...')
        return None

    def _in_words(self, text: str, language: str | None) -> str:
        """A text as it is spoken. Other languages than English stay as they are written."""
        return spoken_form(text) if self._normalizes and is_english(text, language) else text

    def _measure(self, store: StoreWriter, too_long: TooLong) -> None:
        """Removes the dialogues that are too long from the first ones."""

        def reason(row: dict[str, Any]) -> OddRow | None:
            said = ((cast(Speaker, turn["role"]), turn["text"], row["language"]) for turn in row["turns"])
            return next(filter(None, itertools.starmap(too_long, said)), None)

        num_first, odd = min(_NUM_MEASURED, store.count), OddRows()
        for found, place in store.remove_unusable(num_first, reason):
            odd.add(found, place)
        odd.check("source", num_first - len(odd), self._spec.max_odd_rows, "max_odd_rows")
        self._odd.update(odd)
