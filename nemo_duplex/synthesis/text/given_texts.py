"""Turns of the agent that the user's words do not give away: it reads a text aloud, or says one because it is told to.

From question and answer alone a model can learn to speak what it would answer anyway, whatever its text channel says. Where the
text is known only from the text channel, it has to speak that: so `Session.say` works. The texts are endless: 140 million
sentences, in messages of one to three.
"""

from __future__ import annotations

import numpy as np

#: How a user asks to be read to; `|` marks where a speaker may pause.
REQUESTS = (
    "Please read it | to me.", "Read this aloud, | please.", "What does | the letter say?",
    "Please read | my new message.", "Tell me | what is written there.", "Can you read | the note | on the table?",
    "What is | in the news today?", "Read me | the next page.", "Please say | what the screen shows.",
    "Who wrote to me, | and what?",
)  # fmt: skip

_WHO = (
    "Anna", "Peter", "your neighbor", "the doctor", "my sister", "the new teacher", "our friend Maria",
    "the old captain", "the bakery", "the library", "the hotel", "a young farmer", "the train company", "your brother",
    "the museum", "Mister Brown", "the garden club", "the post office", "a friendly driver", "the orchestra",
)  # fmt: skip
_DOES = (
    "will bring", "has found", "is looking for", "forgot", "wants to sell", "has repaired", "sent you", "will need",
    "is painting", "cannot open", "will collect", "has lost", "would like to see", "has ordered", "gave away",
    "asks about", "is waiting for",
)  # fmt: skip
_WHAT = (
    "the blue bicycle", "two tickets", "a box of apples", "the kitchen window", "your umbrella", "a letter from London",
    "the large map", "seven chairs", "an old piano", "the winter coats", "a cup of coffee", "the missing key",
    "three silver spoons", "the front door", "a birthday cake", "the green lamp", "fresh bread", "the second suitcase",
    "a pair of boots", "some flowers", "the yellow folder", "a wooden table", "the last photograph",
    "nine bottles of juice", "the small mirror",
)  # fmt: skip
_WHERE = (
    "at the station", "in the garden", "behind the school", "near the river", "on the second floor", "at the market",
    "under the bridge", "in the long hallway", "next to the church", "beside the fountain", "in your office",
    "at the airport", "on the balcony", "in the village", "",
)  # fmt: skip
_WHEN = (
    "tomorrow morning", "on Monday", "at seven in the evening", "before lunch", "on the third of May", "next week",
    "in twenty minutes", "on Saturday night", "at half past nine", "in the first week of June", "this afternoon",
    "after the concert", "on Thursday at noon", "early in the spring", "",
)  # fmt: skip
_MORE = (
    "Please call back.", "Nobody knows why.", "Do not be late.", "It will rain.", "Everything else is ready.",
    "Thank you for your help.", "The price is forty dollars.", "Bring a friend.", "That is all for now.",
    "The door will be open.", "", "", "", "",
)  # fmt: skip


#: All that the texts are made of: a change of it is another corpus.
CONTENT = repr((REQUESTS, _WHO, _DOES, _WHAT, _WHERE, _WHEN, _MORE))


def given_text(rng: np.random.Generator) -> str:
    """A text that nothing but itself tells: one to three sentences."""
    sentences = [_sentence(rng) for _ in range(int(rng.choice([1, 2], p=[0.7, 0.3])))]
    return " ".join(part for part in (*sentences, _drawn(_MORE, rng)) if part)


def _sentence(rng: np.random.Generator) -> str:
    parts = [_drawn(parts, rng) for parts in (_WHO, _DOES, _WHAT, _WHERE, _WHEN)]
    sentence = " ".join(part for part in parts if part)
    return f"{sentence[0].upper()}{sentence[1:]}."


def _drawn(parts: tuple[str, ...], rng: np.random.Generator) -> str:
    return parts[int(rng.integers(len(parts)))]
