"""Voices that differ: band-limited noise with the rhythm of syllables, so that no two stretches correlate."""

import numpy as np


def voice(spans, duration, rate, seed, level=0.1):
    """(S,) float32: speech in the spans, silence elsewhere."""
    rng, channel = np.random.default_rng(seed), np.zeros(round(duration * rate), np.float32)
    for start, end in spans:
        first, last = round(start * rate), round(end * rate)
        t = np.arange(last - first) / rate
        rough = np.convolve(rng.standard_normal(last - first), np.ones(rate // 2000), "same")  # mostly below 2 kHz
        channel[first:last] = level * rough / rough.std() * (0.35 + 0.65 * np.abs(np.sin(2 * np.pi * 2 * t)))
    return np.clip(channel, -0.9, 0.9)


def later(samples, seconds, rate, db=0.0):
    """The same sound, so much later and so much louder."""
    return 10 ** (db / 20) * np.concatenate([np.zeros(round(seconds * rate), np.float32), samples])[: len(samples)]
