"""Takes: so many users say a dialogue, always the same ones; and what a bank keeps of a cast."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.tts.bank import Bank
from nemo_duplex.synthesis.tts.cast import Cast
from nemo_duplex.synthesis.tts.utterance import Perturbation
from tests.synthesis.tones import cast_of


def cast(takes: int | None = None, bank: Bank | None = None) -> Cast:
    """Speakers who hum, slow enough for a bank."""
    (voices,) = cast_of()._users["train"]
    slow = replace(voices, quick=False)
    return Cast(slow, {"train": {slow: 1.0}, "dev": {slow: 1.0}}, bank, takes)


def test_a_take_is_drawn_from_its_split_dialogue_and_number_alone():
    one, other = cast(takes=3), cast(takes=3)
    asked = [(split, dialogue, number) for split in ("train", "dev") for dialogue in ("a", "b") for number in range(3)]
    users = [one.take(*each) for each in asked]
    assert users == [other.take(*each) for each in reversed(asked)][::-1]
    assert len({user.id for user in users}) >= 11, "They are drawn from hundreds."


def test_only_the_users_of_its_takes_say_a_dialogue():
    of_three = cast(takes=3)
    takes = [of_three.take("train", "a", number) for number in range(4)]
    assert [of_three.may_say("train", "a", user) for user in takes] == [True, True, True, False]
    perturbed = replace(takes[2], id="x", perturbation=Perturbation(takes[2].id, speed=1.1))
    assert of_three.may_say("train", "a", perturbed) == (perturbed.unperturbed == takes[2])
    assert cast().may_say("train", "a", takes[3])
    with pytest.raises(InputError, match="^takes=0: expected 1 or more"):
        cast(takes=0)


def test_a_bank_keeps_what_was_spoken_before_it_is_perturbed(tmp_path):
    kept = cast(bank=Bank(tmp_path))
    voice = kept.user("dev", np.random.default_rng(0))
    perturbed = replace(voice, id=f"{voice.id}~1", perturbation=Perturbation(voice.id, speed=1.25))
    assert kept.kept("one two", perturbed) is None
    slow = kept.speak("one two", voice)
    assert kept.kept("one two", perturbed).duration == slow.duration
    quick = kept.speak("one two", perturbed)
    assert len(list(tmp_path.rglob("*.flac"))) == 1
    assert quick.duration == pytest.approx(slow.duration / 1.25, rel=0.02)
