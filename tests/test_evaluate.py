"""examples/evaluate.py from a model and a corpus on disk to a report, and what it says to wrong input."""

import importlib.util
import json
from pathlib import Path

import pytest

from tests.dummies import tiny_model
from tests.evaluation.agents import cut_of, dialogue, write_set

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def main():
    spec = importlib.util.spec_from_file_location("evaluate_example", ROOT / "examples" / "evaluate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    """A random model as agent.nemo, a corpus with a good dev set, and one whose user has another rate."""
    folder = tmp_path_factory.mktemp("evaluate")
    tiny_model(folder).save_to(str(folder / "agent.nemo"))
    write_set(folder / "corpus" / "dev" / "shar", [cut_of(dialogue("one")), cut_of(dialogue("two", shift=0.08))])
    write_set(folder / "slow" / "dev" / "shar", [cut_of(dialogue("slow"), user_rate=8000)])
    return folder


def keys(setup, out, **changes):
    given = {"model": setup / "agent.nemo", "data": setup / "corpus", "out": out, "sets": "[dev]", "threads": 1} | changes
    return [f"{key}={value}" for key, value in given.items()]


def test_a_report_comes_out(main, setup, tmp_path, capsys):
    main(keys(setup, tmp_path, asr_turns=2, control_turns=1, examples=1))
    said = capsys.readouterr().out
    assert "Barge-in success" in said and "report.html" in said
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["sets"]["dev"]["counts"]["n_user_turns"] == 6
    assert len(report["provenance"]["model_sha256"]) == 64
    for name in ("report.html", "events.csv", "conversation.wav"):
        assert (tmp_path / name).stat().st_size > 0, name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "nowhere.nemo"}, "model: there is no file nowhere.nemo"),
        ({"data": "nowhere"}, "data: there is no folder nowhere"),
        ({"sets": "[dev,test]"}, "set 'test': there is no folder"),
        ({"data": "slow"}, "Cut slow: the user channel has 8000 Hz, the model hears 16000 Hz"),
        ({"vad": "ears"}, "vad=ears"),
        ({"sets": "[]"}, "sets=[]: expected at least one set of the corpus, such as sets=[dev]."),
        ({"batch_size": 0}, "batch_size=0: expected a positive whole number"),
        ({"asr_turns": -1}, "asr_turns=-1: expected a whole number from 0"),
        ({"seed": 99999999999999999999}, "seed=99999999999999999999: expected 0 to 4294967295"),
        ({"threads": 2000}, "threads=2000: expected 1 to 1024"),
        ({"device": "gpu"}, "device=gpu: "),
        ({"asr_turn": "1"}, "Did you mean 'asr_turns'?"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_wrong_input_is_one_line(main, setup, tmp_path, monkeypatch, capsys, changes, message):
    monkeypatch.chdir(setup)
    with pytest.raises(SystemExit) as ended:
        main(keys(setup, tmp_path / "out", **changes))
    said = capsys.readouterr().err
    assert ended.value.code == 2 and message in said and "Traceback" not in said
    assert not (tmp_path / "out").exists()
