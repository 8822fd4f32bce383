"""inspect= and check= of the script: one of three, an exit code, one line for what is wrong."""

from __future__ import annotations

import pytest

from nemo_duplex.inputs import InputError
from nemo_duplex.scripts.config import load
from nemo_duplex.synthesis.inspection.commands import asked_for, look_at
from tests.synthesis.inspection.corpora import corpus, turns


def keys(*given: str):
    from omegaconf import OmegaConf

    return OmegaConf.to_container(load("synthesize", [*given, "workers=1"]))


def test_one_of_three_is_asked_for():
    assert [asked_for(keys(f"{name}=a")) for name in ("out", "inspect", "check")] == ["out", "inspect", "check"]
    with pytest.raises(InputError, match="Not given: out, inspect or check"):
        asked_for(keys())
    with pytest.raises(InputError, match="out and check: one run makes a corpus, inspects one or checks one"):
        asked_for(keys("out=a", "check=b"))


def test_a_check_ends_with_1_if_there_are_errors_and_says_what_was_not_checked(tmp_path, capsys):
    look_at(keys(f"check={corpus(tmp_path / 'good')}"))
    said = capsys.readouterr().out
    assert said.splitlines()[0].startswith("checked 8 cuts") and "not checked: give tokenizer=" in said

    def change(cuts):
        turns(cuts[0], "agent")[0].custom["gap"] += 1

    with pytest.raises(SystemExit) as ended:
        look_at(keys(f"check={corpus(tmp_path / 'bad', change)}"))
    assert ended.value.code == 1
    assert capsys.readouterr().out.startswith("error: 1 x a gap that its times do not have: dev-3-0000000: agent, ")


def test_other_speakers_reach_both(tmp_path, capsys):
    def change(cuts):
        for cut in cuts:
            for s in cut.supervisions:
                s.speaker = {"user": "Caller", "agent": "Bot"}[s.speaker]

    folder = corpus(tmp_path, change) / "dev" / "shar"
    look_at(keys(f"check={folder}", "speakers={Caller: user, Bot: agent}"))
    look_at(keys(f"inspect={folder}", "speakers={Caller: user, Bot: agent}", "examples=1"))
    said = capsys.readouterr().out
    assert "0 errors" in said and "dev: 0.02 h, 4 cuts" in said and (tmp_path / "dev" / "inspect.html").is_file()
