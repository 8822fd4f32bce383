"""Version 1's formulas, at their edges."""

import math

import pytest

from nemo_duplex.evaluation.full_duplex_bench.takeover import backchannels, takeover_latency, takes_over
from nemo_duplex.evaluation.full_duplex_bench.transcript import TimedWord


def said(*times):
    return [TimedWord("word", start, end) for start, end in times]


@pytest.mark.parametrize(
    ("words", "takeover"),
    [
        ([], False),
        (said((0.5, 1.49)), False),
        (said((0.5, 1.5)), True),  # one word, but a whole second
        (said((0, 0.1), (0.2, 0.3), (0.4, 0.5)), False),
        (said((0, 0.1), (0.2, 0.3), (0.4, 0.5), (0.6, 0.7)), True),  # four words
        (said((0.5, 0.7), (1.4, None)), False),  # an end that is not known: 0.9 s to its start
        (said((0.5, 0.7), (1.5, None)), True),
    ],
)
def test_a_takeover_lasts_a_second_or_has_four_words(words, takeover):
    assert takes_over(words) is takeover


def test_latency_is_none_below_zero():
    assert takeover_latency(said((3.36, 3.9)), 2.01) == pytest.approx(1.35)
    assert takeover_latency(said((1.5, 3.9)), 2.0) == 0


def test_short_spans_are_backchannels_until_the_first_long_one():
    speech = [(1.0, 1.4), (5.0, 5.9), (8.0, 11.1), (12.0, 12.3)]
    found = backchannels(speech, said((1.0, 1.3)), 20.0, None)
    assert found == (True, 2 / 20, None)
    assert backchannels(speech[:2], said((1.0, 1.3)), 20.0, None) == (False, 2 / 20, None)
    assert backchannels([(0.0, 3.0)], [], 10.0, None) == (True, 0.1, None), "3 s are no turn by length, but longer than 1 s"


@pytest.mark.parametrize(
    ("span", "words", "takeover"),
    [
        ((1.0, 1.9), said((1.0, 1.2), (1.2, 1.4)), False),
        ((1.0, 1.9), said((1.0, 1.2), (1.2, 1.4), (1.5, 1.8)), True),
        ((1.0, 2.0), [], True),
        ((1.0, 1.9), said((0.2, 0.9), (0.9, 1.1), (1.8, 2.5), (1.9, 2.4)), True),  # two across its edges, one that touches it
        ((1.0, 1.9), said((0.5, 1.0), (1.2, 1.3), (1.91, 2.0)), False),  # one ends where it begins, one is after it
        ((1.0, 1.9), said((1.1, None), (1.2, None), (1.3, None)), False),  # without an end, before that of the span
    ],
)
def test_words_of_a_span(span, words, takeover):
    assert backchannels([span], words, 10.0, None).takeover is takeover


def test_the_last_span_decides():
    assert not backchannels([(1.0, 2.5), (4.0, 4.5)], [], 10.0, None).takeover
    assert backchannels([(1.0, 1.5), (4.0, 5.5)], [], 10.0, None).takeover


def test_divergence_from_people():
    assert backchannels([], [], 1.0, [1, 1]).divergence == 1.0
    # bins of 0.2 s of 0.9 s: 5; a span of 0.2 to 0.4 s covers bins 1 and 2
    same = backchannels([(0.2, 0.4)], [], 0.9, [0, 0.5, 0.5, 0, 0]).divergence
    assert same == pytest.approx(0, abs=1e-4)
    apart = backchannels([(0.2, 0.4)], [], 0.9, [0.5, 0, 0, 0, 0.5]).divergence
    assert apart == pytest.approx(math.sqrt(math.log(2)), abs=1e-4)
    # two bins of people are stretched to five: 1, .75, .5, .25, 0
    stretched = backchannels([(0.2, 0.4)], [], 0.9, [1, 0]).divergence
    p, q = [0, 0.5, 0.5, 0, 0], [0.4, 0.3, 0.2, 0.1, 0]
    middle = [(a + b) / 2 for a, b in zip(p, q)]
    kl = [sum(a * math.log(a / m) for a, m in zip(side, middle) if a) for side in (p, q)]
    assert stretched == pytest.approx(math.sqrt(sum(kl) / 2), abs=1e-4)
