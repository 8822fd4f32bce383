"""Who speaks in a corpus: one agent, and users of several engines, those of dev apart from those of train."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from nemo_duplex.conversation import Speaker
from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.text.sources import Split
from nemo_duplex.synthesis.tts.bank import Bank, KeptUtterance, in_16_bits
from nemo_duplex.synthesis.tts.perturbation import FASTEST, perturbation, perturbation_version, perturbed
from nemo_duplex.synthesis.tts.utterance import Perturbation, SpeechEngine, Utterance, Voice

_TAKES_KEPT = 1 << 16  # voices of dialogues, in memory


@dataclass(frozen=True, eq=False)
class EngineVoices:
    """The speakers of one engine.

    Args:
        engine: that speaks.
        agent: its voice of an agent; None: it has none.
        num_users: how many users it has in each split.
        user: from a split and a number to a user's voice. No voice of dev is one of train.
        quick: whether it speaks so fast that a bank does not keep what it says.
        fastest: the voice in which a user says a text in the least time, if the engine is quick.
        perturbed_by: what makes several users of one, with its version; None: nothing does.
        shared: whether users of train and dev are the same voices: the engine may speak in one of them.
    """

    engine: SpeechEngine
    agent: Voice | None
    num_users: Mapping[Split, int]
    user: Callable[[Split, int], Voice]
    quick: bool = False
    fastest: Voice | None = None
    perturbed_by: str | None = None
    shared: bool = False

    @property
    def id(self) -> str:
        """Name and version of the engine."""
        return f"{self.engine.name} {self.engine.version}"

    def multiplied(self, times: int) -> EngineVoices:
        """The same speakers with `times` users of each, by pitch, formants and speed. The first of them is as it is.

        Raises:
            NotInstalled: without what perturbs voices.

        Examples:
            >>> from nemo_duplex.synthesis.tts.voices import espeak_voices
            >>> voices = espeak_voices().multiplied(3)
            >>> voices.num_users["dev"], voices.user("dev", 204).id, voices.user("dev", 205).id
            (240, 'dev068', 'dev068~1')
        """

        def user(split: Split, number: int) -> Voice:
            return _perturbed_voice(self.user(split, number // times), number % times)

        num_users = {split: times * count for split, count in self.num_users.items()}
        fastest = self.fastest and replace(self.fastest, perturbation=Perturbation(self.fastest.id, speed=FASTEST))
        return replace(self, num_users=num_users, user=user, fastest=fastest, perturbed_by=perturbation_version())


def with_users(engine: SpeechEngine, agent: Voice | None, train: Sequence[Voice], dev: Sequence[Voice]) -> EngineVoices:
    """An engine with users by their voices; without any of dev, those of train may be users of either split."""
    users: dict[Split, Sequence[Voice]] = {"train": train, "dev": dev or train}
    num_users = {split: len(voices) for split, voices in users.items()}
    return EngineVoices(engine, agent, num_users, lambda split, number: users[split][number], shared=not dev)


def every_fifth_for_dev(users: Sequence[Voice]) -> tuple[list[Voice], list[Voice]]:
    """(train, dev): the users of a model or a manifest that does not divide them itself; fewer than five are all of train."""
    dev = list(users[4::5])
    return [user for user in users if user not in dev], dev


class Speakers(Protocol):
    """What dialogues are spoken by; `Cast` is one."""

    agent: Voice
    takes: int | None

    def user(self, split: Split, rng: np.random.Generator) -> Voice:
        """A user of a split, drawn."""
        ...

    def take(self, split: Split, dialogue: str, number: int) -> Voice:
        """The user who says a dialogue, by its id, in take `number`."""
        ...

    def may_say(self, split: Split, dialogue: str, user: Voice) -> bool:
        """Whether a user says a dialogue in one of the `takes`; always, if they are not limited."""
        ...

    def speak(self, text: str, voice: Voice) -> Utterance:
        """`text` in a voice of any engine: a pure function."""
        ...

    def engine_of(self, voice: Voice) -> str:
        """Name and version of the engine that a voice belongs to."""
        ...


class Cast:
    """An agent and users of several engines, who speak through one method.

    Args:
        agent: the engine whose agent answers.
        users: {split: {engine: share of the dialogues}}.
        bank: keeps what engines that are not quick have spoken; None: nothing is kept.
        takes: so many users of its split say a dialogue, always the same ones; None: any of them may. With takes, a source of
            dialogues needs no more utterances than a bank can hold, whatever corpora are made of it.

    Raises:
        InputError: if the engine of the agent has no such voice, one of the users none in a split or the same in both, or there
            are no takes.

    Examples:
        >>> from nemo_duplex.synthesis.tts.voices import espeak_voices
        >>> espeak = espeak_voices()
        >>> cast = Cast(espeak, {"train": {espeak: 1.0}, "dev": {espeak: 1.0}})
        >>> cast.user("dev", np.random.default_rng(0)).id
        'dev068'
        >>> cast.speak("Good day.", cast.agent).words[1].text
        'day'
    """

    def __init__(
        self,
        agent: EngineVoices,
        users: Mapping[Split, Mapping[EngineVoices, float]],
        bank: Bank | None = None,
        takes: int | None = None,
    ) -> None:
        if takes is not None and takes < 1:
            raise InputError(f"takes={takes}: expected 1 or more, or null: any user says any dialogue.")
        if agent.agent is None:
            raise InputError(f"agent_voice: {agent.engine.name} has no voice for an agent. Take hibari or espeak.")
        self.agent, self._agent_voices = agent.agent, agent
        by_id = {split: sorted(shares.items(), key=lambda share: share[0].id) for split, shares in users.items()}
        self._users = {split: dict(shares) for split, shares in by_id.items()}  # the order of a configuration decides nothing
        self._bank, self.takes = bank, takes
        self._take = lru_cache(maxsize=_TAKES_KEPT)(self._drawn_take)
        self._voices: dict[str, EngineVoices] = {}
        for voices in (agent, *(v for u in users.values() for v in u)):
            if self._voices.setdefault(voices.engine.name, voices).engine is not voices.engine:
                raise InputError(f"Two engines are called {voices.engine.name}: give one of their files another name.")
        for split, shares in self._users.items():
            if not shares or min(shares.values()) <= 0:
                raise InputError(f"user_voices.{split}: expected engines with shares of more than 0.")
            for voices in shares:
                if not voices.num_users[split]:
                    name = voices.engine.name
                    raise InputError(f"user_voices.{split}: {name} has no users of {split}. Take another one, such as espeak.")
        for voices in set(self._users.get("train", ())) & set(self._users.get("dev", ())):
            if voices.shared:
                name = voices.engine.name
                raise InputError(f"user_voices: {name} has the same voices in train and dev: let it speak in one of them.")

    def user(self, split: Split, rng: np.random.Generator) -> Voice:
        """A user of a split: an engine by its share, and one of its voices."""
        voices, *others = self._users[split]
        if others:
            shares = np.array(list(self._users[split].values()))
            voices = list(self._users[split])[int(rng.choice(len(shares), p=shares / shares.sum()))]
        return voices.user(split, int(rng.integers(voices.num_users[split])))

    def take(self, split: Split, dialogue: str, number: int) -> Voice:
        """The user who says a dialogue, by its id, in take `number`: the same in every corpus with these users."""
        return self._take(split, dialogue, number)

    def _drawn_take(self, split: Split, dialogue: str, number: int) -> Voice:
        digest = hashlib.sha256(f"{split}|{number}|{dialogue}".encode()).digest()
        return self.user(split, np.random.default_rng(int.from_bytes(digest[:8], "big")))

    def may_say(self, split: Split, dialogue: str, user: Voice) -> bool:
        """Whether a user says a dialogue in one of the `takes`; always, if they are not limited."""
        takes = range(self.takes or 0)
        return self.takes is None or any(self.take(split, dialogue, i).unperturbed == user.unperturbed for i in takes)

    def is_quick(self, voice: Voice) -> bool:
        """Whether the engine of a voice speaks so fast that `speak` does not keep what it says."""
        return self._voices[voice.engine].quick

    def kept(self, text: str, voice: Voice) -> KeptUtterance | None:
        """What the bank has of an utterance, before a perturbation; None if it is not there, damaged, or there is no bank."""
        return None if self._bank is None else self._bank.kept(text, voice.unperturbed, self._voices[voice.engine].engine)

    def keep(self, text: str, voice: Voice) -> KeptUtterance:
        """What the bank has of an utterance of any engine, quick or not, which is spoken if it is not there.

        Raises:
            InputError: if its engine cannot say it.
        """
        assert self._bank is not None, "there is a bank"
        return self._bank.keep(text, voice.unperturbed, self._voices[voice.engine].engine)

    def speak(self, text: str, voice: Voice) -> Utterance:
        """`text` in a voice of any engine, in samples of 16 bits; from the bank if it is there.

        Raises:
            InputError: if its engine cannot say it.
        """
        voices, spoken_by = self._voices[voice.engine], voice.unperturbed
        if self._bank is None or voices.quick:
            spoken = in_16_bits(voices.engine.speak(text, spoken_by))
        else:
            spoken = self._bank.utterance(text, spoken_by, voices.engine)
        return spoken if voice.perturbation is None else in_16_bits(perturbed(spoken, voice.perturbation))

    def engine_of(self, voice: Voice) -> str:
        """Name and version of the engine that a voice belongs to."""
        return self._voices[voice.engine].id

    def cannot_say(self, speaker: Speaker, text: str, language: str | None) -> str | None:
        """Why one of the speaker's engines cannot say `text`; None if all can, as far as they know before they speak."""
        users = dict.fromkeys(voices for shares in self._users.values() for voices in shares)
        for voices in (self._agent_voices,) if speaker == "agent" else users:
            cannot_say = getattr(voices.engine, "cannot_say", None)
            voice = replace(voices.agent or voices.user("dev", 0), language=language)
            if cannot_say is not None and (reason := cannot_say(text, voice)) is not None:
                return reason
        return None

    @property
    def quick_user(self) -> Voice | None:
        """The voice in which a user says a text in the least time, of the first engine that is quick; None if none is."""
        return next((v.fastest for shares in self._users.values() for v in shares if v.fastest is not None), None)

    @property
    def num_users(self) -> dict[str, int]:
        """Users of each split."""
        return {split: sum(voices.num_users[split] for voices in shares) for split, shares in self._users.items()}

    @property
    def versions(self) -> dict[str, str]:
        """Of the engines, by name."""
        return {name: voices.engine.version for name, voices in self._voices.items()}

    def describe(self) -> dict[str, Any]:
        """The agent, and engines with versions, numbers of users and shares: what a corpus is made by."""
        agent = {key: value for key, value in asdict(self.agent).items() if value is not None}
        users = {
            split: {
                voices.id: [voices.num_users[split], share, *([voices.perturbed_by] if voices.perturbed_by else [])]
                for voices, share in shares.items()
            }
            for split, shares in self._users.items()
        }
        takes = {} if self.takes is None else {"takes": self.takes}
        return {"agent": agent | {"engine": self._agent_voices.id}, "users": users, **takes}


def _perturbed_voice(voice: Voice, number: int) -> Voice:
    by = perturbation(voice, number)
    return voice if by is None else replace(voice, id=f"{voice.id}~{number}", perturbation=by)
