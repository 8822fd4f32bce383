"""Which phoneme is spoken when: targets for an ear that learns English from random weights.

An ear that learns word pieces learns two things at once: what speech sounds like, and how English is spelled. Phonemes are the
first one alone. They are a few dozen, each occurs in every other sentence, and word times tell when; what is learnt of them
holds for words that were never heard. hibari's reader (extra voices) gives them, whatever voice says the words.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from nemo_duplex.conversation import Turn
from nemo_duplex.frames import FRAME_RATE, Seconds
from nemo_duplex.inputs import InputError
from nemo_duplex.perception.ctc_data import UNKNOWN, Utterance

#: Targets in a frame of 80 ms, which is about how long a phoneme lasts.
PER_FRAME = 2
#: The target between words.
SILENCE = 0


class PhonemeTargets:
    """The phonemes of utterances whose words have times.

    Args:
        utterances: their words are read, each word once and alone.
        sounds: text -> its phonemes; raises InputError for a text that cannot be read.

    Attributes:
        count: how many targets there are, silence among them.

    Examples:
        >>> from nemo_duplex.conversation import Word
        >>> turn = Turn("user", 0.0, 0.16, "no", words=(Word("no", 0, 0.0, 0.16),))
        >>> utterance = Utterance("a", torch.zeros(0), "no", 0, 0, 0, 0, (turn,))
        >>> phonemes = PhonemeTargets([utterance], list)                  # letters stand for phonemes here
        >>> phonemes.of([turn], frames=3, since=0.0).tolist()             # n is 1, o is 2
        [[1, 1], [2, 2], [0, 0]]
    """

    def __init__(self, utterances: Iterable[Utterance], sounds: Callable[[str], Sequence[str]]) -> None:
        read: dict[str, Sequence[str]] = {}
        for utterance in utterances:
            for word in (word.text for turn in utterance.turns for word in turn.words):
                if word not in read:
                    read[word] = _read(word, sounds)
        known = sorted({phoneme for phonemes in read.values() for phoneme in phonemes})
        ids = {phoneme: i for i, phoneme in enumerate(known, SILENCE + 1)}
        self._words = {word: [ids[phoneme] for phoneme in phonemes] for word, phonemes in read.items()}
        self.count = 1 + len(known)

    def of(self, turns: Iterable[Turn], frames: int, since: Seconds, speed: float = 1.0) -> Tensor:
        """Targets (T, PER_FRAME) of what is heard at `speed` from the time `since` on, in the middle of each half.

        The phonemes of a word are taken to last equally long. UNKNOWN where a turn has no word times or a word cannot be read.
        """
        step, count = FRAME_RATE.seconds / PER_FRAME, frames * PER_FRAME
        targets = torch.full((count,), SILENCE)

        def first_at(time: Seconds) -> int:
            return min(count, max(0, math.ceil((time - since) / speed / step - 0.5)))

        for turn in turns:
            if not turn.words:
                targets[first_at(turn.start) : first_at(turn.end)] = UNKNOWN
            for word in turn.words:
                spoken = self._words.get(word.text) or [UNKNOWN]
                length = (word.end - word.start) / len(spoken)
                for i, phoneme in enumerate(spoken):
                    targets[first_at(word.start + i * length) : first_at(word.start + (i + 1) * length)] = phoneme
        return targets.view(frames, PER_FRAME)


def phoneme_loss(told: Tensor, targets: Tensor) -> Tensor:
    """Mean negative log-likelihood of the phonemes that are known; 0 where none is.

    Args:
        told: (B, T or more, PER_FRAME * phonemes), logits.
        targets: (B, T, PER_FRAME).
    """
    told = told[:, : targets.shape[1]].float().unflatten(2, (PER_FRAME, -1))
    total = cross_entropy(told.flatten(0, 2), targets.flatten(), ignore_index=UNKNOWN, reduction="sum")
    return total / targets.ne(UNKNOWN).sum().clamp(min=1)


def _read(word: str, sounds: Callable[[str], Sequence[str]]) -> Sequence[str]:
    try:
        return sounds(word)
    except InputError:
        return ()
