"""The turns of a model's text channel, where its file tells the places of BOS and EOS and no turns."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from nemo_duplex.conversation import Turn
from nemo_duplex.frames import Seconds


class Mark(NamedTuple):
    """A BOS or an EOS.

    Args:
        time: when it is heard, Seconds.
        is_bos: else EOS.
        text: that comes after it.
    """

    time: Seconds
    is_bos: bool
    text: str = ""


@dataclass(frozen=True)
class TextChannel:
    """Turns of the text channel, as heard; `unterminated`, `orphan_eos` and `writes` as in `Outcome`."""

    turns: tuple[Turn, ...] = ()
    unterminated: int = 0
    orphan_eos: int = 0
    writes: bool = True


def channel_of(marks: Iterable[Mark], duration: Seconds) -> TextChannel:
    """The turns between marks in any order: a BOS starts one, the next EOS or BOS ends it.

    A turn that nothing ends lasts as long as the conversation, and has `unfinished` in its custom. What is heard after
    `duration` Seconds is left out.

    Examples:
        >>> channel = channel_of([Mark(0.8, True, "Yes."), Mark(2.4, True, "No.")], 8.0)
        >>> [(turn.start, turn.end, turn.text) for turn in channel.turns], channel.unterminated
        ([(0.8, 2.4, 'Yes.'), (2.4, 8.0, 'No.')], 2)
    """
    turns: list[Turn] = []
    begun: Mark | None = None
    unterminated = orphans = 0

    def end(begun: Mark, time: Seconds, **custom: bool) -> None:
        if begun.time < (until := min(time, duration)):
            turns.append(Turn("agent", begun.time, until, " ".join(begun.text.split()), custom=custom))

    for mark in sorted(marks, key=lambda mark: mark[:2]):  # of a BOS and an EOS at one time, EOS comes first
        if begun is not None:
            end(begun, mark.time)
            unterminated += mark.is_bos
        elif not mark.is_bos:
            orphans += 1
        begun = mark if mark.is_bos else None
    if begun is not None:
        end(begun, duration, unfinished=True)
        unterminated += 1
    return TextChannel(tuple(turns), unterminated, orphans)
