"""The agent's turns as a caller hears them, frame by frame, for protocols that speak of turns or responses.

frame      0    1    2    3    4    5    6    7
text      pad  BOS   w1   w2  EOS  pad  pad  pad
sound                    ~~~  ~~~  ~~~               with a text_lead and text_tail of 2: the sound is behind the text
started         *
ended                               *
"""

from __future__ import annotations

from dataclasses import dataclass

from nemo_duplex.channels.layout import ChannelLayout
from nemo_duplex.channels.transcript import ChannelReader


@dataclass(frozen=True)
class TurnEdges:
    """What one frame does to the agent's turn.

    Attributes:
        started: whether a turn begins in this frame; the sound and text of the frame belong to it.
        ended: whether a turn ends with this frame: its sound is the last of the turn. If the frame also starts a turn, the
            one that ends is the one before.
        speaking: whether the frame belongs to a turn.
    """

    started: bool
    ended: bool
    speaking: bool


class AgentTurns:
    """Follows the text channel of one session.

    Args:
        layout: special ids, and when a turn is heard.

    Examples:
        >>> turns = AgentTurns(layout)
        >>> edges = [turns.add(token) for token in (layout.text_pad, layout.text_bos, 7, layout.text_eos)]
        >>> [edge.started for edge in edges]
        [False, True, False, False]
    """

    def __init__(self, layout: ChannelLayout) -> None:
        self._layout = layout
        self._reader = ChannelReader(layout)
        self._frame = 0
        self._open = False  # whether a turn is heard or about to be
        self._until: int | None = None  # the first frame in which the ended turn is no longer heard

    def add(self, token: int) -> TurnEdges:
        """Takes the text token of the next frame."""
        frame, self._frame = self._frame, self._frame + 1
        writing = self._reader.open_turn(frame) is not None
        self._reader.add(frame, token)
        begins = self._reader.open_turn(frame + 1) is not None and (not writing or token == self._layout.text_bos)
        ended = begins and self._open  # the turn before is cut off by a new one
        if begins:
            self._open, self._until = True, None
        elif writing and token == self._layout.text_eos:
            self._until = frame + max(1, self._layout.text_tail)
        speaking = self._open
        if self._until is not None and frame + 1 >= self._until:
            self._open, self._until, ended = False, None, True
        return TurnEdges(begins, ended, speaking)
