"""Files of people's dialogues as a source: imported into a store when they are first opened, then read from it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from nemo_duplex.files.atomic import remove_abandoned, whole_folder
from nemo_duplex.files.cache import cache_folder
from nemo_duplex.files.odd_rows import OddRows
from nemo_duplex.inputs import InputError, NotInstalled
from nemo_duplex.synthesis.text.dialogue_import import CannotSay, DialogueImport, TooLong
from nemo_duplex.synthesis.text.dialogue_store import DIALOGUES, DialogueStore
from nemo_duplex.synthesis.text.recordings import recording_files, tar_of
from nemo_duplex.synthesis.text.row_files import row_files
from nemo_duplex.synthesis.text.sources import Dialogue, Exchange, Split, UserRecording
from nemo_duplex.synthesis.text.spoken_form import normalizer_version
from nemo_duplex.synthesis.text.text_spec import TextSpec

_FORMAT = 3  # of a store, and of how rows are read; a store of another one is not used
_LOCK = ".lock"  # in the folder of stores: held by the process that imports


class _MadeMeanwhile(Exception):
    """Another process has made the store, where files cannot be locked. It may be reading it, so that one stays."""


class DialogueFiles:
    """Dialogues from files, folders or patterns of files: JSON lines, JSON lists, Parquet. Each row is one of

        {"id": ..., "turns": [{"role": "user", "text": ...}, {"role": "agent", "text": ...}]}
        {"messages": [{"role": "user", "content": ...}, ...]}              ultrachat_200k, OpenAI, Anthropic
        {"conversations": [{"from": "human", "value": ...}, ...]}          ShareGPT
        {"contents": [{"role": "user", "parts": [{"text": ...}]}, ...]}    Gemini
        {"id": ..., "data": ["user text", "agent text", ...]}              UltraChat
        {"instruction": ..., "input": ..., "output": ...}                  Alpaca
        {"query": ..., "answers": [...], "passages": {...}}                MS MARCO
        {"question": ..., "answer": ...}                                   pairs; other keys by `TextSpec.form`

    System messages before the first turn and the use of tools are left out of a dialogue. A row with anything else that is
    unusual is left out as a whole, counted by its reason, and named in `describe()`.
    Every tenth dialogue by the hash of its id is kept for dev. Dialogue `index` of a split is row `index` modulo their number.

    The files are read once. What comes of them is kept in a store, which is found again by the files (their size and times of
    change), the spec, and what the voices can say; so a process opens a source of any size in a moment.

    Args:
        paths: of files, folders and patterns.
        spec: how rows are read, and which are left out.
        cannot_say: called with the speaker of every text, the text and its language; what it returns is why no voice can say
            it, or None. So a row is left out.
        too_long: called with the speaker, text and language of the first 100 dialogues, dev's before train's; what it returns
            is why no voice says it in time, or None. So a short file has no dialogue that cannot be used, and no split of such
            dialogues alone; in a long one, a dialogue with a long turn is found when it is spoken (`cuts.py`).
        voices: names what the two depend on.
        store: folder in which stores are kept; None: `$XDG_CACHE_HOME/nemo_duplex` or `~/.cache/nemo_duplex`.

    Raises:
        InputError: if a file is missing, empty, not JSON or without a usable row, if more rows than allowed are left out, or
            there are fewer than two dialogues.

    Examples:
        >>> rows = ['{"instruction": "Say one.", "output": "One."}', '{"data": ["Say two.", "Two."]}']
        >>> _ = Path("dialogues.jsonl").write_text(chr(10).join(rows))
        >>> DialogueFiles(["dialogues.jsonl"], store="texts").describe()["dialogues"]
        {'dev': 1, 'train': 1}
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        spec: TextSpec | None = None,
        cannot_say: CannotSay | None = None,
        too_long: TooLong | None = None,
        voices: str = "",
        store: str | Path | None = None,
    ) -> None:
        spec = spec or TextSpec()
        files, self._gap = row_files(paths, "source"), spec.recording_gap
        home = Path(store) if store is not None else cache_folder()
        normalizer, self._missing = _normalizer(spec)
        self.folder = (
            home / f"text-{_key([*files, *_with_audio(recording_files(spec.recordings))], spec, [voices, normalizer])}"
        )
        if (opened := _opened(self.folder)) is None:
            with _alone(self.folder):
                if (opened := _opened(self.folder)) is None:
                    with contextlib.suppress(_MadeMeanwhile), whole_folder(self.folder, replace=True) as unfinished:
                        reader = DialogueImport(files, spec, normalizer is not None, cannot_say, too_long)
                        reader.write(unfinished)
                        if _opened(self.folder) is not None:
                            raise _MadeMeanwhile
                    opened = DialogueStore(self.folder)
        self._store = opened
        self._odd = OddRows.of_state(opened.facts["odd"])
        self._odd_recordings = OddRows.of_state(opened.facts["odd_recordings"])
        self._odd.check("source", sum(opened.facts["dialogues"].values()), spec.max_odd_rows, "max_odd_rows")
        self._languages: dict[str, str | None] = {}

    @property
    def dialogues(self) -> Path:
        """The file with all of its dialogues, as JSON lines in the form of `turns`."""
        return self.folder / DIALOGUES

    def dialogue(self, split: Split, index: int, rng: np.random.Generator) -> Dialogue:
        return self._dialogue(split, index % self._store.count(split))

    def _dialogue(self, split: Split, number: int) -> Dialogue:
        row = self._store.row(split, number)
        pairs = zip(row["turns"][::2], row["turns"][1::2])
        return Dialogue(row["id"], tuple(self._exchange(split, user, agent) for user, agent in pairs), row["language"])

    def _exchange(self, split: Split, user: Mapping[str, Any], agent: Mapping[str, Any]) -> Exchange:
        recording, text = None, user["text"]
        if (audio := user.get("audio")) is not None:
            words = tuple((word, start, end) for word, start, end in audio["words"])
            tar = None if audio["tar"] is None else tuple(audio["tar"])
            recording = UserRecording(**{**audio, "words": words, "tar": tar}, gap=self._gap)
            text = f"{recording.text} {text}"
        seen = split == "train" or self._store.is_seen(text)
        return Exchange(text, agent["text"], agent["text"], "imported", seen, recording=recording)

    def agent_texts(self, count: int) -> list[str]:
        languages: dict[str, str | None] = {}
        for number in range(self._store.count("train")):
            dialogue = self._dialogue("train", number)
            for exchange in dialogue.exchanges:
                if len(languages) < count:
                    languages.setdefault(exchange.agent, dialogue.language)
            if len(languages) == count:
                break
        self._languages |= languages
        return list(languages)

    def language_of(self, agent_text: str) -> str | None:
        return self._languages[agent_text]

    def describe(self) -> dict[str, Any]:
        """What `corpus.json` says. `sha256` is of what is said, whatever files it was read from."""
        facts = self._store.facts
        return {
            "kind": "files",
            "files": facts["files"],
            "sha256": self._sha256(),
            "dialogues": facts["dialogues"],
            "left_out": self._odd.describe(),
            "recordings_left_out": self._odd_recordings.describe(),
            "taken_out": facts["taken_out"],
        }

    def _sha256(self) -> str:
        """Of what is said; the gap after recordings counts, where there are recordings."""
        content: str = self._store.facts["sha256"]
        if not self._store.facts["recordings"]:
            return content
        return hashlib.sha256(f"{content} {self._gap}".encode()).hexdigest()

    def summary(self) -> list[str]:
        """What was imported and what was not, as lines to print."""
        facts = self._store.facts
        lines = [*self._missing, f"source: {sum(facts['dialogues'].values())} dialogues; rows left out: {len(self._odd)}"]
        lines += _reasons(self._odd)
        if self._odd_recordings:
            lines += [f"text.recordings: rows left out: {len(self._odd_recordings)}", *_reasons(self._odd_recordings)]
        if facts["taken_out"]:
            counts = ", ".join(f"{kind} ({count})" for kind, count in facts["taken_out"].items())
            lines.append(f"  taken out of turns, because nobody says it: {counts}")
        return lines


def _reasons(odd: OddRows) -> list[str]:
    return [f"  {found['count']} x {reason}: {found['first'][0]}" for reason, found in odd.describe().items()]


def _normalizer(spec: TextSpec) -> tuple[str | None, list[str]]:
    """What writes numbers out in words, and lines about what is not installed."""
    if not spec.normalize:
        return None, []
    try:
        return normalizer_version(), []
    except NotInstalled as error:
        return None, [str(error)]


def _key(files: Sequence[Path], spec: TextSpec, others: list[str | None]) -> str:
    """Changes with all that a store depends on."""
    settings = asdict(spec)
    del settings["max_odd_rows"]  # it ends a run or changes nothing
    del settings["recording_gap"]  # it is made when the turn is spoken
    seen = [[str(file.resolve()), *_stat(file)] for file in files]
    made_of = json.dumps([_FORMAT, settings, others, seen], sort_keys=True)
    return hashlib.sha256(made_of.encode(errors="replace")).hexdigest()[:24]


def _with_audio(cuts: Sequence[Path]) -> list[Path]:
    """The manifests, and the archives beside those of a Shar."""
    return [file for path in cuts for file in (path, tar_of(path)) if file.is_file()]


def _stat(file: Path) -> tuple[int, ...]:
    found = file.stat()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def _opened(folder: Path) -> DialogueStore | None:
    """The store in a folder; None if there is none or it is damaged."""
    try:
        return DialogueStore(folder)
    except (OSError, ValueError, KeyError):
        return None


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Waits until no other process imports into `folder`, then removes what a killed one left."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder.parent / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        tempfile.TemporaryFile(dir=folder.parent).close()
    except OSError as error:
        raise InputError(
            f"text.store: {folder.parent} cannot be written ({error.strerror}). Give a folder that can: text.store=PATH."
        ) from error
    try:
        with contextlib.suppress(OSError):  # a file system without locks: two processes write the same, each in its folder
            fcntl.flock(lock, fcntl.LOCK_EX)  # NFS locks files that are open for writing alone
        remove_abandoned(folder.parent)
        yield
    finally:
        os.close(lock)
