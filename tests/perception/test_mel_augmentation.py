"""Log-mels of other throats, and with hidden bands and stretches."""

import torch
from nemo.collections.asr.modules import AudioToMelSpectrogramPreprocessor

from nemo_duplex.perception.front_end import history, log_mel
from nemo_duplex.perception.mel_augmentation import masked, warped

FEATURIZER = AudioToMelSpectrogramPreprocessor(features=64, n_fft=512, normalize="NA").featurizer


def mel_of(pitches):
    """(len(pitches), 64, 50) log-mels of pure tones."""
    seconds = torch.arange(160 * 50 + history(FEATURIZER)) / 16000
    return log_mel(FEATURIZER, torch.stack([0.3 * torch.sin(2 * torch.pi * pitch * seconds) for pitch in pitches]))


def test_masks_hide_a_part_of_every_row():
    mel = torch.randn(50, 64, 300)
    hidden = (masked(mel, 2, 8, 1, 10) != mel).float()
    assert 0.02 < hidden.mean() < 0.2 and not torch.equal(hidden[0], hidden[1])
    bands = hidden.mean(2).eq(1).sum(1)  # hidden from one end to the other
    assert bands.max() <= 16 and bands.float().mean() > 2
    stretches = hidden.mean(1).eq(1).sum(1)
    assert 0 < stretches.max() <= 10
    assert torch.equal(masked(mel, 0, 8, 0, 10), mel)


def test_a_warp_moves_formants_within_its_limit():
    mel = mel_of([1000.0] * 200)
    peaks = warped(mel, FEATURIZER.fb, 0.2).mean(2).argmax(1)
    lowest, highest = mel_of([1000 / 1.25, 1000 / 0.8]).mean(2).argmax(1).tolist()
    assert lowest <= peaks.min() < mel[0].mean(1).argmax() < peaks.max() <= highest
    assert len(peaks.unique()) > 4
    assert torch.equal(warped(mel, FEATURIZER.fb, 0.0), mel)


def test_a_small_warp_changes_little():
    mel = mel_of([300.0, 2000.0])
    torch.testing.assert_close(warped(mel, FEATURIZER.fb, 1e-5), mel, atol=1e-2, rtol=1e-2)
