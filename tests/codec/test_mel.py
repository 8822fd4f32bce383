"""Mel spectra: a tone is where it belongs, as loud as it is."""

from __future__ import annotations

import math

import pytest
import torch

from nemo_duplex.codec.mel import FLOOR, log_mel, mel_filters, spectra


@pytest.mark.parametrize("window, bins", [(128, 20), (1008, 80), (2048, 160)])
def test_filters_weigh_to_one_and_none_is_empty(window, bins):
    filters = mel_filters(22050, window, bins)
    assert filters.shape == (bins, window // 2 + 1)
    torch.testing.assert_close(filters.sum(1), torch.ones(bins))
    assert (filters >= 0).all() and (filters > 0).any(1).all()


def test_filters_are_triangles_evenly_spaced_in_mel():
    """Of one third of the band in mel each: the peaks lie at 1/4, 2/4 and 3/4 of it, the feet at the neighbours' peaks."""
    top = 2595 * math.log10(1 + 11025 / 700)
    edges = [700 * (10 ** (top * i / 4 / 2595) - 1) * 4096 / 22050 for i in range(5)]  # in bins of the spectrum
    for i, filters in enumerate(mel_filters(22050, 4096, 3)):
        low, peak, high = edges[i : i + 3]
        assert abs(int(filters.argmax()) - peak) <= 0.5
        inside = filters.nonzero().flatten()
        assert low < inside[0] <= low + 1 and high - 1 <= inside[-1] < high


def test_a_tone_peaks_in_its_bin_with_half_its_amplitude():
    time = torch.arange(22050) / 22050
    tone = 0.8 * torch.sin(2 * math.pi * 441 * time)[None]  # 441 Hz: bin 40 of a 2000-sample window
    spectrum = spectra(tone, torch.hann_window(2000), 500)[0, :, 20].abs()
    assert spectrum.argmax() == 40 and spectrum[40] == pytest.approx(0.4, abs=1e-3)
    mel = log_mel(tone, torch.hann_window(1024), 256, mel_filters(22050, 1024, 80))[0, :, 40]
    top = 2595 * math.log10(1 + 11025 / 700)
    assert abs(int(mel.argmax()) - (2595 * math.log10(1 + 441 / 700) / top * 81 - 1)) <= 1


def test_silence_is_the_floor():
    mel = log_mel(torch.zeros(1, 4000), torch.hann_window(1024), 256, mel_filters(22050, 1024, 80))
    assert mel.unique().tolist() == [pytest.approx(math.log(FLOOR))]
