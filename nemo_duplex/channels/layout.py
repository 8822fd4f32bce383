"""What one frame of the agent holds: a text token and K speech codes, with the special ids of both.

How a turn is laid out on the channels, for an agent heard in frames a..b-1 and a speech delay of 1 (paper, section 3.1).
`turn_marks` says where speech BOS and EOS are:

    beside    frame      a-2   a-1    a    a+1   ...   b-2   b-1    b
              text       BOS   w1    w2    w3    ...   EOS   pad   pad     the text leads, so that
              speech     pad   BOS   c_a  c_a+1  ...  c_b-2 c_b-1  EOS     what is heard is on time

    in_place  frame      a-2   a-1    a    a+1   ...   b-2   b-1    b
              text       pad   BOS   w1    w2    ...   pad   EOS   pad     marks take the place of codes, and
              speech      s     s    BOS  c_a+1  ...  c_b-2 c_b-1  EOS     silence s is spoken in codes

The paper delays speech against text by one token. Delaying the *audio* would make every answer, and every stop, one frame
late; so the text is moved ahead. `in_place` is what NeMo's in-tree model is trained on: it loses the first frame of every turn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from nemo_duplex.inputs import InputError

TurnMarks = Literal["beside", "in_place"]
_CURE = "Take a tokenizer with a pad, bos and eos of its own."


@dataclass(frozen=True)
class ChannelLayout:
    """Vocabularies and special ids of the text channel and the K speech channels.

    Args:
        text_vocab_size: rows of the text embedding, special ids included.
        text_pad, text_bos, text_eos: ids inside that vocabulary, all different.
        num_codebooks: K, speech codes per frame.
        codebook_size: V of one codebook, without specials (4032 in the paper).
        speech_delay: frames by which speech follows text (1 in the paper).
        turn_marks: whether speech BOS and EOS are beside the codes of a turn, or in place of some (NeMo's in-tree model).

    Raises:
        InputError: if ids are shared or out of range, or a size is not positive.

    Examples:
        >>> layout = ChannelLayout(32000, text_pad=0, text_bos=1, text_eos=2, num_codebooks=4, codebook_size=4032)
        >>> layout.speech_vocab_size, layout.text_lead
        (4037, 2)
    """

    text_vocab_size: int
    text_pad: int
    text_bos: int
    text_eos: int
    num_codebooks: int
    codebook_size: int
    speech_delay: int = 1
    turn_marks: TurnMarks = "beside"

    def __post_init__(self) -> None:
        ids = {"pad": self.text_pad, "bos": self.text_bos, "eos": self.text_eos}
        if len(set(ids.values())) != 3:
            raise InputError(f"Text pad, bos and eos must be three different ids, got {ids}. {_CURE}")
        for name, value in ids.items():
            if not 0 <= value < self.text_vocab_size:
                raise InputError(f"Text {name} id {value} is outside the vocabulary of {self.text_vocab_size}. {_CURE}")
        if self.num_codebooks < 1 or self.codebook_size < 1:
            raise InputError(f"A layout needs codebooks, got {self.num_codebooks} of size {self.codebook_size}.")
        if self.speech_delay < 0:
            raise InputError(f"Speech cannot lead text: speech_delay is {self.speech_delay}, expected 0 or more.")
        if self.turn_marks not in get_args(TurnMarks):
            raise InputError(f"turn_marks is {self.turn_marks!r}, expected one of {', '.join(get_args(TurnMarks))}.")

    @property
    def speech_vocab_size(self) -> int:
        """Rows of one speech embedding: codes and five specials (4037 in the paper, section 5.1)."""
        return self.codebook_size + 5

    @property
    def speech_bos(self) -> int:
        """Stands one frame before the first code of a turn; `in_place`, on it."""
        return self.codebook_size

    @property
    def speech_eos(self) -> int:
        """Stands one frame after the last code of a turn."""
        return self.codebook_size + 1

    @property
    def speech_start(self) -> int:
        """What precedes the very first frame of a conversation; never a target."""
        return self.codebook_size + 2

    @property
    def speech_pad(self) -> int:
        """The agent is silent; `in_place`, never a target."""
        return self.codebook_size + 3

    @property
    def speech_spare(self) -> int:
        """Unused row, so that the vocabulary has the paper's size."""
        return self.codebook_size + 4

    @property
    def text_shift(self) -> int:
        """Frames by which the text channel is ahead of the corpus."""
        return self.speech_delay + 1 if self.turn_marks == "beside" else 1

    @property
    def speech_lag(self) -> int:
        """Frames by which the speech channels are behind the corpus: `in_place`, a longer delay makes answers late."""
        return 0 if self.turn_marks == "beside" else self.speech_delay - 1

    @property
    def text_lead(self) -> int:
        """Frames by which a turn's text BOS precedes its first audible frame."""
        return self.speech_delay + 1

    @property
    def text_tail(self) -> int:
        """Frames by which a turn's text EOS precedes the first frame in which it is no longer heard."""
        return self.text_shift + self.speech_lag
