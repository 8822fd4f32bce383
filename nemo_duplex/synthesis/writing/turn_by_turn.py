"""Dialogues that a small chat model writes turn by turn, both sides: it asks what it then answers.

A model of 135 million weights cannot follow a description of a dialogue; it can continue a chat. So the chat and its speakers
are given to it: a greeting, a subject, and how a question begins ("Why do"). It writes the rest of a question, and the answer.
A turn ends with its sentences, and the dialogue with the first turn that the rules reject, so that no time is lost on the rest.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from nemo_duplex.conversation import Speaker
from nemo_duplex.synthesis.writing.decoding import write
from nemo_duplex.synthesis.writing.rules import Rules, num_sentences, plain_text, shortened, whole_sentences, without_fillers
from nemo_duplex.synthesis.writing.topics import EVERYDAY, SCIENCE

#: Changes with everything that changes what is written.
VERSION = "turn-by-turn-1"

UNSURE = "the model was not sure of a turn"
CUT = "a turn without an end"

# How the first question begins, with its subject inside where the model may not go astray.
_FREE_OPENINGS = (
    *(
        "What is the best way to",
        "What makes",
        "What kind of",
        "What happens",
        "How can I",
        "How do I",
        "How many",
        "Which",
        "Where can I",
    ),
    *(
        "Why do some people",
        "Why do most",
        "Can you explain how",
        "Can you tell me why",
        "Is it better to",
        "Is it hard to",
        "Should I",
    ),
)
_ANY_OPENINGS = (
    *("What can you tell me about {}", "What should I know about {}", "What is the purpose of {}"),
    *(
        "What happens to {}",
        "Can {}",
        "What can {}",
        "Where can I find {}",
        "How can {}",
    ),
)
_SINGULAR_OPENINGS = (
    *("What is {}", "Why is {}", "How is {}", "When is {}", "Where is {}", "Is {}", "How does {}", "Why does {}", "Does {}"),
    *("What does {}", "Where does {}", "How long does {}", "When does {}"),
)
_PLURAL_OPENINGS = (
    *("What are {}", "Why are {}", "How are {}", "When are {}", "Where are {}", "Are {}", "How do {}", "Why do {}", "Do {}"),
    *("What do {}", "Where do {}", "How long do {}", "When do {}", "Are there many kinds of {}"),
)
_NEXT_OPENINGS = (
    *(
        "How",
        "How do",
        "How can I",
        "How long",
        "Why",
        "Why do",
        "Why is",
        "What",
        "What is",
        "What about",
        "What kind of",
        "And what",
    ),
    *(
        "Where",
        "Where can I",
        "When",
        "Is",
        "Is it",
        "Is there",
        "Are there",
        "Does",
        "Do",
        "Can",
        "Can I",
        "And how",
        "And why",
    ),
)
_FREE_SHARE = 0.15
_SINGULAR_IN_S = {"Mars", "Venus", "tennis", "bus", "plate tectonics"}
_PLURAL_WITHOUT_S = {"mice", "teeth", "octopuses", "jellyfish", "starfish", "tadpoles"}
_SPEAKERS: tuple[Speaker, ...] = ("user", "agent", "user", "agent")
_NAMES = {"user": "user", "agent": "assistant"}
_BEGINNING = (("user", "Hi there!"), ("agent", "Hello! How can I help you today?"))
_MOST_TOKENS_OF_A_TURN = 45
_MOST_TOKENS = 270
# (temperature, probability of the tokens drawn from): questions vary, answers are what the model holds for likely.
_DRAWN = {"user": (0.8, 0.95), "agent": (0.3, 0.9)}
# The mean natural logarithm of a turn's token probabilities. Below it, most turns make no sense.
_LEAST_SURE = {"user": -1.6, "agent": -0.75}
_RULES = Rules(strict=True)


@dataclass
class Drawn:
    """A dialogue as the model wrote it.

    Args:
        topic, subtopic: what it is about.
        turns: texts, the user's first; all that were written, also where the last one is rejected.
        fault: why it is rejected; None if it may stay.
        sure: the mean natural logarithm of the probabilities of each turn's tokens.
    """

    topic: str
    subtopic: str
    turns: list[str]
    fault: str | None = None
    sure: list[float] = field(default_factory=list)


def write_batch(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, seed: int, first: int, count: int
) -> tuple[list[Drawn], int]:
    """Dialogues `first` to `first + count - 1` of a seed, and how many tokens were drawn for them.

    The same machine writes the same ones in every run.
    """
    chat = ChatTokens(tokenizer)
    drafts = [DialogueDraft(chat, seed, index) for index in range(first, first + count)]
    num_drawn = write(model, chat.beginning, drafts, _MOST_TOKENS)
    for draft in drafts:
        if not draft.done:
            draft.drawn.fault = CUT
    return [draft.drawn for draft in drafts], num_drawn


class ChatTokens:
    """The tokens of a chat in the form that the model was trained on (ChatML).

    Args:
        tokenizer: of the model.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self.end = tokenizer.convert_tokens_to_ids("<|im_end|>")
        said = "".join(f"<|im_start|>{_NAMES[speaker]}\n{text}<|im_end|>\n" for speaker, text in _BEGINNING)
        #: What comes before all dialogues, up to the user's next turn.
        self.beginning = self.encode(f"{said}<|im_start|>user\n")
        self._pieces = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])

    def encode(self, text: str) -> list[int]:
        """The tokens of `text`."""
        return self._tokenizer.encode(text, add_special_tokens=False)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of `tokens`."""
        return self._tokenizer.decode(tokens)

    def subject(self, subtopic: str) -> list[int]:
        """How a dialogue comes to its subject, up to the user's next turn; it is no part of the dialogue."""
        return self.encode(
            f"I have a question about {subtopic}.<|im_end|>\n<|im_start|>assistant\nSure, what would you like to know about "
            f"{subtopic}?<|im_end|>\n<|im_start|>user\n"
        )

    def next_turn(self, speaker: Speaker) -> list[int]:
        """From the end of a turn to the next one, of `speaker`."""
        return self.encode(f"<|im_end|>\n<|im_start|>{_NAMES[speaker]}\n")

    def ends_turn(self, token: int) -> bool:
        """Whether the token ends a turn whatever was said."""
        return token == self.end or self._pieces[token].startswith("\n")

    def begins_word(self, token: int) -> bool:
        """Whether the token begins with a blank."""
        return self._pieces[token][:1].isspace()


class DialogueDraft:
    """A dialogue of four turns that is being written (a `Draft`).

    Args:
        chat: the tokens of the model.
        seed, index: of which topic, openings and random numbers are functions.
    """

    def __init__(self, chat: ChatTokens, seed: int, index: int) -> None:
        self._chat, self._rng = chat, np.random.default_rng((seed, index))
        topics = (EVERYDAY, SCIENCE)[self._rng.integers(2)]
        topic = topics[self._rng.integers(len(topics))]
        self.drawn = Drawn(topic.name, str(self._rng.choice(topic.subtopics)), [])
        free, of_subject = self._rng.random() < _FREE_SHARE, _ANY_OPENINGS + _openings_by_number(self.drawn.subtopic)
        first = str(self._rng.choice(_FREE_OPENINGS if free else of_subject)).format(self.drawn.subtopic)
        openings = [first, str(self._rng.choice(_NEXT_OPENINGS))]
        self._openings = [openings[0], "", openings[1], ""]
        self._sentences = [1, int(self._rng.integers(1, 3)), 1, int(self._rng.integers(1, 3))]
        self.done = False
        self._begin_turn(chat.subject(self.drawn.subtopic))

    @property
    def _speaker(self) -> Speaker:
        return _SPEAKERS[len(self.drawn.turns)]

    @property
    def temperature(self) -> float:
        """Of the turn that is being written."""
        return _DRAWN[self._speaker][0]

    @property
    def top_p(self) -> float:
        """Of the turn that is being written."""
        return _DRAWN[self._speaker][1]

    def random(self) -> float:
        """The next random number of this dialogue."""
        return self._rng.random()

    def _begin_turn(self, before: list[int]) -> None:
        self._tokens = self._chat.encode(self._openings[len(self.drawn.turns)])
        self._log_probs: list[float] = []
        self.given = before + self._tokens

    def take(self, token: int, log_prob: float) -> None:
        """Continues the turn with a token, or ends it before the token."""
        text = self._chat.decode(self._tokens)
        if self._chat.ends_turn(token) or (self._is_complete(text) and self._chat.begins_word(token)):
            self._end_turn(plain_text(text))
        elif len(self._tokens) == _MOST_TOKENS_OF_A_TURN:
            whole = whole_sentences(text)
            self._end_turn(plain_text(whole)) if whole else self._end(CUT)
        else:
            self._tokens.append(token)
            self._log_probs.append(log_prob)
            self.given = [token]

    def _is_complete(self, text: str) -> bool:
        text = text.rstrip()
        if self._speaker == "user" and text.endswith("?"):
            return True
        return text[-1:] in (".", "!", "?") and num_sentences(text) >= self._sentences[len(self.drawn.turns)]

    def _end_turn(self, text: str) -> None:
        speaker, before = self._speaker, list(self.drawn.turns)
        if speaker == "agent":
            text = shortened(without_fillers(text) or text, _RULES.most_words)
        fault = _RULES.fault_of_turn(speaker, text, before, self.drawn.subtopic)
        sure = float(np.mean(self._log_probs)) if self._log_probs else 0.0
        if fault is None and sure < _LEAST_SURE[speaker]:
            fault = UNSURE
        self.drawn.turns.append(text)
        self.drawn.sure.append(round(sure, 3))
        if fault is not None or len(self.drawn.turns) == len(_SPEAKERS):
            self._end(fault)
        else:
            self._begin_turn(self._chat.next_turn(self._speaker))

    def _end(self, fault: str | None) -> None:
        self.drawn.fault = fault
        self.done, self.given = True, []


def _openings_by_number(subject: str) -> tuple[str, ...]:
    """Openings for a subject in the singular ("a flat tire", "washing windows") or the plural ("the rings of Saturn")."""
    head = re.split(r" (?:in|of|on|for|as|from|at|to) ", subject)[0]
    is_plural = head.endswith("s") and not head.endswith("ss") or head in _PLURAL_WITHOUT_S
    is_singular = re.match(r"(?:an?|\w+ing) ", subject) or head.removeprefix("the ") in _SINGULAR_IN_S
    return _PLURAL_OPENINGS if is_plural and not is_singular else _SINGULAR_OPENINGS
