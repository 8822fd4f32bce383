"""Outputs of a model, joined with the corpus that was played to it: Lhotse Shar, which tells who says what when.

This is the one reader that needs lhotse.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from lhotse import CutSet
from lhotse.cut import Cut

from nemo_duplex.conversation import Conversation, holds
from nemo_duplex.evaluation.outcome import Outcome, questions
from nemo_duplex.evaluation.readers.conversation_rows import USER_TURNS_FROM
from nemo_duplex.evaluation.sound import CutSound
from nemo_duplex.files.odd_rows import OddRow, OddRows
from nemo_duplex.inputs import InputError, existing_folder, one_line

_NEMO_ID = 150  # characters of an id that NeMo keeps


@dataclass(frozen=True)
class Corpus:
    """A corpus on disk.

    Args:
        folder: with a folder `shar` for every set, or with the shards themselves.

    Raises:
        InputError: if there are no shards.
    """

    folder: Path

    def __post_init__(self) -> None:
        existing_folder(self.folder, "corpus")
        if not self._sets():
            raise InputError(
                f"corpus: {self.folder} holds no Lhotse Shar (cuts.*.jsonl.gz), nor does a folder SET/shar. Check the path."
            )

    def cuts(self) -> Iterator[tuple[str, Cut]]:
        """Every cut with the name of its set. Raises InputError if a shard is missing or cannot be read."""
        for name, folder in self._sets().items():
            try:
                for cut in CutSet.from_shar(in_dir=str(folder)):
                    yield name, cut
            except Exception as error:  # lhotse, tarfile and gzip each raise their own
                raise InputError(f"corpus: a shard in {folder} cannot be read ({one_line(error)}). Copy it again.") from error

    def _sets(self) -> dict[str, Path]:
        path = self.folder.resolve()
        own = {path.parent.name if path.name == "shar" else path.name: self.folder}
        below = {folder.parent.name: folder for folder in sorted(self.folder.glob("*/shar"))}
        return {name: folder for name, folder in (own | below).items() if any(folder.glob("cuts.*.jsonl.gz"))}


def joined(outcomes: list[tuple[str, Outcome]], corpus: Corpus, odd: OddRows) -> Iterator[tuple[str, Outcome]]:
    """The outcomes in the order of the corpus, with its turns; those of one without the other are counted as odd.

    Args:
        outcomes: with the names of their sets, which are needed where two sets of the corpus have the same id. A cut's id may
            also be given with `_` for `/`, or cut to 150 characters.
    """
    by_name = {(set_name, outcome.id): outcome for set_name, outcome in outcomes}
    of_any_set: dict[str, list[tuple[str, str]]] = {}
    for set_and_id in by_name:
        of_any_set.setdefault(set_and_id[1], []).append(set_and_id)
    unknown = set(by_name)
    missing: dict[str, list[str]] = {}
    found: set[str] = set()
    for set_name, cut in corpus.cuts():
        names = (cut.id, cut.id.replace("/", "_"), cut.id[:_NEMO_ID])
        keys = [(set_name, name) for name in names] + [key for name in names for key in of_any_set.get(name, ())]
        key = next((key for key in keys if key in unknown), None)
        if key is None:
            missing.setdefault(set_name, []).append(cut.id)
            continue
        unknown.discard(key)
        found.add(set_name)
        try:
            yield set_name, _of_cut(by_name[key], cut)
        except InputError as error:
            odd.add(OddRow("a conversation of the corpus that does not fit", str(error)), f"{set_name}: {cut.id}")
    for set_name in found & set(missing):  # a set of which there is nothing was not asked for
        for name in missing[set_name]:
            odd.add(OddRow("no output of a conversation", cure="Run the model on all of the set."), f"{set_name}: {name}")
    for set_name, name in sorted(unknown):
        cure = "Name outputs by the ids of the corpus' cuts."
        odd.add(OddRow("an output of no conversation of the corpus", cure=cure), f"{set_name}: {name}")


def _of_cut(outcome: Outcome, cut: Cut) -> Outcome:
    recorded = Conversation.from_cut(cut)
    added = {key: value for key, value in outcome.conversation.custom.items() if key != USER_TURNS_FROM}
    conversation = replace(recorded, custom={**added, **recorded.custom})
    user = outcome.user_sound or (CutSound(cut, "recording") if holds(cut, "recording") else None)
    reference = CutSound(cut, "target_audio") if holds(cut, "target_audio") else outcome.reference_sound
    return replace(
        outcome, conversation=conversation, questions=questions(conversation), user_sound=user, reference_sound=reference
    )
