"""What a recogniser hears in the conversations of a set."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

import regex
from tqdm import tqdm

from nemo_duplex.conversation import Conversation, Turn
from nemo_duplex.evaluation.outcome import Outcome, Question
from nemo_duplex.evaluation.scorer import Scorer
from nemo_duplex.evaluation.speech.kept_answers import KeptAnswers
from nemo_duplex.evaluation.speech.recogniser import Recogniser
from nemo_duplex.evaluation.speech.stretches import Stretch, stretches_of
from nemo_duplex.frames import Seconds

TRANSCRIPTS = "transcripts.jsonl"
#: The language of texts whose letters are of another script than English, and which do not say what they are.
UNKNOWN = "und"
_END: Seconds = 0.05  # sound without a text that lasts until so near the end of the recording is cut off by it


@dataclass(frozen=True)
class HeardStretch:
    """A stretch and its transcript."""

    stretch: Stretch
    transcript: str


@dataclass(frozen=True)
class Heard:
    """What was heard in one conversation, in its language.

    Examples:
        >>> sound = Stretch("agent", 1.8, 3.2, heard=(2.0, 3.0))
        >>> Heard("en", 10.0, (HeardStretch(sound, "At nine."),)).turns[0].text
        'At nine.'
    """

    language: str
    duration: Seconds
    stretches: tuple[HeardStretch, ...]

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The agent's turns, with their times by its sound and what was heard as text; one that the recording cuts off is
        `unfinished`."""
        return tuple(map(self._turn, self._sounds))

    def answer(self, question: Question) -> Turn | None:
        """What the agent says to a question: its first turn between the question's start and the next one's; None if it says
        nothing. Of a model that does not write, a pause may be within a turn: everything that it says until then."""
        said = [s for s in self._sounds if question.turn.start < s.stretch.heard[0] < question.next_start]  # type: ignore[index]
        if not said:
            return None
        turns = [self._turn(one) for one in (said[:1] if said[0].stretch.written else said)]
        text = " ".join(t.text for t in turns if t.text)
        return Turn("agent", turns[0].start, turns[-1].end, text, custom=turns[-1].custom)

    @property
    def _sounds(self) -> list[HeardStretch]:
        return [one for one in self.stretches if one.stretch.voice == "agent" and one.stretch.heard is not None]

    def _turn(self, one: HeardStretch) -> Turn:
        (start, end), written = one.stretch.heard or (0.0, 0.0), one.stretch.written
        cut_off = bool(written.custom.get("unfinished")) if written else end >= self.duration - _END
        return Turn("agent", start, end, one.transcript, custom={"unfinished": True} if cut_off else {})


@dataclass(frozen=True)
class Transcripts:
    """What a recogniser heard in a set.

    Args:
        scorer: the recogniser.
        heard: by the id of the conversation; those that were drawn.
        not_understood: language -> conversations that were left out, because the recogniser does not know it.
    """

    scorer: Scorer
    heard: Mapping[str, Heard]
    not_understood: Mapping[str, int] = field(default_factory=dict)


def hear(
    outcomes: Sequence[Outcome],
    recogniser: Recogniser,
    folder: str | Path | None = None,
    turns_per_set: int | None = 60,
    seed: int = 0,
    workers: int = 2,
    label: str | None = None,
) -> Transcripts:
    """Transcribes conversations of a set, as a whole and drawn at random, until they hold enough turns of the agent.

    Args:
        outcomes: of one set, in any order.
        folder: where transcripts.jsonl is kept; what is in it already is not transcribed again. None: nowhere.
        turns_per_set: agent turns (or, where it says less, turns of the corpus' agent) to hear at least, if there are as many;
            None: all.
        seed: of the draw.
        workers: conversations heard at the same time, in threads.
        label: names the progress bar; None: no bar.

    Raises:
        InputError: if a sound cannot be read.
    """
    drawn = random.Random(seed).sample(sorted(outcomes, key=lambda o: o.id), len(outcomes))
    chosen: dict[str, tuple[Outcome, str, list[Stretch]]] = {}
    not_understood: Counter[str] = Counter()
    turns = 0
    for outcome in drawn:
        if turns_per_set is not None and turns >= turns_per_set:
            break
        language = language_of(outcome.conversation)
        if not recogniser.understands(language):
            not_understood[language] += 1
            continue
        stretches = stretches_of(outcome)
        counted = Counter(stretch.voice for stretch in stretches)
        turns += max(counted["agent"], counted["reference"])
        chosen[outcome.id] = outcome, language, stretches
    kept, lock = KeptAnswers(None if folder is None else Path(folder) / TRANSCRIPTS), Lock()

    def heard(one: tuple[Outcome, str, list[Stretch]]) -> Heard:
        outcome, language, stretches = one
        return Heard(language, outcome.duration, tuple(_transcribed(outcome, stretches, language, recogniser, kept, lock)))

    pool = ThreadPoolExecutor(workers)
    try:
        results = pool.map(heard, chosen.values())
        bar = tqdm(results, desc=f"{label}, by ear", total=len(chosen), disable=label is None, delay=2)
        found = dict(zip(chosen, bar))
    finally:
        pool.shutdown(cancel_futures=True)
    return Transcripts(recogniser.scorer, found, dict(not_understood))


def language_of(conversation: Conversation) -> str:
    """The language of its turns; English where they do not say, unless most of their letters are of another script."""
    turns = (*conversation.agent, *conversation.user)
    named = next((turn.language for turn in turns if turn.language), None)
    if named:
        return named
    text = " ".join(turn.text for turn in turns)
    letters, latin = len(regex.findall(r"\p{L}", text)), len(regex.findall(r"\p{Latin}", text))
    return "en" if 2 * latin >= letters else UNKNOWN


def _transcribed(
    outcome: Outcome,
    stretches: Sequence[Stretch],
    language: str,
    recogniser: Recogniser,
    kept: KeptAnswers,
    lock: Lock,
) -> Iterator[HeardStretch]:
    for voice, sound in (("agent", outcome.agent_sound), ("reference", outcome.reference_sound)):
        own = [stretch for stretch in stretches if stretch.voice == voice]
        if sound is None or not own:
            continue
        read, rate = sound.samples(), sound.sample_rate
        for stretch in own:
            samples = stretch.of(read, rate)
            key = f"{language} {KeptAnswers.key(recogniser.scorer, samples, rate)}"
            answer = kept.get(key)
            if answer is None:
                answer = {"transcript": recogniser.transcribe(samples, rate, language)}
                of = f"{outcome.id}, {voice}, {stretch.start:.2f} to {stretch.end:.2f} s"
                with lock:
                    kept.add(key, recogniser.scorer.name, of, answer)
            yield HeardStretch(stretch, answer["transcript"])
