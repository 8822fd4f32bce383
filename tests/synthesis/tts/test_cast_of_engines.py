"""Who speaks where there are several engines; `test_cast.py` has takes and perturbed voices."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.tts.bank import Bank
from nemo_duplex.synthesis.tts.cast import Cast, EngineVoices
from nemo_duplex.synthesis.tts.utterance import Utterance, Voice
from tests.synthesis.tones import ToneEngine


class Named(ToneEngine):
    """Tones under a name; counts what it has said."""

    def __init__(self, name: str) -> None:
        self.name, self.said = name, Counter()

    def speak(self, text: str, voice: Voice) -> Utterance:
        self.said[text] += 1
        spoken = super().speak(text, replace(voice, name=self.name))
        return replace(spoken, audio=spoken.audio * 0.777)


def voices(name: str, train: int = 6, dev: int = 3, agent: bool = True, quick: bool = False) -> EngineVoices:
    def user(split: str, number: int) -> Voice:
        return Voice(f"{name}-{split}{number}", name, pitch=number, engine=name)

    return EngineVoices(
        Named(name), Voice("agent", name, engine=name) if agent else None, {"train": train, "dev": dev}, user, quick
    )


A, B = voices("a"), voices("b", agent=False)
CAST = Cast(A, {"train": {A: 1.0, B: 3.0}, "dev": {B: 1.0}})


def test_users_are_drawn_by_the_shares_of_their_engines_and_within_one_evenly():
    rng = np.random.default_rng(0)
    drawn = Counter(CAST.user("train", rng).id for _ in range(4000))
    assert set(drawn) == {f"{name}-train{number}" for name in "ab" for number in range(6)}
    assert sum(count for name, count in drawn.items() if name[0] == "b") / 4000 == pytest.approx(0.75, abs=0.03)
    assert max(drawn.values()) / 4000 == pytest.approx(0.75 / 6, abs=0.02)
    assert {CAST.user("dev", rng).id for _ in range(100)} == {f"b-dev{number}" for number in range(3)}
    assert CAST.num_users == {"train": 12, "dev": 3}


def test_a_voice_is_spoken_by_its_engine_in_16_bits():
    said = CAST.speak("One two.", B.user("train", 0))
    assert B.engine.said["One two."] == 1 and A.engine.said["One two."] == 0
    samples = said.audio * 32768
    assert np.array_equal(samples, np.round(samples)) and np.abs(samples).max() > 1000
    assert CAST.engine_of(B.user("dev", 1)) == "b 1" and CAST.versions == {"a": "1", "b": "1"}


def test_the_order_of_a_configuration_decides_nothing():
    other = Cast(A, {"train": {B: 3.0, A: 1.0}, "dev": {B: 1.0}}, takes=2)
    same = Cast(A, {"train": {A: 1.0, B: 3.0}, "dev": {B: 1.0}}, takes=2)
    assert other.describe() == same.describe()
    assert [other.take("train", f"d{i}", 0) for i in range(20)] == [same.take("train", f"d{i}", 0) for i in range(20)]
    one, two = (np.random.default_rng(1) for _ in range(2))
    assert [other.user("train", one) for _ in range(20)] == [same.user("train", two) for _ in range(20)]


def test_a_text_need_only_be_said_by_those_who_say_it():
    picky = voices("picky")
    picky.engine.cannot_say = lambda text, voice: "no" if "agent" in text else None
    cast = Cast(A, {"train": {picky: 1.0}})
    assert cast.cannot_say("agent", "the agent's words", None) is None
    assert cast.cannot_say("user", "the agent's words", None) == "no" and cast.cannot_say("user", "words", None) is None


def test_what_slow_engines_say_is_kept_and_what_quick_ones_say_is_not(tmp_path):
    slow, quick = voices("slow"), voices("quick", quick=True)
    cast = Cast(slow, {"train": {quick: 1.0}}, Bank(tmp_path))
    for voice, is_quick in ((slow.agent, False), (quick.user("train", 0), True)):
        assert cast.kept("Hello.", voice) is None and cast.is_quick(voice) == is_quick
        first, again = (cast.speak("Hello.", voice) for _ in range(2))
        assert np.array_equal(first.audio, again.audio) and (cast.kept("Hello.", voice) is None) == is_quick
    assert slow.engine.said["Hello."] == 1 and quick.engine.said["Hello."] == 2
    assert np.array_equal(
        Cast(slow, {"train": {quick: 1.0}}).speak("Hello.", slow.agent).audio, cast.speak("Hello.", slow.agent).audio
    )


def test_takes_are_the_same_users_of_a_dialogue_in_every_corpus():
    cast = Cast(A, {"train": {A: 1.0, B: 1.0}, "dev": {B: 1.0}}, takes=2)
    for dialogue in ("d1", "d2", "d3"):
        allowed = {cast.take("train", dialogue, number).id for number in range(2)}
        everybody = [v.user("train", number) for v in (A, B) for number in range(6)]
        assert {user.id for user in everybody if cast.may_say("train", dialogue, user)} == allowed
        assert cast.take("dev", dialogue, 0).id.startswith("b-dev")
    assert len({cast.take("train", f"d{i}", 0).id for i in range(200)}) == 12
    assert all(CAST.may_say("train", "d1", user) for user in everybody), "Without takes, anybody says anything."


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: Cast(B, {"train": {A: 1.0}}), "agent_voice: b has no voice for an agent"),
        (lambda: Cast(A, {"train": {A: 0.0}}), "user_voices.train: expected engines with shares of more than 0"),
        (lambda: Cast(A, {"train": {}}), "user_voices.train: expected engines"),
        (lambda: Cast(A, {"dev": {voices("c", dev=0): 1.0}}), "user_voices.dev: c has no users of dev"),
        (lambda: Cast(A, {"train": {A: 1.0}}, takes=0), "takes=0: expected 1 or more"),
        (lambda: Cast(A, {"train": {voices("a"): 1.0}}), "Two engines are called a: give one of their files another name"),
    ],
)
def test_a_cast_that_cannot_be_is_one_line(made, message):
    with pytest.raises(InputError, match=message):
        made()


def test_what_a_corpus_is_made_by_changes_with_every_part():
    def described(agent=A, shares=((A, 1.0), (B, 3.0)), takes=None) -> str:
        return repr(Cast(agent, {"train": dict(shares)}, takes=takes).describe())

    newer = voices("b", agent=False)
    newer.engine.version = "2"
    others = [
        described(agent=voices("c")), described(shares=((A, 1.0), (B, 2.0))), described(shares=((A, 1.0), (newer, 3.0))),
        described(takes=2), described(shares=((A, 1.0), (voices("b", train=7), 3.0))),
    ]  # fmt: skip
    assert len({described(), *others}) == 6
