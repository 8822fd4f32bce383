"""Which dialogues are used: limits on their turns, and greetings that every dialogue of a set begins with."""

from __future__ import annotations

import re
from collections.abc import Sequence

from nemo_duplex.files.odd_rows import OddRow
from nemo_duplex.synthesis.text.sources import too_long
from nemo_duplex.synthesis.text.speakable import Speakable
from nemo_duplex.synthesis.text.text_spec import TextSpec
from nemo_duplex.synthesis.tts.word_times import word_spans

# A turn of more letters and digits is too long in any voice, and is not spoken to find that out: a page takes the fastest voice
# of eSpeak 94 s, and the shortest syllables there are ("through through ...") 36 s.
_LETTERS_PER_SECOND = 60
_GREETING = re.compile(r"(?i)\W*(?:hi|hello|hey|good (?:morning|afternoon|evening)|greetings)(?: there| everyone)?\W*")
_OFFER = re.compile(r"(?i)\W*(?:hi|hello|hey|good (?:morning|afternoon|evening)|greetings)\b.{0,100}\?\W*")

Pairs = list[tuple[Speakable, Speakable]]


def without_greeting(pairs: Pairs) -> Pairs:
    """The pairs without a first one that only greets: "Hi" and "Hello! How can I help you today?".

    Raises:
        OddRow: if nothing is left.
    """
    user, agent = pairs[0]
    if not (_GREETING.fullmatch(user.text) and _OFFER.fullmatch(agent.text)):
        return pairs
    if len(pairs) == 1:
        raise OddRow("a greeting alone", f"the user says {user.text!r}", "Set text.keep_greetings=true to use them.")
    return pairs[1:]


def checked(texts: Sequence[str], spec: TextSpec) -> None:
    """Checks the turns of a dialogue, as they are spoken.

    Raises:
        OddRow: if there are too many or too few, or one is too long.
    """
    if len(texts) < spec.min_turns:
        raise OddRow(f"fewer than {spec.min_turns} turns", f"it has {len(texts)}", "Lower text.min_turns to use them.")
    if spec.max_turns is not None and len(texts) > spec.max_turns:
        raise OddRow(f"more than {spec.max_turns} turns", f"it has {len(texts)}", "Raise text.max_turns to use them.")
    for place, text in enumerate(texts, start=1):
        if (letters := sum(map(str.isalnum, text))) > _LETTERS_PER_SECOND * spec.longest_turn:
            detail = f"{letters} letters and digits: {text[:40]!r} ..."
            raise too_long(spec.longest_turn, detail)
        if spec.max_words is not None and (count := len(word_spans(text))) > spec.max_words:
            cure = "Split such turns into shorter ones, or raise text.max_words."
            raise OddRow(f"a turn of over {spec.max_words} words", f"turn {place} has {count}: {text[:40]!r} ...", cure)
