"""The pull of discriminators on a codec: its size, its direction, and what it leaves alone."""

import pytest
import torch

from nemo_duplex.codec.adversarial import AdversarialConfig, Adversary
from nemo_duplex.inputs import InputError
from nemo_duplex.scripts.config import load
from tests.dummies import speech_like

TINY = dict(
    start=0.5,
    generator_weight=0.5,
    feature_weight=2.0,
    windows=[256, 128],
    periods=[2, 3],
    channels=4,
    drawn=None,
    update_every=1,
    rate=1e-3,
    warmup_steps=0,
    wavlm=None,
)


def adversary(**changes) -> Adversary:
    torch.manual_seed(0)
    return Adversary(AdversarialConfig(**TINY | changes), 16000, bf16=False)


REAL = torch.stack([speech_like(0.2, seed) for seed in (1, 2)])
DECODED = torch.nn.functional.avg_pool1d(REAL, 5, stride=1, padding=2)  # muffled


def pull(opponent: Adversary, norm: float = 1.0, optimizer=None) -> torch.Tensor:
    return opponent.pull(REAL, DECODED, torch.tensor(norm), optimizer or opponent.optimizer())


@pytest.mark.parametrize("name, weight", [("generator_weight", 0.5), ("feature_weight", 2.0)])
def test_each_loss_pulls_by_its_weight_times_the_gradient_of_reconstruction(name, weight):
    others = {"generator_weight": 0.0, "feature_weight": 0.0} | {name: weight}
    for norm in (1.0, 30.0):
        assert pull(adversary(**others), norm).norm().item() == pytest.approx(weight * norm, rel=1e-4)


def test_both_pull_together():
    parts = [adversary(generator_weight=a, feature_weight=b) for a, b in ((0.5, 0.0), (0.0, 2.0), (0.5, 2.0))]
    generator, features, both = map(pull, parts)
    torch.testing.assert_close(generator + features, both)


def test_what_pulls_grows_over_the_first_steps():
    opponent = adversary(warmup_steps=4, feature_weight=0.0, generator_weight=1.0)
    assert [round(pull(opponent).norm().item(), 4) for _ in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert int(opponent.steps) == 6


def test_against_its_direction_the_audio_is_taken_for_real():
    opponent = adversary(feature_weight=0.0, generator_weight=1.0)
    optimizer = opponent.optimizer()
    for group in optimizer.param_groups:
        group["lr"] = 3e-3
    for _ in range(40):
        pull(opponent, optimizer=optimizer)
    audio, scores = DECODED, []
    for _ in range(10):
        audio = audio - opponent.pull(REAL, audio, torch.tensor(1.0), optimizer=_resting())
        with torch.no_grad():
            scores.append(torch.cat([s.flatten() for s in opponent._judge(REAL, audio)[1]]).sub(1).square().mean().item())
    assert scores[-1] < 0.8 * scores[0]


def test_features_of_equal_audio_are_equal_and_pull_nothing():
    opponent = adversary(generator_weight=0.0)
    assert opponent.pull(REAL, REAL, torch.tensor(1.0), _resting()).norm() == 0


class _resting:
    def step(self):
        pass

    def zero_grad(self):
        pass


def test_discriminators_learn_to_tell_decoded_from_recorded_speech():
    opponent = adversary()
    optimizer = opponent.optimizer()
    for group in optimizer.param_groups:
        group["lr"] = 3e-3
    for _ in range(40):
        pull(opponent, optimizer=optimizer)
    real, decoded, *_ = opponent._judge(REAL, DECODED)
    means = [torch.cat([s.flatten() for s in scores]).mean().item() for scores in (real, decoded)]
    assert means[0] > means[1] + 0.1 and 0.25 < float(opponent.loss) < 0.5
    assert all(p.grad is None for p in opponent.parameters()), "The codec's gradients are clipped together with none of these."


def test_their_loss_wants_recorded_speech_at_1_and_decoded_at_0_and_leaves_no_gradients():
    """Of discriminators whose weights stand still: half the squares of both, averaged over some 50 steps."""
    opponent = adversary()
    real, decoded, *_ = opponent._judge(REAL, DECODED)
    of_each = [((1 - a) ** 2).mean() / 2 + (b**2).mean() / 2 for a, b in zip(real, decoded)]
    expected, loss = 0.25, torch.stack(of_each).mean().item()
    given = []

    class Standing(torch.optim.SGD):
        def step(self):
            given.append([p.grad.clone() for p in opponent.parameters()])

    for _ in range(3):
        pull(opponent, optimizer=Standing(opponent.parameters(), lr=1.0))
        expected += 0.02 * (loss - expected)
    assert float(opponent.loss) == pytest.approx(expected, rel=1e-5)
    assert all(p.grad is None for p in opponent.parameters())
    wanted = torch.autograd.grad(torch.stack(of_each).mean(), list(opponent.parameters()))
    for found, right in zip(given[0], wanted):
        torch.testing.assert_close(found, right, atol=1e-6, rtol=1e-3)


def test_every_so_many_steps_they_learn():
    opponent = adversary(update_every=3)
    learnt = []

    class Counted(_resting):
        def step(self):
            learnt.append(int(opponent.steps))

    for _ in range(7):
        pull(opponent, optimizer=Counted())
    assert learnt == [0, 3, 6]


def test_of_each_kind_so_many_are_drawn_and_only_they_learn():
    opponent = adversary(drawn=1)
    with_gradient = []

    class Seen(_resting):
        def step(self):
            for kind in (opponent.by_window, opponent.by_period):
                with_gradient.append([all(p.grad is not None for p in network.parameters()) for network in kind])

    for _ in range(12):
        pull(opponent, optimizer=Seen())
    assert all(sum(row) == 1 for row in with_gradient) and len(with_gradient) == 24
    assert {tuple(row) for row in with_gradient} == {(True, False), (False, True)}
    assert all(len(part) == 4 for part in adversary()._judge(REAL, DECODED)), "Without a number, all of them."


def test_scores_are_of_their_own_halves_and_recorded_features_get_no_gradient():
    opponent = adversary()
    decoded = DECODED.clone().requires_grad_()
    of_real, of_decoded, features_real, features_decoded = opponent._judge(REAL, decoded)
    alone = [network(REAL)[0] for kind in (opponent.by_window, opponent.by_period) for network in kind]
    found = sorted(scores.sum().item() for scores in of_real)
    assert found == pytest.approx(sorted(scores.sum().item() for scores in alone), rel=1e-4)
    assert not any(output.requires_grad for outputs in features_real for output in outputs)
    assert all(output.requires_grad for outputs in features_decoded for output in outputs)
    assert all(scores.shape[0] == 2 for scores in of_real + of_decoded)


def test_products_in_bfloat16_give_nearly_the_same_pull():
    torch.manual_seed(0)
    half = Adversary(AdversarialConfig(**TINY), 16000, bf16=True)
    same = torch.nn.functional.cosine_similarity(pull(half).flatten(), pull(adversary()).flatten(), dim=0)
    assert 0.8 < same < 0.999999


@pytest.mark.parametrize(
    "changes, words",
    [
        (dict(start=1.0), "adversarial.start=1.0: expected a share of the training from 0 to below 1"),
        (dict(rate=0.0), "adversarial.rate=0.0: expected more than zero"),
        (dict(drawn=0), "adversarial.drawn=0: expected more than zero"),
        (dict(feature_weight=-1.0), "adversarial.feature_weight=-1.0: expected 0 or more"),
        (dict(windows=[1024, 30]), "adversarial.windows: 30 is no window"),
        (dict(periods=[1]), "adversarial.periods: 1 is no period"),
        (dict(windows=[], periods=[]), "neither windows nor periods nor wavlm are given"),
    ],
)
def test_settings_that_cannot_be(changes, words):
    with pytest.raises(InputError, match=words):
        AdversarialConfig(**TINY | changes)


def test_the_configuration_has_every_key():
    assert set(load("train_codec", ["data=d", "out=o"]).adversarial) == set(TINY)
    assert load("train_codec", ["data=d", "out=o", "adversarial=null"]).adversarial is None
