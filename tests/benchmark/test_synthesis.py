from __future__ import annotations

import pytest

from nemo_duplex.benchmark import synthesis
from nemo_duplex.benchmark.synthesis import Stopwatch, SynthesisSetting, benchmark_synthesis, synthesis_tables
from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis import cuts, shards


def test_a_stage_stands_still_while_one_inside_it_runs():
    now = [0.0]
    watch = Stopwatch(lambda: now[0])

    def spend(seconds):
        now[0] += seconds

    inner = watch.timed("inner", lambda: spend(2))
    fails = watch.timed("inner", lambda: 1 / 0)

    def work():
        spend(1)
        inner()
        spend(3)
        with pytest.raises(ZeroDivisionError):
            fails()
        spend(4)
        return "done"

    outer = watch.timed("outer", work)
    spend(100)
    assert outer() == "done"
    spend(100)
    inner()
    assert watch.seconds == {"outer": 8.0, "inner": 4.0}


def test_every_stage_of_a_corpus_is_measured():
    before = [getattr(owner, name) for owner, name, _ in synthesis._STAGES]
    result = benchmark_synthesis(SynthesisSetting(hours=0.02, agents=["espeak"], workers=None))
    figures = result["stages"]["espeak"]
    stages = ["text", "speech", "times", "mixing", "FLAC and tar", "other", "hashes and disk"]
    assert sorted(figures["seconds"]) == sorted(stages) and min(figures["seconds"].values()) >= 0
    assert figures["seconds"]["speech"] > figures["seconds"]["text"] and 0.01 < figures["hours"] < 0.05
    assert 40e6 < figures["bytes"] / figures["hours"] < 130e6 and result["ways"] == {}
    assert [getattr(owner, name) for owner, name, _ in synthesis._STAGES] == before, "nothing stays measured"
    assert shards.sha256.__module__ == "nemo_duplex.files.atomic" and cuts.schedule.__module__ == "nemo_duplex.synthesis.timing"


def test_the_tables_are_per_hour_and_beside_one_process():
    seconds = {"speech": 6.0, "mixing": 9.0}
    result = {
        "setting": {"hours": 3.0}, "date": "2026-11-29", "machine": "a machine",
        "stages": {"espeak": {"seconds": seconds, "hours": 3.0, "bytes": 240e6}},
        "ways": {"1 process": 15.0, "2 processes": 8.0, "Ray, 2 processes": 10.0},
    }  # fmt: skip
    stages, ways = synthesis_tables(result)
    assert stages.columns == ["agent's voice", "speech", "mixing", "an hour", "a core-minute", "disk an hour"]
    assert stages.rows == [["espeak", "2.00 s", "3.00 s", "5.00 s", "12.00 h", "80 MB"]]
    expected = [["1 process", "15.0 s", "1.00 x"], ["2 processes", "8.0 s", "1.88 x"], ["Ray, 2 processes", "10.0 s", "1.50 x"]]
    assert ways.rows == expected


def test_an_engine_that_is_not_there():
    with pytest.raises(InputError, match="There is no voice engine 'moon'"):
        benchmark_synthesis(SynthesisSetting(agents=["moon"], workers=None))


@pytest.mark.parametrize("agent", ["espeak", "hibari"])
def test_the_engine_that_answers_is_all_that_differs(agent):
    """Users are of eSpeak, so that what is measured is what hibari takes, not Kokoro."""
    cast = synthesis._spec(SynthesisSetting(), agent).cast
    assert (cast.agent, cast.train, cast.dev) == (agent, (("espeak", 1.0),), (("espeak", 1.0),))
