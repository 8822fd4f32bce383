"""A mixture of datasets is a corpus to train and validate on."""

import json
from collections import Counter
from itertools import islice

import pytest

from nemo_duplex.data.datasets import datasets_of, is_mixture
from nemo_duplex.inputs import InputError
from tests.data.test_datamodule import module, write


@pytest.fixture
def mixture(tmp_path):
    """10 cuts of `often`, and 5 of `seldom`, which has a fifth of the hours; `heard` has no train, but dev, as `often` has."""
    write(tmp_path / "often" / "train" / "shar", range(10))
    write(tmp_path / "often" / "dev" / "shar", range(100, 103))
    write(tmp_path / "seldom" / "train" / "shar", range(20, 25))
    write(tmp_path / "heard" / "dev" / "shar", range(200, 205))
    hours = {"heard": {"hours": 0.0}, "often": {"hours": 4.0}, "seldom": {"hours": 1.0}, "none": {"hours": 0.0}}
    (tmp_path / "mixture.json").write_text(json.dumps({"datasets": hours}))
    return tmp_path


def test_training_draws_datasets_by_their_hours_and_validation_takes_all_once(mixture):
    assert is_mixture(mixture) and not is_mixture(mixture / "often")
    data = module(mixture)
    drawn = [name for batch in islice(data.train_dataloader(), 300) for name in batch]
    counts = Counter(int(name[-4:]) < 20 for name in drawn)
    assert counts[True] / len(drawn) == pytest.approx(0.8, abs=0.05)
    assert {int(name[-4:]) for name in drawn} == {*range(10), *range(20, 25)}
    assert sorted(name[-4:] for batch in data.val_dataloader() for name in batch) == [
        *("0100", "0101", "0102"),
        *("0200", "0201", "0202", "0203", "0204"),
    ]


def test_a_set_that_no_dataset_has_is_named(mixture):
    with pytest.raises(InputError, match="no dataset of the mixture .* has the set impatient"):
        datasets_of(mixture, "impatient")
    assert [part["weight"] for part in datasets_of(mixture, "train")] == [4.0, 1.0]


@pytest.mark.parametrize("text", ["", "[]", '{"mixed": 1}', '{"datasets": {"a": {}}}', '{"datasets": [1]}'])
def test_another_file_of_that_name_is_one_line(tmp_path, text):
    (tmp_path / "mixture.json").write_text(text)
    with pytest.raises(InputError, match="^data: .*mixture.json is not the summary of a mixture .* Run examples/synthesize.py"):
        datasets_of(tmp_path, "train")


def test_a_train_set_of_a_second_has_a_weight(mixture):
    (mixture / "mixture.json").write_text(json.dumps({"datasets": {"seldom": {"hours": 0.0}}}))
    assert [part["weight"] for part in datasets_of(mixture, "train")] == [0.0005]
