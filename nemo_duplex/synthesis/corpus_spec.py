"""What a corpus is asked for: hours, sets, source, voices."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from nemo_duplex.conversation import is_time
from nemo_duplex.frames import FRAME_RATE, Seconds
from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.dialogue_spec import DialogueSpec, Events
from nemo_duplex.synthesis.gaps import PEOPLE, PEOPLE_AS_AGENT, GapDistribution, gap_distribution
from nemo_duplex.synthesis.mix import Acoustics
from nemo_duplex.synthesis.text.text_spec import TextSpec
from nemo_duplex.synthesis.timing import Rhythm
from nemo_duplex.synthesis.transmission import Transmission
from nemo_duplex.synthesis.tts.engines import AGENT, FALLBACK, USERS, CastSpec

_SHORTEST: Seconds = 4.0  # of cuts of equal length: a shorter one holds no exchange
_MOST_PACKETS = 0.99  # of a recording may be lost: without any there is none to hide the others with
_LONGEST: Seconds = 3600.0
#: Keys of `conf/synthesize.yaml` that are of a whole run, not of one of its corpora.
OF_THE_RUN = frozenset(
    "out impatient_of codec scale workers executor ray check_hashes slice overwrite".split()
    + "inspect check speakers tokenizer report examples".split()
)
#: Keys that say what is written, how much and by whom, not what a dialogue of train is.
RUN_KEYS = OF_THE_RUN | {"hours", "dev", "sets", "agent_utterances"}

_MOST = 1_000_000  # of anything: a typing error must not fill the memory


@dataclass(frozen=True)
class CorpusSpec:
    """A corpus. The same spec gives the same bytes, with any number of workers or slices.

    Args:
        hours: of train; approximate where dialogues are whole.
        dev: dialogues of dev, and as many of Impatient.
        agent_utterances: `count` of `TextSource.agent_texts`, the sentences for the codec.
        source: files, folders or patterns of files of dialogues; none: the built-in grammar.
        dialogues: how they are made.
        text: how the rows of `source` are read, and which are left out.
        text_store: folder in which imported dialogues are kept; None: the user's cache.
        cast: who speaks.
        long_answers, read_aloud: shares of the built-in dialogues, see `Grammar`.

    Examples:
        >>> CorpusSpec(hours=5, dialogues=DialogueSpec(duration=12.8)).dev
        60
    """

    hours: float = 1.0
    dev: int = 60
    agent_utterances: int = 1500
    source: tuple[str, ...] = ()
    dialogues: DialogueSpec = field(default_factory=DialogueSpec)
    text: TextSpec = field(default_factory=TextSpec)
    text_store: str | None = None
    cast: CastSpec = field(default_factory=CastSpec)
    long_answers: float = 0.1
    read_aloud: float = 0.05

    def __post_init__(self) -> None:
        dialogues = self.dialogues
        if self.text.language is not None and not self.source:
            raise InputError(
                f"language={self.text.language}: the built-in dialogues are English; give `source`, or leave it out."
            )
        shares = {"pause": dialogues.pause, "quiet": dialogues.quiet}
        shares |= {"long_answers": self.long_answers, "read_aloud": self.read_aloud}
        shares |= {"barge_in": dialogues.rhythm.barge_in, "long_silence": dialogues.rhythm.long_silence}
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise InputError(f"{name}={share}: expected a share from 0 to 1.")
        amounts = {"hours": self.hours, "dev": self.dev, "agent_utterances": self.agent_utterances, "seed": dialogues.seed}
        for name, amount in amounts.items():
            if not 0 <= amount <= _MOST:
                raise InputError(f"{name}={amount}: expected 0 to {_MOST}.")
        if dialogues.dataset is not None and not re.fullmatch(r"[\w.-]+", dialogues.dataset):
            raise InputError(
                f"dataset={dialogues.dataset}: expected letters, digits, '-', '_' and '.'; it names cuts and a folder."
            )
        if not 0 < dialogues.rhythm.response_gap <= 5:
            raise InputError(f"response_gap={dialogues.rhythm.response_gap}: expected seconds, more than 0 and up to 5.")
        if dialogues.pause_places not in ("marked", "any"):
            raise InputError(f"timing.pause_places={dialogues.pause_places}: expected marked or any.")
        if dialogues.events.noise and dialogues.events.noise_folder is None:
            raise InputError(
                f"events.noise={dialogues.events.noise}: give recordings in events.noise_folder=FOLDER, or noise=0."
            )
        if dialogues.duration is not None:
            whole = FRAME_RATE.time(FRAME_RATE.nearest(dialogues.duration))
            if not _SHORTEST <= dialogues.duration <= _LONGEST or abs(whole - dialogues.duration) > 1e-6:
                raise InputError(
                    f"duration={dialogues.duration:g}: expected {_SHORTEST:g} to {_LONGEST:g} s, a multiple of "
                    f"{FRAME_RATE.seconds} s, such as {min(max(whole, _SHORTEST), _LONGEST):g}."
                )


def corpus_spec(keys: Mapping[str, Any]) -> CorpusSpec:
    """The corpus that the keys of `conf/synthesize.yaml` ask for, each with a value. What is asked of a run (`out`, `workers`,
    `slice` ...) is not of the corpus, and not read.

    Raises:
        InputError: for a value out of its range.
    """
    text = dict(keys["text"])
    store = text.pop("store")
    return CorpusSpec(
        hours=keys["hours"],
        dev=keys["dev"],
        agent_utterances=keys["agent_utterances"],
        source=tuple(keys["source"]),
        dialogues=_dialogue_spec(keys),
        text=TextSpec.of(text, max_odd_rows=keys["max_odd_rows"], language=keys["language"]),
        text_store=store,
        cast=_cast_spec(keys),
        long_answers=keys["long_answers"],
        read_aloud=keys["read_aloud"],
    )


def _cast_spec(keys: Mapping[str, Any]) -> CastSpec:
    """Who speaks. Where nobody is named and the language is another than English, eSpeak: the other engines speak English."""
    english = str(keys["language"] or "en").lower().split("-")[0] in ("en", "eng", "english")
    nobody = USERS if english else ((FALLBACK, 1.0),)
    users = {split: tuple(shares.items()) or nobody for split, shares in keys["user_voices"].items()}
    for split, shares in users.items():
        for name, share in shares:
            if not isinstance(share, int | float) or isinstance(share, bool) or not 0 < share < math.inf:
                raise InputError(f"user_voices.{split}: {name}: {share!r}: expected a share of more than 0, such as 0.5.")
    agent = keys["agent_voice"] or (AGENT if english else FALLBACK)
    return CastSpec(agent, users["train"], users["dev"], keys["bank"], tuple(keys["perturb"].items()), keys["takes"])


def _dialogue_spec(keys: Mapping[str, Any]) -> DialogueSpec:
    timing = dict(keys["timing"])
    own = {name: timing.pop(name) for name in ("pause_length", "pauses", "pause_places", "quiet_length")}
    own |= {name: keys[name] for name in ("seed", "pause", "quiet", "duration", "concatenate", "dataset")}
    own["longest_turn"] = keys["text"]["longest_turn"]
    timing |= {name: keys[name] for name in ("response_gap", "barge_in", "long_silence")}
    timing["gaps"] = gap_distribution(timing["gaps"], "timing.gaps", PEOPLE)
    timing["response_gaps"] = gap_distribution(timing["response_gaps"], "timing.response_gaps", PEOPLE_AS_AGENT)
    acoustics = _ranges(keys["acoustics"], "acoustics")
    transmission = Transmission(**{name: acoustics.pop(name) for name in [field.name for field in fields(Transmission)]})
    return DialogueSpec(
        rhythm=Rhythm(**_ranges(timing, "timing")),
        events=Events(**_ranges(keys["events"], "events")),
        acoustics=Acoustics(**acoustics, transmission=transmission),
        **_ranges(own, "timing"),
    )


def _ranges(section: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The keys of a section, with lists as pairs: ranges from a lower to an upper bound.

    Raises:
        InputError: for a list that is no range. Only levels may be negative, and only parts of a whole end at 1.
    """
    found = dict(section)
    for key, value in found.items():
        if isinstance(value, int | float | str | None | GapDistribution):
            continue
        low = -math.inf if key.endswith("_db") else 0.0
        high = {"barge_in_at": 1.0, "packets_lost": _MOST_PACKETS}.get(key, math.inf)
        pair = tuple(value)
        if len(pair) != 2 or not all(map(is_time, pair)) or not low <= pair[0] <= pair[1] <= high:
            bounds = "" if low < 0 else f" from 0{f' to {high:g}' if high < math.inf else ''}"
            raise InputError(f"{name}.{key}={list(pair)}: expected two numbers{bounds}, the lower one first.")
        found[key] = pair
    return found


def as_written(spec: CorpusSpec) -> dict[str, Any]:
    """The spec in the words of corpus.json and of the fingerprints in it."""
    written = asdict(spec)
    written["dialogues"]["surroundings"] = written["dialogues"].pop("acoustics")
    return written
