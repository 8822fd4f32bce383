"""Rules that reject what a language model wrote, each with its reason. They judge form and relevance, not truth."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from nemo_duplex.conversation import Speaker

LENGTH = "a turn of too few or too many words"
LETTERS = "characters that are not those of plain English"
MARKUP = "a list, markup or an address"
MACHINE = "talks about being a machine"
ROLE = "the name of a role inside a turn"
UNFINISHED = "a turn that does not end as a sentence"
REPEATS = "repeats itself"
ECHO = "the answer only echoes what was said before"
ASKS = "the agent asks instead of answering"
NO_QUESTION = "the user asks nothing"
OFF_TOPIC = "off topic"
UNSAFE = "a word that is unfit for a friendly agent"
FIGURES = "figures that nobody checked"
SELF = "asks or says what the agent is, has or likes"
FILLER = "an answer that says nothing"
YES_TO_WHY = "says yes or no to an open question"

_STRAIGHT = str.maketrans(
    {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2013": "-", "\u2014": ", ", "\u2026": "."}
)
_QUOTES = re.compile(r"[\"$%&/()]")
_PLAIN = re.compile(r"[A-Za-z0-9 .,;:!?'\"()%$&/-]+")
_MARKUP = re.compile(r"[\n*#|<>\[\]{}`_\\]|https?:|www\.|\b\w+\.(?:com|org|net)\b|^\s*(?:-|\d+[.)])\s|:$", re.IGNORECASE)
_MACHINE = re.compile(
    r"\b(?:AI|bot|chatbot|language model|(?:virtual|digital) assistant|computer program|programmed|trained on|my training)\b"
)
_ROLE = re.compile(r"\b(?:user|assistant|agent|system|human|bot|question|answer)\s*:|\b(?:the|dear) user\b", re.IGNORECASE)
_UNSAFE = re.compile(
    r"\b(?:kill\w*|murder\w*|suicid\w*|sex\w*|porn\w*|naked|rape\w*|drugs|cocaine|heroin|guns?|bombs?|nazi\w*|hitler|racis\w*"
    r"|terroris\w*|slaves?|torture\w*|weapons?|stupid|idiot\w*|hate you|damn|hell|shit\w*|fuck\w*)\b",
    re.IGNORECASE,
)
_FILLER = re.compile(
    r"(?:sure|of course|certainly|absolutely|yes|no|great|hello|hi|hey|okay|ok|i see|indeed|exactly|definitely"
    r"|(?:great|good|excellent|interesting) (?:question|point|idea|choice)"
    r"|(?:yes, |no worries, )?(?:that's|that is|it's|what) an? [\w ]*(?:question|topic|idea|point|answer)"
    r"|no worries|you're (?:right|welcome)"
    r"|(?:yes, )?that(?:'s| is| sounds) (?:great|good|wonderful|correct|right|true|amazing|awesome|interesting|fantastic)"
    r"|(?:i'd|i would|i'll|i will|i am|i'm) (?:be )?(?:happy|glad|delighted|love)[\w ]*|i can help[\w ]*"
    r"|yes, (?:there|it|they|you) (?:is|are|do|does|can)"
    r"|no, (?:there|it|they|you) (?:is|are|do|does|can)(?:n't| not))",
    re.IGNORECASE,
)
_SELF = re.compile(
    r"\b(?:are you|were you|have you|did you|would you|do you (?!know|think|need|get|make|use))\b"
    r"|\byour (?:favou?rite|own|name)\b"
    r"|\b(?:I'm|I am|I've|I have|I was|my|mine|me|we're|our team)\b",
    re.IGNORECASE,
)
_YES = re.compile(r"(?:yes|no|absolutely|certainly|of course|sure)\b", re.IGNORECASE)
_OPEN_QUESTION = re.compile(r"(?:and )?(?:what|how|why|when|where|which|who)\b", re.IGNORECASE)
_PRONOUN = re.compile(r"\b(?:it|its|they|them|their|he|she|this|these|those)\b", re.IGNORECASE)
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?|[0-9]+")
_STOP_WORDS = frozenset(
    (
        "a about actually after all also always am an and any anything are around as at be because been before being "
        "best better both but by called came can could day did different do does doing done don't down each even ever "
        "every example few find first for from get give go going good great had happen happens has have having he "
        "help her here him his how i i'd i'm if important in into is it it's its just kind know known known learn "
        "less like little long look lot made main make many may me mean might more most much my need never new no not "
        "now of often on one only or other our out over own people probably put quite really right same say see she "
        "should so some something sometimes sort sure take tell than thank thanks that that's the their them then "
        "there these they thing things think this those time to too two type types typically under up us use used "
        "using usually very want was way ways we well were what what's when where whether which while who why will "
        "with without work would yes you your "
    ).split()
)
_ENDS = (".", "!", "?")
_NUM_REPEATED = 4  # words in a row that nobody says twice in a turn


@dataclass(frozen=True)
class Rules:
    """What a dialogue must keep.

    Args:
        fewest_words, most_words: of a turn; the paper's 30 (section 4.3).
        strict: for a small model, which makes up figures and a life of its own: no digits, no agent that speaks of itself,
            nothing but questions of the user.
        new_words: content words that an answer must add to its question.

    Examples:
        >>> rules = Rules()
        >>> rules.fault_of_turn("agent", "Why do you ask me that?", ["What is dew made of?"])
        'the agent asks instead of answering'
    """

    fewest_words: int = 3
    most_words: int = 30
    strict: bool = False
    new_words: int = 2

    def fault_of_turn(self, role: Speaker, text: str, before: Sequence[str], subject: str = "") -> str | None:
        """Why a turn is rejected; None if it may stay.

        Args:
            before: the turns before it, the user's first.
            subject: what the dialogue is about; the first turn must name a word of it, an answer one of it or of its question,
                or a pronoun. "" for a subject that is not known.
        """
        return self._fault_of_form(text) or (
            self._fault_of_question(text, before, subject) if role == "user" else self._fault_of_answer(text, before, subject)
        )

    def _fault_of_form(self, text: str) -> str | None:
        num_words = len(text.split())
        found = [
            (MARKUP, bool(_MARKUP.search(text))),
            (LETTERS, not _PLAIN.fullmatch(text)),
            (ROLE, bool(_ROLE.search(text))),
            (MACHINE, bool(_MACHINE.search(text))),
            (UNSAFE, bool(_UNSAFE.search(text))),
            (LENGTH, not self.fewest_words <= num_words <= self.most_words),
            (LETTERS, self.strict and bool(_QUOTES.search(text))),
            (FIGURES, self.strict and any(map(str.isdigit, text))),
            (UNFINISHED, not re.search(r"[.!?]['\"]?$", text)),
            (REPEATS, _repeats(text, self.strict)),
        ]
        return next((reason for reason, is_so in found if is_so), None)

    def _fault_of_question(self, text: str, before: Sequence[str], subject: str) -> str | None:
        if self.strict and not text.endswith("?"):
            return NO_QUESTION
        if self.strict and _SELF.search(text.replace("Can you tell me", "")):
            return SELF
        if any(stems(text) == stems(other) or _overlap(text, other) > 0.6 for other in before):
            return REPEATS
        if subject and not before and not stems(text) & stems(subject):
            return OFF_TOPIC
        return None

    def _fault_of_answer(self, text: str, before: Sequence[str], subject: str) -> str | None:
        question = before[-1]
        if "?" in text:
            return ASKS
        if self.strict and _SELF.search(text):
            return SELF
        if self.strict and _YES.match(text) and _OPEN_QUESTION.match(question):
            return YES_TO_WHY
        if not without_fillers(text):
            return FILLER
        if len(stems(text) - stems(question)) < self.new_words or any(_overlap(text, other) > 0.5 for other in before):
            return ECHO
        if subject and not stems(text) & (stems(question) | stems(subject)) and not _PRONOUN.search(text):
            return OFF_TOPIC
        return None


def plain_text(text: str) -> str:
    """`text` in one line, with straight quotes, hyphens for dashes and no compatibility characters."""
    return " ".join(unicodedata.normalize("NFKC", text.translate(_STRAIGHT)).split()).replace(" ,", ",")


def without_fillers(text: str) -> str:
    """`text` without the sentences at its start that say nothing ("Great question!"); "" if there are no others."""
    sentences = _SENTENCE.split(text.strip())
    while sentences and _FILLER.fullmatch(sentences[0].rstrip(".!")):
        del sentences[0]
    return " ".join(sentences)


def whole_sentences(text: str) -> str:
    """`text` up to the end of its last finished sentence; "" if it has none."""
    sentences = _SENTENCE.split(text.strip())
    return " ".join(sentences if sentences[-1][-1:] in _ENDS else sentences[:-1])


def shortened(text: str, most_words: int) -> str:
    """The first sentences of `text` that have at most `most_words` words together; at least one."""
    sentences = _SENTENCE.split(text)
    while len(sentences) > 1 and len(" ".join(sentences).split()) > most_words:
        del sentences[-1]
    return " ".join(sentences)


def num_sentences(text: str) -> int:
    """How many finished sentences `text` has, fillers at its start not counted."""
    return sum(sentence[-1:] in _ENDS for sentence in _SENTENCE.split(without_fillers(text)))


def stems(text: str) -> set[str]:
    """The content words of `text`, without endings: what two texts about one thing share."""
    return {_stem(word) for word in words(text) if word not in _STOP_WORDS}


def _stem(word: str) -> str:
    word = word.removesuffix("'s")
    for ending, instead in (("ies", "y"), ("ing", ""), ("ed", ""), ("es", ""), ("s", ""), ("e", "")):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word.removesuffix(ending) + instead
    return word


def _repeats(text: str, strict: bool) -> bool:
    """Whether a word follows itself, a run of words comes twice, or one content word fills the text."""
    said = words(text)
    runs = [tuple(said[i : i + _NUM_REPEATED]) for i in range(len(said) - _NUM_REPEATED + 1)]
    content = [_stem(word) for word in said if word not in _STOP_WORDS]
    most = max(map(content.count, content), default=0)
    too_many = (2 if text.endswith("?") or len(content) < 7 else 3) if strict else 4
    pairs = [pair for pair in zip(said, said[1:]) if strict and not _STOP_WORDS & {*pair}]
    is_double = any(len(found) != len(set(found)) for found in (runs, pairs))
    return is_double or most >= too_many or any(word == after for word, after in zip(said, said[1:]))


def _overlap(text: str, other: str) -> float:
    """The share of the shorter text's runs of three words that the other has, too."""
    mine, theirs = ({tuple(said[i : i + 3]) for i in range(len(said) - 2)} for said in map(words, (text, other)))
    return len(mine & theirs) / max(1, min(len(mine), len(theirs)))


def words(text: str) -> list[str]:
    """The words and numbers of `text` in small letters."""
    return _WORD.findall(text.lower())
