"""How the dialogues of a corpus are made: what is drawn for them, and from what."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from nemo_duplex.frames import Seconds
from nemo_duplex.synthesis.mix import Acoustics
from nemo_duplex.synthesis.text.sources import LONGEST_TURN
from nemo_duplex.synthesis.timing import Rhythm


@dataclass(frozen=True)
class Events:
    """What happens beside the turns, all of it off. Shares are chances in 0..1, pairs are ranges to draw from evenly.

    Nothing of this is a user's turn, so the agent goes on speaking, or stays silent. Levels are against the user's turns.

    Args:
        hesitation: share of user turns with a hesitation: um, "let me think", or the first words said twice.
        hesitation_pause: silence around it.
        backchannel: share of answers to which the user says yeah, right, mm-hmm, while the agent speaks.
        backchannel_every: from one to the next in an answer, and from its start to the first.
        backchannel_db: level.
        cough: share of answers during which the user coughs, laughs or clears the throat.
        cough_db: level.
        side_talk: share of answers after which the user talks to somebody else.
        side_talk_db: level: the user has turned away.
        background_voice: share of dialogues in which somebody else talks near by.
        background_voice_db: level.
        babble: share of dialogues with many voices in the background, throughout.
        babble_voices: how many.
        babble_db: level.
        noise: share of dialogues with a recording of `noise_folder` in the background, throughout.
        noise_db: level.
        noise_folder: holds WAV or FLAC files.

    Examples:
        >>> Events(backchannel=0.2).backchannel_every
        (2.0, 5.0)
    """

    hesitation: float = 0.0
    hesitation_pause: tuple[Seconds, Seconds] = (0.1, 0.6)
    backchannel: float = 0.0
    backchannel_every: tuple[Seconds, Seconds] = (2.0, 5.0)
    backchannel_db: tuple[float, float] = (-10.0, -2.0)
    cough: float = 0.0
    cough_db: tuple[float, float] = (-8.0, 6.0)
    side_talk: float = 0.0
    side_talk_db: tuple[float, float] = (-18.0, -8.0)
    background_voice: float = 0.0
    background_voice_db: tuple[float, float] = (-26.0, -12.0)
    babble: float = 0.0
    babble_voices: tuple[int, int] = (3, 6)
    babble_db: tuple[float, float] = (-30.0, -12.0)
    noise: float = 0.0
    noise_db: tuple[float, float] = (-30.0, -8.0)
    noise_folder: str | None = None


@dataclass(frozen=True)
class DialogueSpec:
    """How the dialogues of a corpus are made. Shares are chances in 0..1.

    Args:
        seed: of everything that is drawn.
        pause: share of user turns with pauses inside, where the text allows some.
        pause_length: of such a pause.
        pauses: at most so many in a turn.
        pause_places: `marked`: where the source allows a pause; `any`: before any word that begins no sentence.
        quiet: share of train recordings without speech.
        quiet_length: of such a recording, if `duration` is None.
        duration: of every train cut, filled with dialogues and cut off at the end; None: whole dialogues.
        concatenate: how many whole dialogues of the source one dialogue is made of.
        longest_turn: dialogues with a longer turn are left out (paper, section 4.1).
        rhythm: when who speaks.
        events: what happens beside the turns.
        acoustics: how the user's channel sounds.
        dataset: that they belong to, in a mixture of several; it begins the ids of cuts and is in their custom.

    Examples:
        >>> DialogueSpec(seed=1, duration=12.8).pause
        0.3
    """

    seed: int = 0
    pause: float = 0.3
    pause_length: tuple[Seconds, Seconds] = (0.20, 0.70)
    quiet: float = 0.04
    quiet_length: tuple[Seconds, Seconds] = (8.0, 20.0)
    duration: Seconds | None = None
    longest_turn: Seconds = LONGEST_TURN
    rhythm: Rhythm = field(default_factory=Rhythm)
    acoustics: Acoustics = field(default_factory=Acoustics)
    pauses: int = 1
    pause_places: Literal["marked", "any"] = "marked"
    concatenate: int = 1
    events: Events = field(default_factory=Events)
    dataset: str | None = None
