"""Evaluation mode for a while: the mode of before comes back, whatever happens."""

import pytest
import torch

from nemo_duplex.training.evaluation_mode import evaluating


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_restored(training):
    module = torch.nn.Dropout().train(training)
    with evaluating(module):
        assert not module.training
    assert module.training == training


def test_the_mode_is_restored_after_an_error():
    module = torch.nn.Dropout().train()
    with pytest.raises(KeyError), evaluating(module):
        raise KeyError
    assert module.training
