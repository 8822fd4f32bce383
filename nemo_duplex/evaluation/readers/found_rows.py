"""Rows as the readers find them, whatever the files: what `outcome_of` takes, and where it is from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from nemo_duplex.evaluation.outcome import Outcome
from nemo_duplex.evaluation.readers.conversation_rows import outcome_of
from nemo_duplex.evaluation.sound import Cropped


class FoundRow(NamedTuple):
    """A conversation in somebody's files.

    Args:
        set_name: of the set that it belongs to.
        place: the file and line, or the folder, for errors.
        row: as `outcome_of` takes it.
        folder: that its audio files are relative to.
        crops: whether its channels may go on after the conversation's end, and are heard until then.
    """

    set_name: str
    place: str
    row: Any
    folder: Path
    crops: bool = False

    def outcome(self) -> Outcome:
        """The outcome that it holds, not listened to yet. Raises OddRow as `outcome_of` does."""
        found = outcome_of(self.row, self.folder)
        return cropped(found) if self.crops else found


def cropped(outcome: Outcome) -> Outcome:
    """The outcome with channels that end with the conversation, where they are longer."""
    user, agent = (
        None if sound is None else Cropped(sound, outcome.duration) for sound in (outcome.user_sound, outcome.agent_sound)
    )
    return replace(outcome, user_sound=user, agent_sound=agent)
