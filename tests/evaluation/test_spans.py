"""Milliseconds, and spans as turns."""

from nemo_duplex.evaluation.spans import in_seconds, normalise, to_ms, without


def test_sums_of_floats_are_the_milliseconds_that_were_meant():
    assert [to_ms(0.1 + 0.2), to_ms(0.57), to_ms(1.005), to_ms(-0.0004), to_ms(7)] == [300, 570, 1005, 0, 7000]


def test_spans_are_clipped_sorted_merged_and_counted_if_short():
    given = [(4.0, 9.0), (-1.0, 2.0), (0.5, 1.0), (2.5, 3.0), (3.501, 3.6), (6.0, 7.0)]
    assert normalise(given, 5000) == ([(0, 2000), (2500, 3000), (3501, 3600), (4000, 5000)], 0)
    assert normalise(given, 5000, merge_gap=500, min_duration=100) == ([(0, 3000), (3501, 5000)], 0)
    assert normalise(given, 5000, merge_gap=501) == ([(0, 5000)], 0)
    assert normalise(given, 5000, min_duration=501) == ([(0, 2000), (4000, 5000)], 2)
    assert normalise([(1.0, 1.0), (5.0, 6.0)], 5000) == ([], 0), "nothing is in them"


def test_what_is_left_outside_of_holes():
    spans = [(0, 100), (200, 300), (400, 500)]
    assert without(spans, [(20, 40), (60, 80), (250, 420)]) == [(0, 20), (40, 60), (80, 100), (200, 250), (420, 500)]
    assert without(spans, [(0, 100), (200, 201), (499, 600)]) == [(201, 300), (400, 499)]
    assert without(spans, []) == spans and without(spans, [(100, 200)]) == spans
    assert in_seconds(without([(0, 100)], [(0, 50)])) == ((0.05, 0.1),)
