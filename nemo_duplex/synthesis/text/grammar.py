"""The built-in dialogues: about 430 questions with one right answer each, few enough to be learnt in minutes; and on request
some with long answers, and turns that only a text gives to the agent.

A template is the user's text with its answer. `|` marks where a speaker may pause: nothing before it is a complete question
of this grammar, so an agent that answers in the pause is wrong.

All questions of closed families (capitals, days, ...) are in train. Open families (sums, echo, ...) keep every eighth
question, by the hash of its answer, for dev alone: an agent that answers those has understood the parts.

A text-to-speech engine reads all words as they are written: no digits, no abbreviations, no homographs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.text.given_texts import CONTENT, REQUESTS, given_text
from nemo_duplex.synthesis.text.long_answers import LONG_ANSWERS
from nemo_duplex.synthesis.text.sources import Dialogue, Exchange, Split

NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen "
    "nineteen twenty"
).split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
CAPITALS = dict(
    France="Paris", Spain="Madrid", Italy="Rome", Germany="Berlin", Japan="Tokyo", Egypt="Cairo", Canada="Ottawa",
    Cuba="Havana", Greece="Athens", Norway="Oslo", Sweden="Stockholm", Poland="Warsaw", Austria="Vienna", Portugal="Lisbon",
    Ireland="Dublin", Russia="Moscow", England="London", Hungary="Budapest", Iraq="Baghdad", Thailand="Bangkok",
)  # fmt: skip
OPPOSITES = [
    ("hot", "cold"), ("big", "small"), ("fast", "slow"), ("day", "night"), ("old", "young"), ("open", "closed"),
    ("full", "empty"), ("early", "late"), ("happy", "sad"), ("left", "right"),
]  # fmt: skip
COLORS = dict(
    sky="blue", grass="green", snow="white", coal="black", banana="yellow", tomato="red", carrot="orange", chocolate="brown",
    elephant="gray", lemon="yellow", forest="green", ocean="blue",
)  # fmt: skip
SOUNDS = dict(
    dog="barks", lion="roars", wolf="howls", duck="quacks", snake="hisses", bee="buzzes", cat="purrs", mouse="squeaks",
    owl="hoots", bird="sings",
)  # fmt: skip
HOMES = dict(
    bee="hive", bird="nest", bear="cave", horse="stable", spider="web", fish="river", frog="pond", wolf="forest", cow="barn",
    camel="desert",
)  # fmt: skip
COUNTS = [
    ("days", "a week", "seven"), ("months", "a year", "twelve"), ("hours", "a day", "twenty four"),
    ("minutes", "an hour", "sixty"), ("seconds", "a minute", "sixty"), ("inches", "a foot", "twelve"),
    ("seasons", "a year", "four"), ("letters", "the alphabet", "twenty six"),
]  # fmt: skip
SMALL_TALK = [
    ("Hello there.", "Hello, how can I help you today?"),
    ("Good morning.", "Good morning, I hope you slept well."),
    ("Good evening.", "Good evening, how was your day?"),
    ("How are you today?", "I am very well, thank you for asking."),
    ("What is | your name?", "My name is Ada, and I answer questions."),
    ("Thank you very much.", "You are welcome, ask me anything."),
    ("Goodbye my friend.", "Goodbye, and have a wonderful day."),
    ("Nice talking with you.", "It was nice talking with you too."),
]
LISTS = [
    ("Tell me | the days of the week.", ", ".join(DAYS)),
    ("Tell me | the first six months | of the year.", ", ".join(MONTHS[:6])),
    ("Tell me | the last six months | of the year.", ", ".join(MONTHS[6:])),
    ("Tell me | the four seasons.", "spring, summer, autumn, and winter"),
    ("Tell me | six colors.", "red, orange, yellow, green, blue, and white"),
    ("Tell me | five animals.", "lion, horse, camel, spider, and elephant"),
    ("Tell me | five capitals.", "Paris, Madrid, Berlin, Tokyo, and Cairo"),
    ("Tell me | the even numbers.", "two, four, six, eight, ten, and so on"),
    ("Tell me | the odd numbers.", "one, three, five, seven, nine, and so on"),
]
ECHO_WORDS = ("red happy quiet little".split(), "bird farmer sailor teacher dragon robot".split(), "sings waits dances".split())

_HELD_OUT = 8  # one in eight questions of an open family is for dev alone
_UNSEEN_IN_DEV = 0.25  # share of dev questions that are held out
# Small families would be rare if questions were drawn evenly, and large ones seldom repeat if families were.
_FAMILY_WEIGHT_POWER = 0.75


class Grammar:
    """The built-in source of dialogues; every instance with the same shares gives the same.

    Args:
        long_answers: share of the questions whose answer takes 8 to 15 s.
        read_aloud: share of the turns of train in which the agent says what a text gives to it; in half of them the user asks
            for it. Dev has none: nobody could tell the right answer.

    Raises:
        InputError: if a share is not from 0 to 1.

    Examples:
        >>> from nemo_duplex.synthesis.text.grammar import Grammar
        >>> exchange = Grammar(long_answers=1.0).dialogue("train", 0, np.random.default_rng(0)).exchanges[0]
        >>> exchange.user, len(exchange.agent.split())
        ('Please count from one up to twenty.', 21)
    """

    def __init__(self, long_answers: float = 0.0, read_aloud: float = 0.0) -> None:
        for name, share in (("long_answers", long_answers), ("read_aloud", read_aloud)):
            if not 0 <= share <= 1:
                raise InputError(f"{name}={share}: expected a share from 0 to 1.")
        self._long_answers, self._read_aloud = long_answers, read_aloud

    def dialogue(self, split: Split, index: int, rng: np.random.Generator) -> Dialogue:
        """Two to six questions, of any families in any order."""
        count = int(rng.choice([2, 3, 4, 5, 6], p=[0.35, 0.33, 0.18, 0.09, 0.05]))
        return Dialogue(f"grammar-{index:07d}", tuple(self._draw(split, rng) for _ in range(count)))

    def describe(self) -> dict[str, Any]:
        """Its hash and sizes, for `corpus.json`."""
        texts = "\n".join(f"{e.user}\t{e.agent}\t{e.seen}\t{e.pauses}" for e in self.exchanges)
        given = f"{self._long_answers}\t{self._read_aloud}\t{CONTENT}" if self._read_aloud else ""
        return {
            "kind": "grammar",
            "sha256": hashlib.sha256(f"{texts}{given or self._long_answers or ''}".encode()).hexdigest(),
            "questions": {"train": len(self._pools[True][0]), "dev_only": len(self._pools[False][0])},
            "answers": len({e.agent for e in self.exchanges}),
            "words": len({word for e in self.exchanges for word in _words(e)}),
        }

    @cached_property
    def exchanges(self) -> tuple[Exchange, ...]:
        """Every question of the grammar with its answer; `seen` is False for those that train never asks."""
        families = (
            _capitals(), _opposites(), _calendar("day", DAYS), _calendar("month", MONTHS), _sums(), _differences(),
            _neighbours(), _echo(), _colors(), _sounds(), _homes(), _how_many(), _counting(), _lists(), _small_talk(),
        )  # fmt: skip
        long = self.long_exchanges if self._long_answers else ()
        return (*(exchange for family in families for exchange in family), *long)

    @cached_property
    def long_exchanges(self) -> tuple[Exchange, ...]:
        """The questions with long answers."""
        return tuple(_exchange(family, template, agent, agent) for family, template, agent in LONG_ANSWERS)

    def agent_texts(self, count: int) -> list[str]:
        """The answers of train, and `count` sentences made of two halves: to teach a codec the voice, not the answers."""
        answers = sorted({e.agent for e in self.exchanges if e.seen})
        known = {e.agent for e in self.exchanges}
        others: list[str] = []
        words = [answer.rstrip(".").split() for answer in answers]
        rng = np.random.default_rng(len(answers))
        while len(others) < count:
            first, second = (words[i] for i in rng.integers(len(words), size=2))
            mixed = first[: int(rng.integers(1, len(first) + 1))] + second[int(rng.integers(len(second))) :]
            text = " ".join(mixed[: int(rng.integers(3, 13))]).rstrip(",:") + "."
            if text not in known and len(mixed) > 2:
                known.add(text)
                others.append(text)
        return answers + others

    def language_of(self, agent_text: str) -> str | None:
        return None

    @cached_property
    def _pools(self) -> dict[bool, tuple[list[Exchange], np.ndarray]]:
        """Seen and held-out questions with short answers, and the chance of each."""
        pools, long = {}, set(self.long_exchanges)
        for seen in (True, False):
            pool = [e for e in self.exchanges if e.seen == seen and e not in long]
            sizes = {family: sum(e.family == family for e in pool) for family in {e.family for e in pool}}
            weights = np.array([sizes[e.family] ** (_FAMILY_WEIGHT_POWER - 1) for e in pool])
            pools[seen] = (pool, weights / weights.sum())
        return pools

    def _draw(self, split: Split, rng: np.random.Generator) -> Exchange:
        if self._read_aloud and split == "train" and rng.random() < self._read_aloud:
            asks = rng.random() < 0.5
            request = REQUESTS[int(rng.integers(len(REQUESTS)))] if asks else ""
            return replace(_exchange("read_aloud" if asks else "told", request, given_text(rng), ""), given=True)
        if self._long_answers and rng.random() < self._long_answers:
            return self.long_exchanges[int(rng.integers(len(self.long_exchanges)))]
        pool, chances = self._pools[split == "train" or rng.random() >= _UNSEEN_IN_DEV]
        return pool[int(rng.choice(len(pool), p=chances))]


def _exchange(family: str, template: str, agent: str, answer: str) -> Exchange:
    """Removes the pause marks from a template, each between two spaces, and notes where they were."""
    user, pauses = "", []
    for part in template.split("| "):
        if user:
            pauses.append(len(user))
        user += part
    return Exchange(user, agent[0].upper() + agent[1:], answer, family, True, tuple(pauses))


def _held_out(exchanges: Iterable[Exchange]) -> list[Exchange]:
    """Marks one in eight as unseen. Chosen by the answer's text, so that no other wording of the question gets into train."""
    return [replace(e, seen=int(hashlib.md5(e.agent.encode()).hexdigest(), 16) % _HELD_OUT != 0) for e in exchanges]


def _capitals() -> Iterable[Exchange]:
    for country, city in CAPITALS.items():
        for template in ("What is the capital | of {}?", "Please tell me | the capital city | of {}."):
            yield _exchange("capital", template.format(country), f"The capital of {country} is {city}.", city)


def _opposites() -> Iterable[Exchange]:
    for pair in OPPOSITES:
        for word, other in (pair, pair[::-1]):
            for template in ("What is the opposite | of {}?", "Please give me | the opposite of | {}."):
                yield _exchange("opposite", template.format(word), f"The opposite of {word} is {other}.", other)


def _calendar(unit: str, names: list[str]) -> Iterable[Exchange]:
    for i, name in enumerate(names):
        for side, step in (("after", 1), ("before", -1)):
            other = names[(i + step) % len(names)]
            agent = f"The {unit} {side} {name} is {other}."
            for template in ("Which {} comes | {} {}?", "Can you tell me | the {} {} | {}?"):
                yield _exchange(unit, template.format(unit, side, name), agent, other)


def _sums() -> Iterable[Exchange]:
    return _held_out(
        _exchange("sum", f"How much is | {a} plus | {b}?", f"{a} plus {b} is {total}.", total)
        for i, a in enumerate(NUMBERS[1:10], 1)
        for j, b in enumerate(NUMBERS[1:7], 1)
        for total in [NUMBERS[i + j]]
    )


def _differences() -> Iterable[Exchange]:
    return _held_out(
        _exchange("difference", f"What is | {a} minus | {b}?", f"{a} minus {b} is {rest}.", rest)
        for i, a in enumerate(NUMBERS[5:11], 5)
        for j, b in enumerate(NUMBERS[1:6], 1)
        for rest in [NUMBERS[i - j]]
    )


def _neighbours() -> Iterable[Exchange]:
    return _held_out(
        _exchange("number", f"Which number | comes {side} | {number}?", f"The number {side} {number} is {other}.", other)
        for i, number in enumerate(NUMBERS[1:20], 1)
        for side, other in (("after", NUMBERS[i + 1]), ("before", NUMBERS[i - 1]))
    )


def _echo() -> Iterable[Exchange]:
    adjectives, nouns, verbs = ECHO_WORDS
    return _held_out(
        _exchange("echo", f"Repeat after me: | the {adjective} | {noun} {verb}.", f"You said: {sentence}.", sentence)
        for adjective in adjectives
        for noun in nouns
        for verb in verbs
        for sentence in [f"the {adjective} {noun} {verb}"]
    )


def _colors() -> Iterable[Exchange]:
    for thing, color in COLORS.items():
        yield _exchange("color", f"What color is | the {thing}?", f"The color of the {thing} is {color}.", color)


def _sounds() -> Iterable[Exchange]:
    for animal, sound in SOUNDS.items():
        for template in ("What sound | does the {} make?", "Tell me | what the {} does."):
            yield _exchange("sound", template.format(animal), f"Listen, the {animal} {sound} loudly.", sound)


def _homes() -> Iterable[Exchange]:
    for animal, home in HOMES.items():
        for template in ("Where is the home | of the {}?", "Tell me where | the {} sleeps."):
            yield _exchange("home", template.format(animal), f"The home of the {animal} is the {home}.", home)


def _how_many() -> Iterable[Exchange]:
    for part, whole, count in COUNTS:
        yield _exchange("how_many", f"How many {part} | are in {whole}?", f"There are {count} {part} in {whole}.", count)


def _counting() -> Iterable[Exchange]:
    for first, last in ((1, 10), (1, 7), (3, 9), (5, 12), (10, 16), (11, 17), (2, 8), (12, 18)):
        names = ", ".join(NUMBERS[first : last + 1])
        yield _exchange("count", f"Please count from | {NUMBERS[first]} up | until {NUMBERS[last]}.", f"{names}.", names)


def _lists() -> Iterable[Exchange]:
    for template, items in LISTS:
        yield _exchange("list", template, f"{items}.", items)


def _small_talk() -> Iterable[Exchange]:
    for template, agent in SMALL_TALK:
        yield _exchange("small_talk", template, agent, agent)


def _words(exchange: Exchange) -> set[str]:
    text = f"{exchange.user} {exchange.agent}".lower()
    return set("".join(c if c.isalpha() else " " for c in text).split())
