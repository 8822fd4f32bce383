"""An output layer with its loss in one function: autograd's numbers, from logits of which one piece exists at a time."""

import pytest
import torch
from torch import nn

from nemo_duplex.models import head_loss as module
from nemo_duplex.models.head_loss import head_loss, is_plain


def example(channels=3, bias=True, frames=11):
    torch.manual_seed(0)
    head = nn.Linear(6, channels * 7, bias=bias)
    return head, torch.randn(frames, 6, requires_grad=True), torch.randint(0, 7, (frames, channels)), torch.rand(frames)


def by_autograd(head, hidden, targets, weight):
    logits = head(hidden).float().unflatten(-1, (targets.shape[1], -1))
    each = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    return (each.view(targets.shape).mean(1) * weight).sum(), logits.argmax(-1)


def run(loss, head, hidden, *rest):
    inputs = [hidden, *(p for p in head.parameters() if p.requires_grad)]
    total, predicted = loss(head, hidden, *rest)
    return total, predicted, *torch.autograd.grad(2.5 * total, inputs)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("piece", [1, 4, 11, 100])
def test_value_gradients_and_predictions_are_those_of_autograd(bias, piece, monkeypatch):
    monkeypatch.setattr(module, "_IN_CACHE", 14)  # two rows
    given = example(bias=bias)
    for found, expected in zip(run(head_loss, *given, piece), run(by_autograd, *given)):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_text_has_one_channel_and_targets_without_an_axis_for_it():
    head, hidden, targets, weight = example(channels=1)
    total, predicted = head_loss(head, hidden, targets[:, 0], weight, 4)
    expected, ids = by_autograd(head, hidden, targets, weight)
    torch.testing.assert_close(total, expected)
    assert torch.equal(predicted, ids[:, 0])


def test_under_autocast_it_is_as_near_to_float32_as_autograd():
    given = example()
    exact = run(by_autograd, *given)
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = run(head_loss, *given, 4), run(by_autograd, *given)
    for name, found, other, expected in zip(("total", "", "hidden", "weight", "bias"), ours, theirs, exact):
        if name:
            assert found.dtype == expected.dtype
            assert (found - expected).norm() <= 2 * (other - expected).norm() + 2e-3 * expected.norm(), name


def test_what_is_frozen_gets_no_gradient_and_no_frames_are_no_loss():
    head, hidden, targets, weight = example()
    head.weight.requires_grad_(False)
    total, _ = head_loss(head, hidden, targets, weight, 4)
    total.backward()
    assert head.weight.grad is None and head.bias.grad is not None and hidden.grad is not None
    head, hidden, targets, weight = example(frames=0)
    total, _ = head_loss(head, hidden, targets, weight, 4)
    total.backward()
    assert total == 0 and torch.equal(head.weight.grad, torch.zeros_like(head.weight))


def test_a_logit_of_a_target_that_is_hardly_likely_keeps_its_loss():
    """A share below the smallest float is no logarithm of 0."""
    head = nn.Linear(1, 2, bias=False)
    nn.init.constant_(head.weight, 1.0)
    head.weight.data[1] = -1.0
    total, _ = head_loss(head, torch.tensor([[300.0]]), torch.tensor([1]), torch.ones(1), 4)
    assert total.item() == pytest.approx(600.0)


def test_only_a_bare_linear_layer_is_used_without_calling_it():
    head = nn.Linear(2, 2)
    assert is_plain(head) and not is_plain(None) and not is_plain(nn.Sequential(head))
    head.register_forward_hook(lambda *_: None)
    assert not is_plain(head)
