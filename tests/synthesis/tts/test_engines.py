"""What is not installed is named in one line, and the others speak without it."""

from __future__ import annotations

import pytest

from nemo_duplex.inputs import InputError, NotInstalled
from nemo_duplex.synthesis.tts import engines
from nemo_duplex.synthesis.tts.engines import CastSpec, engine_voices, open_cast


@pytest.fixture
def without(monkeypatch):
    """Makes engines missing."""

    def missing(*names: str) -> None:
        for name in names:

            def refuse(_: str | None, name: str = name) -> None:
                raise NotInstalled(f"{name} 1.0 is not installed: pip install {name}")

            monkeypatch.setitem(engines._OPENED, name, refuse)
        engine_voices.cache_clear()

    yield missing
    engine_voices.cache_clear()


def test_an_engine_that_is_not_installed_is_named_once_and_its_share_goes_to_the_others(without):
    without("kokoro")
    spec = CastSpec("espeak", (("kokoro", 0.5), ("espeak", 0.25), ("pico", 0.25)), (("kokoro", 0.5), ("espeak", 0.5)))
    cast, lines = open_cast(spec)
    assert lines == ["kokoro does not speak: kokoro 1.0 is not installed: pip install kokoro"]
    shares = cast.describe()["users"]["train"]
    assert [name.split()[0] for name in shares] == ["espeak-ng", "pico"] and {share for _, share, *_ in shares.values()} == {
        0.25
    }


def test_without_the_agents_engine_and_all_of_the_users_espeak_speaks(without):
    without("hibari", "kokoro")
    cast, lines = open_cast(CastSpec("hibari", (("kokoro", 1.0),), (("espeak", 1.0),)))
    assert [line.split()[0] for line in lines] == ["hibari", "kokoro"]
    assert cast.agent.engine == "espeak-ng" and cast.num_users == {"train": 480, "dev": 80}


def test_where_nothing_is_left_the_run_ends(without):
    without("hibari", "espeak")
    with pytest.raises(NotInstalled, match="espeak 1.0 is not installed: pip install espeak"):
        open_cast(CastSpec("hibari"))


def test_an_engine_that_is_not_known_is_no_engine_that_is_missing():
    with pytest.raises(InputError, match="There is no voice engine 'alexa': expected one of espeak, hibari, kokoro, pico"):
        open_cast(CastSpec("alexa"))


def test_a_bank_keeps_what_had_to_be_aligned_and_not_what_espeak_says():
    assert engine_voices("espeak").quick and not engine_voices("pico").quick and not engine_voices("hibari").quick


def test_an_engine_is_opened_once():
    assert engine_voices("espeak") is engine_voices("espeak")
