"""The soak script: what comes out, and that wrong input is one line."""

import importlib.util
import json
from pathlib import Path

import pytest

from tests.dummies import tiny_model
from tests.evaluation.agents import cut_of, dialogue, write_set

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def main():
    spec = importlib.util.spec_from_file_location("soak_example", ROOT / "examples" / "soak.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    folder = tmp_path_factory.mktemp("soak")
    tiny_model(folder).save_to(str(folder / "agent.nemo"))
    write_set(folder / "corpus" / "dev" / "shar", [cut_of(dialogue("one")), cut_of(dialogue("two", shift=0.08))])
    return folder


def keys(setup, out, **changes):
    given = {"model": setup / "agent.nemo", "data": setup / "corpus", "out": out, "sets": "[dev]", "threads": 1} | changes
    return [f"{key}={value}" for key, value in given.items()]


def test_most_of_a_minute_of_it(main, setup, tmp_path, capsys):
    main(keys(setup, tmp_path, minutes=0.7, compared=0.2))
    said = capsys.readouterr().out
    assert "success_rate" in said and "MB of tensors" in said and "complete" in said
    found = json.loads((tmp_path / "soak.json").read_text())
    assert found["conversations"] == {"compared": 1, "all": 3}
    assert len({mark["tensors_mb"] for mark in found["memory"]}) == 1
    assert found["transcript"]["complete"] and len(found["model_sha256"]) == 64


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"minutes": 1, "compared": 0.5}, "compared=0.5: the first and the last 0.5 of 1 minutes"),
        ({"model": "nowhere.nemo"}, "model: there is no file nowhere.nemo"),
        ({"system_prompt": "one " * 900}, "A system prompt of"),
        ({"minutes": 1e9}, "minutes=1e+09: expected more than 0, up to 10080."),
        ({"minutes": 0}, "minutes=0: expected a positive number"),
        ({"compared": 0}, "compared=0: expected a positive number"),
        ({"minute": 1}, "Did you mean 'minutes'?"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_wrong_input_is_one_line(main, setup, tmp_path, monkeypatch, capsys, changes, message):
    monkeypatch.chdir(setup)
    with pytest.raises(SystemExit) as ended:
        main(keys(setup, tmp_path / "out", **({"minutes": 1, "compared": 0.2} | changes)))
    said = capsys.readouterr().err
    assert ended.value.code == 2 and message in said and "Traceback" not in said
    assert not (tmp_path / "out").exists()
