"""What a discriminator sees of audio, and how wide its layers are."""

import pytest
import torch
from torch import nn

from nemo_duplex.codec.discriminators import PeriodDiscriminator, StftDiscriminator, _convolved


def test_each_band_has_a_network_that_sees_nothing_of_the_others():
    """Sines in the middle of a band move the layers of that band; half the sample rate is 4096 Hz."""
    torch.manual_seed(0)
    discriminator = StftDiscriminator(512, 4)
    seen = []
    for layers in discriminator.bands:
        layers[0].register_forward_hook(lambda layer, given, made: seen.append(given[0].norm().item()))
    widths = []
    for middle in (0.05, 0.175, 0.375, 0.75):
        discriminator(torch.sin(2 * torch.pi * 4096 * middle * torch.arange(8192) / 8192)[None])
    for row, found in enumerate(seen[i : i + 4] for i in range(0, 16, 4)):
        assert found.index(max(found)) == row and sum(found) < 1.3 * found[row]
    discriminator.bands[0][0].register_forward_hook(lambda layer, given, made: widths.append(given[0].shape[-1]))
    discriminator.bands[3][0].register_forward_hook(lambda layer, given, made: widths.append(given[0].shape[-1]))
    discriminator(torch.zeros(1, 1024))
    assert widths == [25, 129], "Of 257 bins: a tenth, and the upper half."


def test_quiet_and_loud_audio_differ_less_than_by_their_levels():
    """A square root: 1/100 of the level is 1/10 for the first layer."""
    discriminator = StftDiscriminator(256, 4)
    seen = []
    discriminator.bands[1][0].register_forward_hook(lambda layer, given, made: seen.append(given[0]))
    audio = torch.randn(1, 4096)
    discriminator(audio), discriminator(0.01 * audio)
    assert (seen[1].norm() / seen[0].norm()).item() == pytest.approx(0.1, rel=0.02)
    assert torch.nn.functional.cosine_similarity(seen[0].flatten(), seen[1].flatten(), dim=0) > 0.999


def test_a_window_s_hop_is_a_quarter_and_its_scores_are_of_all_bands():
    scores, features = StftDiscriminator(256, 3)(torch.randn(2, 1024))
    assert scores.shape[:2] == (2, 1) and len(features) == 20
    assert all(output.shape[2] == 1 + 1024 // 64 for output in features)
    assert [output.shape[1] for output in features[:5]] == [3, 6, 6, 6, 1]
    assert scores.shape[2] == sum(output[0].numel() for output in features[4::5])


@pytest.mark.parametrize("period", [2, 5])
def test_a_period_s_columns_do_not_mix(period):
    """A sample moves only scores of its own column: the samples at its distance."""
    torch.manual_seed(0)
    discriminator = PeriodDiscriminator(period, 4)
    audio = torch.randn(1, 2000)
    changed = audio.clone()
    changed[0, 1003] += 1
    (_, before), (_, after) = discriminator(audio), discriminator(changed)
    moved = (before[0] - after[0]).abs().sum(dim=(0, 1, 2)) > 0
    assert moved.nonzero()[:, 0].tolist() == [1003 % period]
    assert [output.shape[1] for output in before] == [4, 8, 16, 32, 32, 1]


def test_the_last_samples_count_and_scores_may_be_negative():
    """Of 2001 samples the last one stands alone in its row; scores are those of the last layer, which is not activated."""
    torch.manual_seed(0)
    discriminator, audio = PeriodDiscriminator(2, 4), torch.randn(1, 2001)
    changed = audio.clone()
    changed[0, 2000] += 1
    before, after = discriminator(audio)[0], discriminator(changed)[0]
    assert not before.equal(after)
    made = []
    torch.nn.init.constant_(discriminator.layers[-1].bias, -1.0)
    discriminator.layers[-1].register_forward_hook(lambda layer, given, output: made.append(output))
    assert discriminator(audio)[0].flatten().equal(made[0].flatten()) and made[0].min() < 0
    assert all(hasattr(layer, "parametrizations") for layer in discriminator.layers), "Their weights are normalised."


def _used_memory() -> None:
    """Leaves numbers that are none in the memory that is allocated next."""
    rubbish = [torch.full((size,), float("nan")) for size in (3_000_000, 1_000_000, 200_000, 50_000, 5000)]
    del rubbish


def test_narrow_bands_are_judged_in_16_bits_as_in_32():
    """Two columns are left of the lowest band of a short window, and the next layer strides over them."""
    torch.manual_seed(0)
    discriminator, audio = StftDiscriminator(256, 16), 0.1 * torch.randn(4, 21168)
    parameters = list(discriminator.parameters())
    expected, _ = discriminator(audio)
    for _ in range(4):
        _used_memory()
        with torch.autocast("cpu", torch.bfloat16):
            scores, _ = discriminator(audio)
        torch.testing.assert_close(scores.float(), expected, atol=0.05, rtol=0.05)
        _used_memory()
        assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(scores.float().square().mean(), parameters))


@pytest.mark.parametrize("columns", [1, 2, 3, 4, 5])
def test_a_band_narrower_than_a_stride_is_convolved_as_any_other(columns):
    torch.manual_seed(0)
    layer, x = nn.Conv2d(2, 3, (3, 9), (2, 3), (1, 4)), torch.randn(2, 2, 7, columns)
    torch.testing.assert_close(_convolved(layer, x), layer(x))
