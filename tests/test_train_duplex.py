"""examples/train_duplex.py: wrong input is one line. That it trains, killed or not, is shown by training/test_resume.py."""

from pathlib import Path

import pytest

from tests.training.trainings import arguments, train_duplex, write_setup

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    return write_setup(tmp_path_factory.mktemp("train"), steps=1, every=1)


WRONG = {
    "no data": (["data.train=nowhere"], "data.train: there is no folder nowhere"),
    "no data for a tokenizer": (
        ["data.train=nowhere", "model.tokenizer.model_path=null"],
        "data.train: there is no folder nowhere",
    ),
    "no data at all": (
        ["data.train=null"],
        "Add data.train=, the folder of a corpus of examples/synthesize.py, or data.compose=",
    ),
    "data and dialogues to compose": (["data.compose={duration: 12.8}"], "data.train and data.compose are both given"),
    "unknown key of dialogues to compose": (
        ["data.train=null", "data.compose={durations: 12.8}"],
        "data.compose: unknown key 'durations'. Did you mean 'duration'?",
    ),
    "no file of dialogues to compose": (
        ["data.train=null", "data.compose=nowhere.yaml"],
        "data.compose: there is no file nowhere",
    ),
    "a source that is not there": (
        ["data.train=null", "data.compose={source: [nowhere.jsonl]}"],
        "source: there is no file nowhere.jsonl",
    ),
    "no tokenizer": (["tokenizer_size=null", "model.tokenizer.model_path=null"], "tokenizer_size=1024 to train one"),
    "no validation data": (["data.validation=nowhere"], "data.validation: there is no folder nowhere"),
    "unknown key of the loader": (
        ["data.train_loader.max_durations=3"],
        "unknown key 'max_durations'. Did you mean 'max_duration'?",
    ),
    "filter of the loader": (
        ["data.train_loader.max_duration=0.1"],
        "no cut that the loader's filters let pass (max_duration=0.1)",
    ),
    "filter of validation": (["data.validation_loader.min_duration=99"], "The validation data hold no cut that"),
    "no shards": ([f"data.train={ROOT / 'conf'}"], "holds no Lhotse Shar"),
    "unknown key": (["model.speech_delai=1"], "model.speech_delay"),
    "no encoder": (["model.pretrained_asr=missing.nemo"], "missing.nemo"),
    "no checkpoints": (["checkpoint.keep=0"], "checkpoint.keep=0: expected a positive whole number"),
}


@pytest.mark.parametrize("keys, message", WRONG.values(), ids=WRONG)
def test_wrong_input_is_one_line(setup, tmp_path, capsys, keys, message):
    with pytest.raises(SystemExit) as end:
        train_duplex().main(arguments(setup, tmp_path / "run", *keys))
    assert end.value.code == 2
    said = capsys.readouterr().err.splitlines()
    assert message in said[-1] and said[-1].startswith("error: ")
    assert not (tmp_path / "run" / "agent.nemo").exists()
