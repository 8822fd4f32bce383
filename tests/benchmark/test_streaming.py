"""The streaming benchmark: its parts in one run of the script, settings handed on, wrong keys in one line."""

import functools
import json
import operator
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf

from nemo_duplex.benchmark import age, streaming
from nemo_duplex.benchmark.builds import BuildsSetting
from nemo_duplex.benchmark.codec import CodecSetting
from nemo_duplex.benchmark.corpus import CorpusSetting
from nemo_duplex.benchmark.roofline import STAGES
from nemo_duplex.benchmark.serving import ServingSetting
from nemo_duplex.benchmark.streaming import PARTS, StreamingSetting, benchmark_streaming, streaming_tables
from nemo_duplex.benchmark.synthesis import SynthesisSetting
from nemo_duplex.benchmark.training_step import TrainingSetting
from nemo_duplex.benchmark.user_activity import ActivitySetting
from nemo_duplex.inputs import InputError
from nemo_duplex.scripts.config import load

TINY = StreamingSetting(size="tiny", ticks=6, most=2, histories=[1.0, 2.0], threads=1)


@pytest.fixture
def short_conversations(monkeypatch):
    for module in (age, streaming):
        monkeypatch.setattr(module, "YOUNG", 1.6)
        monkeypatch.setattr(module, "SPAN", 0.8)


def test_in_one_run_of_the_script(tmp_path, capsys, monkeypatch, script, measured_here, quick_machine, short_conversations):
    """All parts but the one that needs NeMo's in-tree model."""
    monkeypatch.setattr("nemo_duplex.benchmark.sessions._WARM_UP_CHUNKS", 1)
    keys = ["what=stream", "parts=[age,sessions,stages]", "size=tiny", "ticks=6", "most=2", "batches=[2]", "minutes=0.05"]
    assert script(*keys, "precision=bf16", "threads=1", f"out={tmp_path / 'figures.md'}") == 0
    printed = capsys.readouterr()
    result = json.loads((tmp_path / "figures.json").read_text())
    assert list(result) == ["machine", "date", "setting", "age", "sessions", "stages"]
    assert [line for line in printed.err.splitlines() if line.endswith("...")] == ["age ...", "sessions ...", "stages ..."]
    assert all(result[part]["took"] > 0 for part in ("age", "sessions", "stages"))
    page, tables = (tmp_path / "figures.md").read_text(), streaming_tables(result)
    assert [table.title for table in tables][-3:] == [
        "Stages at full size (tiny)",
        "Ticks at full size",
        "Age of a conversation",
    ]
    for table in tables:
        assert table.text() in printed.out and table.markdown() in page

    assert measured_here == ["stages"]
    (batch,) = result["stages"]["batches"]
    assert (
        batch["ticks"]["sessions"] == 2 and batch["ticks"]["count"] == 6 and set(batch["ticks"]["stages"]) == {*STAGES, "step"}
    )
    assert [t["sessions"] for t in result["sessions"]["spread"]] in ([1, 2], [1])
    assert (result["age"]["young"], result["age"]["old"], result["age"]["pairs"]) == (1.6, 3.0, 1)
    assert "random weights in the geometry of conf/duplex_tiny.yaml" in printed.out


def test_each_part_gets_its_settings_and_threads_are_set_back(monkeypatch):
    asked = {}

    def part(name, figures=None):
        def measure(*arguments):
            asked[name] = (*arguments, torch.get_num_threads())
            return figures or {}

        return measure

    agent = SimpleNamespace(model="model", users="users", about=["about"])
    monkeypatch.setattr(streaming, "MeasuredAgent", lambda *given: asked.update(agent=given) or agent)
    monkeypatch.setattr(streaming, "measure_sessions", part("sessions"))
    monkeypatch.setattr(streaming, "measure_full_size", part("stages"))
    monkeypatch.setattr(streaming, "compare_with_in_tree", part("in_tree"))
    ages = age.Ages(1.0, 2.0, 3.0, 4.0, 5.0, 6, 7)
    monkeypatch.setattr(streaming, "compare_ages", lambda *given: asked.update(age=given) or ages)
    setting = StreamingSetting(ticks=9, most=5, minutes=10.0, threads=3, int8=True, precision="bf16", histories=[4.0])
    result = benchmark_streaming(setting)
    assert torch.get_num_threads() == 1

    options = {"compile": False, "cuda_graphs": None, "int8": True}
    assert asked["agent"] == (None, None, "cpu", "bf16")
    assert asked["sessions"] == (agent, streaming.Simulation(9, options=options), 5, 3)
    assert asked["stages"] == ("paper", "cpu", "bf16", 3, 9, [1], options, 3)
    assert asked["in_tree"] == ("small", None, "cpu", 3, [4.0], 3)
    assert asked["age"] == ("model", "users", 60.0, 600.0, 60.0)
    assert result["age"].items() >= {"about": ["about"], **asdict(ages)}.items()
    assert result["setting"] == asdict(setting) and [*result][3:] == list(PARTS)

    benchmark_streaming(replace(setting, size="tiny", batches=[4, 8], parts=["stages", "in_tree"]))
    assert (asked["stages"][0], asked["in_tree"][0], asked["stages"][5]) == ("tiny", "tiny", [4, 8])
    monkeypatch.setattr(streaming, "measure_full_size", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        benchmark_streaming(setting)
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize(
    "wrong, line",
    [
        ({"parts": ["sesions"]}, r"parts=\[sesions\]: expected some of sessions, stages, in_tree, age"),
        ({"parts": []}, r"parts=\[\]: expected some of"),
        ({"device": "tpu"}, "device=tpu: expected cpu or cuda"),
        ({"precision": "16"}, "precision=16: expected 32 or bf16"),
        ({"size": "big"}, "size is 'big', expected one of tiny, small, paper"),
        ({"batches": [0]}, r"batches=\[0\]: expected numbers of 1 or more"),
        ({"batches": 4}, "batches=4: expected"),
        ({"histories": []}, r"histories=\[\]: expected numbers"),
        ({"ticks": 0}, r"ticks=\[0\]: expected numbers"),
        ({"most": 0}, r"most=\[0\]: expected numbers"),
        ({"minutes": 1.9}, "minutes=1.9: expected 2 or more"),
        ({"model": "nowhere.nemo"}, "model: .*nowhere.nemo"),
        ({"data": "nowhere"}, "data: .*nowhere"),
    ],
)
def test_wrong_settings_are_one_line(wrong, line):
    with pytest.raises(InputError, match=line):
        benchmark_streaming(replace(TINY, **wrong))


def test_the_configuration_has_every_key_with_its_default():
    configured = OmegaConf.to_container(load("benchmark", []))
    shared = {"threads": 2, "most": StreamingSetting().most}
    settings = [
        CodecSetting(),
        ActivitySetting(),
        BuildsSetting(),
        CorpusSetting(),
        ServingSetting(),
        StreamingSetting(),
        SynthesisSetting(),
        TrainingSetting(),
    ]
    assert configured == json.loads(json.dumps(functools.reduce(operator.or_, map(asdict, settings)))) | shared | {
        "what": "train",
        "out": None,
    }


def test_settings_at_the_edge_are_accepted():
    replace(TINY, minutes=2.0, ticks=1, most=1, batches=[1], histories=[1.0]).check()
