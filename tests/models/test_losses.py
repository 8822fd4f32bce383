"""The losses: padding counts nothing, weights are what they say, sampling silence is unbiased."""

import math

import pytest
import torch

from nemo_duplex.channels import ChannelLayout
from nemo_duplex.models.duplex_lm import AgentTargets
from nemo_duplex.models.losses import LossWeights, duplex_loss, speech_loss, text_loss

LAYOUT = ChannelLayout(text_vocab_size=9, text_pad=0, text_bos=1, text_eos=2, num_codebooks=2, codebook_size=5)
PAPER = LossWeights()


def example():
    torch.manual_seed(0)
    valid = torch.arange(6) < torch.tensor([6, 4])[:, None]
    targets = AgentTargets(torch.randint(0, 9, (2, 6)), torch.randint(0, 5, (2, 2, 6)), torch.rand(2, 6) < 0.5)
    return torch.randn(2, 6, 9), torch.randn(2, 6, 10), targets, valid


def logits_of(hidden):
    return hidden.unflatten(-1, (2, 5))


def test_padding_never_counts():
    """NeMo's in-tree model trains on padding: altering it moved the loss from 5.154 to 5.132 (nemo.md, 1.2)."""
    text, hidden, targets, valid = example()
    before = text_loss(text, targets.tokens, valid, LAYOUT, PAPER), speech_loss(logits_of, hidden, targets, valid, PAPER)
    text[~valid], hidden[~valid] = 99.0, -99.0
    targets.tokens[~valid] = 3
    targets.codes.transpose(1, 2)[~valid] = 4
    after = text_loss(text, targets.tokens, valid, LAYOUT, PAPER), speech_loss(logits_of, hidden, targets, valid, PAPER)
    assert before == after


def test_uniform_logits_cost_the_log_of_the_vocabulary():
    _, _, targets, valid = example()
    assert text_loss(torch.zeros(2, 6, 9), targets.tokens, valid, LAYOUT, PAPER).item() == pytest.approx(math.log(9))
    assert speech_loss(logits_of, torch.zeros(2, 6, 10), targets, valid, PAPER).item() == pytest.approx(math.log(5))


def test_text_weights_are_what_they_say():
    tokens, valid = torch.tensor([[0, 1, 5, 2]]), torch.ones(1, 4, dtype=torch.bool)
    logits = torch.zeros(1, 4, 9)
    logits[0, 0, 0] = 50.0  # pad is certain and costs nothing, the others cost log 9
    weights = LossWeights(text_pad=0.5, turn=2.0)
    expected = math.log(9) * (3 + 1 + 3) / (0.5 + 3 + 1 + 3)
    assert text_loss(logits, tokens, valid, LAYOUT, weights).item() == pytest.approx(expected, rel=1e-5)


def test_training_on_a_share_of_the_silence_is_unbiased():
    torch.manual_seed(1)
    hidden, valid = torch.randn(4, 500, 10), torch.ones(4, 500, dtype=torch.bool)
    targets = AgentTargets(torch.zeros(4, 500), torch.randint(0, 5, (4, 2, 500)), torch.rand(4, 500) < 0.2)
    full = speech_loss(logits_of, hidden, targets, valid, PAPER)
    drawn = torch.stack([speech_loss(logits_of, hidden, targets, valid, LossWeights(silence=0.2)) for _ in range(50)])
    assert drawn.std() > 0
    assert drawn.mean().item() == pytest.approx(full.item(), abs=4 * drawn.std().item() / math.sqrt(50) + 0.01)


def test_the_sum_is_the_papers():
    total, text, speech = duplex_loss(torch.tensor(2.0), torch.tensor(5.0), PAPER)
    assert total == 3 * text + speech
