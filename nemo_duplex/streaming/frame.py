"""What the agent does in one frame, as a caller gets it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class AgentFrame:
    """What the agent does in one frame (80 ms), and whether the user spoke in it.

    Examples:
        >>> frame = model.open_session().push(question)[0]
        >>> frame.index, frame.audio.shape, frame.codes.shape
        (0, (1764,), (2,))
    """

    index: int
    text: str  # what this frame adds to the agent's text; empty in most frames
    token: int  # of the text channel
    codes: np.ndarray  # (K,) int64, specials included
    audio: np.ndarray  # (samples,) float32 at the model's agent_sample_rate
    user_active: bool = False  # as a cheap detector hears it
