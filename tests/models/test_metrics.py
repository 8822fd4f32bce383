"""Sums of a step: right per codebook and mark, additive over batches, and silent about what was not there."""

import math

import pytest
import torch

from nemo_duplex.channels.layout import ChannelLayout
from nemo_duplex.channels.targets import AgentTargets
from nemo_duplex.models.losses import ChannelLoss, LossWeights
from nemo_duplex.models.metrics import StepSums

LAYOUT = ChannelLayout(text_vocab_size=9, text_pad=0, text_bos=1, text_eos=2, num_codebooks=2, codebook_size=5)
PAD = LAYOUT.speech_pad


def loss(predicted, targets, total=2.0, weight=4.0):
    return ChannelLoss(torch.tensor(total), torch.tensor(weight), torch.tensor(predicted), torch.tensor(targets))


def sums(text, speech, valid=(True, True, True, True), experts=None):
    frames = torch.tensor([valid])
    nothing = torch.zeros(frames.shape)
    targets = AgentTargets(nothing.long(), nothing.long()[:, None], nothing.bool(), frames)
    return StepSums.of(loss(*text), loss(*speech), targets, LAYOUT, experts)


TEXT = ([1, 5, 0, 3], [1, 6, 0, 2])  # BOS right, a word wrong, pad right, EOS wrong
SPEECH = ([[0, 1], [0, 3], [4, 4], [2, 2]], [[0, 1], [0, 2], [4, PAD], [3, 2]])  # the third frame is not all codes


def test_every_mean_is_over_what_it_names():
    found = sums(TEXT, SPEECH, (True, True, True, False), torch.tensor(2.5))
    assert {name: found.mean(name).item() for name in found.names} == pytest.approx(
        {
            "text_loss": 0.5,
            "speech_loss": 0.5,
            "experts_loss": 2.5,
            "text_accuracy": 1 / 3,
            "bos_accuracy": 1.0,
            "eos_accuracy": 0.0,
            "speech_accuracy": 4 / 6,
            "codebook_0_accuracy": 2 / 3,
            "codebook_1_accuracy": 2 / 3,
            "padding_ratio": 1 / 4,
        }
    )


def test_codebooks_are_told_apart():
    found = sums(TEXT, ([[0, 1], [1, 2], [2, 3]], [[0, 4], [1, 4], [2, 3]]))
    assert found.mean("codebook_0_accuracy") == 1 and found.mean("codebook_1_accuracy") == pytest.approx(1 / 3)


def test_a_frame_counts_the_same_in_every_batch():
    """The mean of means would give a batch of one frame the weight of the long one."""
    long, short = sums(TEXT, SPEECH), sums(([1, 1, 3], [0, 3, 3]), ([[0, 0]], [[0, 0]]))
    both, turned = long + short, short + long
    joined = sums((TEXT[0] + [1, 1, 3], TEXT[1] + [0, 3, 3]), (SPEECH[0] + [[0, 0]], SPEECH[1] + [[0, 0]]))
    for name in ("text_accuracy", "speech_accuracy", "codebook_0_accuracy", "bos_accuracy"):
        assert both.mean(name) == turned.mean(name) == joined.mean(name)
    assert both.mean("text_accuracy") == pytest.approx(2 / 5)


def test_what_was_not_counted_is_not_logged():
    found = sums(([0, 3], [0, 4]), ([[PAD, PAD]], [[PAD, PAD]]))
    assert math.isnan(found.mean("bos_accuracy"))
    logged = found.logged(LossWeights())
    assert not any(math.isnan(value) for value in logged.values())
    assert set(logged) == {"text_loss", "speech_loss", "loss", "text_accuracy", "padding_ratio"}
    assert logged["loss"] == pytest.approx(3 * 0.5 + 0.5)


def test_a_channel_without_weight_adds_nothing_to_the_logged_loss():
    found = sums(TEXT, SPEECH)
    text, speech = found.names.index("text_loss"), found.names.index("speech_loss")
    found.sums[text] = found.counts[text] = 0.0
    logged = found.logged(LossWeights())
    assert "text_loss" not in logged and logged["loss"] == logged["speech_loss"] == pytest.approx(0.5)
    found.sums[speech] = found.counts[speech] = 0.0
    assert not {"text_loss", "speech_loss", "loss"} & found.logged(LossWeights()).keys()


def test_a_loss_that_is_nan_is_seen():
    broken = StepSums.of(
        loss([0], [0], total=float("nan")),
        loss([[0, 0]], [[0, 0]]),
        AgentTargets(*(torch.zeros(1, 1).long(),) * 2, torch.zeros(1, 1).bool(), torch.ones(1, 1).bool()),
        LAYOUT,
    )
    logged = broken.logged(LossWeights())
    assert math.isnan(logged["text_loss"]) and math.isnan(logged["loss"]) and logged["speech_loss"] == 0.5


def test_sums_of_different_things_do_not_add():
    one = sums(TEXT, SPEECH)
    with pytest.raises(AssertionError, match="different things"):
        one + StepSums(one.names[1:], one.sums[1:], one.counts[1:])


def test_sums_keep_their_ranks_and_can_be_taken_away_again():
    one = sums(TEXT, SPEECH)
    both = StepSums(one.names, one.sums * 2, one.counts * 2, 2)
    assert both.cpu().ranks == both.to("cpu").ranks == (both + one).ranks == (both - one).ranks == 2
    left = both - one
    assert torch.equal(left.sums, one.sums) and torch.equal(left.counts, one.counts)


def test_the_logged_loss_is_the_weighted_sum():
    found = sums(TEXT, SPEECH)
    found.sums[found.names.index("text_loss")] = 8.0  # a mean of 2 beside 0.5
    assert found.logged(LossWeights(text=5.0, speech=7.0))["loss"] == pytest.approx(5 * 2 + 7 * 0.5)


def test_the_loss_of_the_experts_is_a_mean_over_batches_with_frames_and_part_of_the_sum():
    one, padding = sums(TEXT, SPEECH, experts=torch.tensor(2.0)), sums(TEXT, SPEECH, [False] * 4, torch.tensor(0.0))
    both = one + padding + sums(TEXT, SPEECH, experts=torch.tensor(5.0))
    assert both.count("experts_loss") == 2 and both.mean("experts_loss") == 3.5
    logged = both.logged(LossWeights(experts=0.1))
    assert logged["experts_loss"] == 3.5 and logged["loss"] == pytest.approx(3 * 0.5 + 0.5 + 0.1 * 3.5)
    assert "experts_loss" not in sums(TEXT, SPEECH).logged(LossWeights(experts=0.0))


def test_what_frames_weigh_in_the_loss():
    found = sums(TEXT, SPEECH, experts=torch.tensor(2.5))
    weights = LossWeights(text=3.0, speech=0.5, experts=0.25)
    assert found.weight(weights) == 3.0 * 4 + 0.5 * 4 + 0.25 * 1
    assert sums(TEXT, SPEECH).weight(weights) == 14 and found.weight(LossWeights(text=0.0, speech=1.0)) == 4
