"""Opens what a model did, whatever wrote it: the one entrance of the readers.

format               what there is
rows                 conversations.jsonl, or another JSONL of such rows, with or without sounds beside it
sounds               sound files by name, without JSONL
nemo                 pred_wavs/ and metadatas/ of NeMo's ResultsLogger
recordings           cut.jsonl of recorded sessions
full_duplex_bench    {task}/{ID}/input.wav, output.wav and an annotation
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from nemo_duplex.evaluation.outcome import Outcome
from nemo_duplex.evaluation.readers.bench_tree import is_bench_sample, rows_of_bench
from nemo_duplex.evaluation.readers.conversation_files import is_conversations, row_files, rows_of_files
from nemo_duplex.evaluation.readers.found_rows import FoundRow, cropped
from nemo_duplex.evaluation.readers.listening import listen_all
from nemo_duplex.evaluation.readers.nemo_results import METADATA, WAVS, rows_of_nemo
from nemo_duplex.evaluation.readers.session_recordings import CUT, rows_of_recordings
from nemo_duplex.evaluation.readers.sound_files import rows_of_sounds, sounds_below
from nemo_duplex.files.odd_rows import OddRow, OddRows
from nemo_duplex.inputs import InputError, did_you_mean, existing_folder

_READERS: dict[str, Callable[[Path, OddRows], Iterator[FoundRow]]] = {
    "rows": rows_of_files,
    "sounds": rows_of_sounds,
    "nemo": rows_of_nemo,
    "recordings": rows_of_recordings,
    "full_duplex_bench": rows_of_bench,
}
FORMATS = ("auto", *_READERS)
_SHARDS = "cuts.*.jsonl.gz"
_ROWS = (".json", ".jsonl", ".json.gz", ".jsonl.gz", ".ndjson")


def open_outputs(
    path: str | Path,
    format: str = "auto",
    *,
    corpus: str | Path | None = None,
    pad: bool = False,
    swap: bool = False,
    max_odd_rows: float = 0.1,
    limit: int | None = None,
) -> Outputs:
    """What a model did, from its files.

    Args:
        path: folder or file.
        format: one of `FORMATS`; auto tells it by the files.
        corpus: Lhotse Shar, or a corpus of ours, that was played to the model: its turns are the user's.
        pad: whether the two channels may have different lengths; silence is added to the shorter one.
        swap: whether the first of two channels is the agent.
        max_odd_rows: largest share of conversations that may be left out, 0 to 1.
        limit: at most so many conversations of each set.

    Raises:
        InputError: if there is nothing at `path`, or its format is unknown or cannot be told.
    """
    if format not in FORMATS:
        raise InputError(f"format={format}: expected one of {', '.join(FORMATS)}.{did_you_mean(format, FORMATS)}")
    if not 0 <= max_odd_rows <= 1:
        raise InputError(f"max_odd_rows={max_odd_rows}: expected a share, 0 to 1.")
    if limit is not None and limit < 1:
        raise InputError(f"limit={limit}: expected at least 1, or null for all conversations.")
    path = Path(path)
    if not path.is_file():
        existing_folder(path, "outputs")
    found = format_of(path) if format == "auto" else format
    return Outputs(path, found, None if corpus is None else Path(corpus), pad, swap, max_odd_rows, limit)


@dataclass
class Outputs:
    """The conversations of a model. Open them with `open_outputs`, whose arguments are explained there.

    Attributes:
        odd: what is left out and why; complete after one pass.

    Examples:
        >>> import numpy as np, soundfile
        >>> silence, buzz = np.zeros(32000), np.sign(np.sin(np.arange(16000))) / 4
        >>> for name, parts in {"a_user.wav": (buzz, silence), "a_agent.wav": (silence, buzz)}.items():
        ...     soundfile.write(name, np.concatenate(parts), 16000)
        >>> outputs = open_outputs(".")
        >>> [(outcome.id, outcome.user, outcome.speech) for _, outcome in outputs.listened()]
        [('a', [(0.0, 1.0)], ((2.0, 3.0),))]
    """

    path: Path
    format: str
    corpus: Path | None = None
    pad: bool = False
    swap: bool = False
    max_odd_rows: float = 0.1
    limit: int | None = None
    odd: OddRows = field(default_factory=OddRows)
    _over_limit: int = 0
    _places: dict[tuple[str, str], str] = field(default_factory=dict)

    def __iter__(self) -> Iterator[tuple[str, Outcome]]:
        """The conversations with the names of their sets; nobody has listened to them.

        Raises:
            InputError: if a file that everything depends on cannot be read. Whether too many are odd, `listened` says.
        """
        self.odd, self._over_limit = OddRows(), 0
        found = self._of_files() if self.corpus is None else self._of_corpus(self.corpus)
        taken: Counter[str] = Counter()
        for set_name, outcome in found:
            taken[set_name] += 1
            if self.limit is None or taken[set_name] <= self.limit:
                yield set_name, outcome
            else:
                self._over_limit += 1

    def listened(self, vad: str = "energy", workers: int = 1) -> Iterator[tuple[str, Outcome]]:
        """The conversations that can be scored (`listening.listened`), in order.

        Args:
            vad: what finds speech: energy or silero.
            workers: processes that share the work.

        Raises:
            InputError: after the last one, if none can be used, or a larger share than `max_odd_rows` cannot.
        """
        names: list[tuple[str, str]] = []

        def outcomes() -> Iterator[Outcome]:
            for set_name, outcome in self:
                names.append((set_name, outcome.id))
                yield outcome

        usable = 0
        for number, answer in enumerate(listen_all(outcomes(), vad, workers, self.pad)):
            set_name, name = names[number]
            if isinstance(answer, OddRow):
                self.odd.add(answer, self._places.get((set_name, name), f"{set_name}: {name}"))
            else:
                usable += 1
                yield set_name, answer
        self.odd.check("outputs", usable + self._over_limit, self.max_odd_rows, "max_odd_rows", "conversations")
        if not usable:
            raise InputError(f"outputs: {self.path} holds no conversations (format {self.format}). Check the path.")

    def _of_files(self) -> Iterator[tuple[str, Outcome]]:
        for found, outcome in self._read():
            yield found.set_name, outcome

    def _of_corpus(self, corpus: Path) -> Iterator[tuple[str, Outcome]]:
        from nemo_duplex.evaluation.readers.corpus_conversations import Corpus, joined

        read = list(self._read())
        crops = {(found.set_name, outcome.id) for found, outcome in read if found.crops}
        every = bool(read) and len(crops) == len(read)
        outcomes = [(found.set_name, outcome) for found, outcome in read]
        for set_name, outcome in joined(outcomes, Corpus(corpus), self.odd):
            yield set_name, cropped(outcome) if every else outcome

    def _read(self) -> Iterator[tuple[FoundRow, Outcome]]:
        self._places = {}
        for found in _READERS[self.format](self.path, self.odd):
            try:
                outcome = found.outcome()
                first = self._places.setdefault((found.set_name, outcome.id), found.place)
                if first != found.place:
                    raise OddRow("an id that is there twice", f"{outcome.id}, first in {first}", "Rename one of the two.")
            except OddRow as reason:
                self.odd.add(reason, found.place)
                continue
            if self.swap:
                outcome = replace(outcome, user_sound=outcome.agent_sound, agent_sound=outcome.user_sound)
            yield found, outcome


def format_of(path: Path) -> str:
    """The format of a file or folder.

    Raises:
        InputError: if it cannot be told, with what was looked for.
    """
    if path.is_file():
        if path.name != CUT and not path.name.endswith(_ROWS):
            raise InputError(
                f"outputs: {path} is neither JSONL nor a folder. Give the folder of the sounds, or conversations.jsonl."
            )
        return "recordings" if path.name == CUT else "rows"
    found = [name for name, is_there in _SIGNS.items() if is_there(path)]
    if len(found) > 1:
        raise InputError(f"outputs: {path} may be {' or '.join(found)}. Say which: format={found[0]}.")
    if found:
        return found[0]
    if any(path.glob(_SHARDS)) or any(path.glob(f"*/shar/{_SHARDS}")):
        raise InputError(
            f"outputs: {path} is a corpus. Give it as corpus=..., and as outputs the folder of what the model said."
        )
    if row_files(path):
        return "rows"
    if any(sounds_below(path)):
        return "sounds"
    raise InputError(
        f"outputs: {path} holds neither conversations.jsonl, nor sound files, nor {WAVS} and {METADATA} of NeMo, nor a "
        "recording's cut.jsonl. docs/how-to/score-any-model.md shows the forms."
    )


#: What tells a format whatever else is there.
_SIGNS: dict[str, Callable[[Path], bool]] = {
    "rows": lambda path: any(map(is_conversations, path.rglob("conversations.*"))),
    "nemo": lambda path: (path / WAVS).is_dir() or (path / METADATA).is_dir(),
    "recordings": lambda path: any(path.rglob(CUT)),
    "full_duplex_bench": lambda path: any(map(is_bench_sample, [path, *path.glob("*"), *path.glob("*/*")])),
}
