"""Intervals against published values, and against distributions that can be worked out by hand."""

import pytest

from nemo_duplex.evaluation.confidence import (
    Estimate,
    cluster_bootstrap,
    compared,
    estimate_each,
    estimate_quantile,
    estimate_ratio,
    paired_difference,
    ratio_of_sums,
    told_apart,
    trials_to_tell,
    wilson,
)

#: 50 of 100 conversations of one event each: the number drawn is binomial, and its 2.5 and 97.5 percentiles are 40 and 60
#: (those of 5 and 95 % would be 42 and 58).
HALF = [(1, 1), (0, 1)] * 50
#: 40 conversations that differ in length and in success, so that every draw gives another ratio.
UNEVEN = [(i * 37 % 11 / 10, 1 + i % 5) for i in range(40)]


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (20, 20, 0.8389, 1.0),
    ],
)
def test_wilson_against_published_values(successes, trials, low, high):
    """Newcombe 1998, table I; the last one mirrors the third."""
    assert wilson(successes, trials) == pytest.approx((low, high), abs=5e-5)


def test_wilson_of_nothing_and_of_a_wider_confidence():
    assert wilson(0, 0) is None
    assert wilson(5, 10, z=1.0) == pytest.approx((0.5 - 0.5 / 11**0.5, 0.5 + 0.5 / 11**0.5))  # 1/2 +- z/2 / sqrt(n + z^2)
    assert (wilson(0, 5)[0], wilson(5, 5)[1]) == (0.0, 1.0)


@pytest.mark.parametrize("seed", range(5))
def test_the_bootstrap_of_one_event_each_is_binomial(seed):
    assert cluster_bootstrap(HALF, seed=seed) == (0.4, 0.6)


def test_events_of_one_conversation_are_drawn_together():
    """The same hundred events in four conversations of 25: one draw in 16 has none of the successes, and one has all."""
    assert cluster_bootstrap([(25, 25), (0, 25)] * 2) == (0.0, 1.0)


def test_the_bootstrap_follows_its_seed_and_number():
    first, second = (cluster_bootstrap(UNEVEN, seed=seed) for seed in (0, 1))
    assert first != second and first == pytest.approx(second, abs=0.02)
    low, high = cluster_bootstrap(UNEVEN, resamples=1)
    assert low == high


def test_draws_in_which_nothing_is_counted_are_left_out():
    assert cluster_bootstrap([(1, 1), (2, 2), *[(0, 0)] * 6]) == (1.0, 1.0)
    assert cluster_bootstrap([(3, 4), (0, 0)]) is None, "one conversation shows no spread"


def test_an_estimate_says_what_it_rests_on():
    share = estimate_ratio([(1, 4), (2, 6)], proportion=True)
    assert (share.value, share.n) == (0.3, 10)
    assert share.ci95 == wilson(3, 10) and share.bootstrap95 == (0.25, pytest.approx(1 / 3, abs=1e-6))
    mean = estimate_ratio([(1, 4), (2, 6)], proportion=False)
    assert mean.ci95 == mean.bootstrap95 == share.bootstrap95
    assert estimate_ratio([(3, 4)], proportion=True) == Estimate(0.75, 4, wilson(3, 4), None)
    assert estimate_ratio(UNEVEN, proportion=False, seed=1).ci95 == cluster_bootstrap(UNEVEN, seed=1)


def test_nothing_counted_is_undefined():
    assert estimate_ratio([(0, 0), (0, 0)], proportion=True) == Estimate(None, 0, None, None)


def test_a_difference_of_pairs_is_seen_where_that_of_strangers_is_not():
    """Conversations differ much from each other, and each by little from itself."""
    first = [(10.0 * i, 10) for i in range(20)]
    second = [(10.0 * i + 1, 10) for i in range(20)]
    difference = paired_difference(first, second)
    assert difference.value == pytest.approx(0.1) and difference.ci95 == difference.bootstrap95 == pytest.approx((0.1, 0.1))
    assert paired_difference(second, first).value == pytest.approx(-0.1)
    assert paired_difference(second, first).ci95 == pytest.approx((-0.1, -0.1))
    assert paired_difference(first, first).ci95 == (0.0, 0.0)
    low, high = paired_difference(first, first[::-1]).ci95
    assert low < -1 and high > 1


def test_the_interval_of_a_difference_is_binomial_too():
    """Half of the conversations succeed the second time only."""
    never = [(0, 1)] * 100
    assert paired_difference(never, HALF).ci95 == (0.4, 0.6)
    assert paired_difference(HALF, never).ci95 == (-0.6, -0.4)


def test_a_difference_follows_its_seed_and_counts_the_smaller_side():
    second = [(a + 0.1 * (i % 7), b) for i, (a, b) in enumerate(UNEVEN)]
    assert paired_difference(UNEVEN, second, seed=0).ci95 != paired_difference(UNEVEN, second, seed=1).ci95
    assert paired_difference([(1, 4), (1, 4)], [(1, 3), (1, 2)]).n == 5


def test_a_difference_needs_something_on_both_sides_of_a_draw():
    nothing = [(0, 0)] * 6
    assert paired_difference([(1, 2), *nothing], [(2, 2), *nothing]).ci95 == (0.5, 0.5)
    assert paired_difference([(0, 0)], [(1, 1)]) == Estimate(None, 0, None)
    with pytest.raises(AssertionError, match="no pairs"):
        paired_difference([(0, 1)], [])


def test_a_quantile_is_of_all_values_together():
    values = [[1.0, 2.0, 3.0], [], [4.0], [5.0, 6.0, 7.0, 8.0, 9.0, 10.0]]
    assert [estimate_quantile(values, q).value for q in (0.5, 0.9, 0.91)] == [5.5, 9.0, 10.0]
    assert estimate_quantile(values, 0.5).n == 10
    assert estimate_quantile([[], []], 0.5) == Estimate(None, 0, None)
    assert estimate_quantile([[1.0, 2.0]], 0.5).ci95 is None, "one conversation shows no spread"
    between = estimate_quantile([[1.0, 4.0], [2.0, 3.0]], 0.5)
    assert between.value == 2.5 and between.ci95 == (2.5, 2.5), "the medians of draws are means of two values too"


def test_the_interval_of_a_quantile_is_over_conversations():
    """Two kinds of conversations: of 400 values, the median is that of whichever kind is drawn more often."""
    low, high = estimate_quantile([[1.0] * 100, [9.0] * 100, [1.0] * 100, [9.0] * 101], 0.5).ci95
    assert (low, high) == (1.0, 9.0)
    close = estimate_quantile([[float(i % 10)] for i in range(1000)], 0.5)
    assert close.value == 4.5 and close.ci95[0] >= 3.0 and close.ci95[1] <= 5.0


def share(successes, trials):
    return estimate_ratio([(successes, trials)], proportion=True)


def test_a_share_is_told_apart_where_its_interval_does_not_hold_the_other():
    """Wilson's interval of 36 of 37 is 0.862 to 0.995."""
    assert [told_apart(share(36, 37), p) for p in (0.85, 0.87, 0.93, 0.99, 0.996)] == [True, False, False, False, True]
    assert told_apart(share(0, 20), 0.0) is False and told_apart(share(0, 20), 0.17) is True
    assert told_apart(share(0, 0), 0.5) is None and told_apart(share(3, 4), None) is None


@pytest.mark.parametrize(("proportion", "baseline"), [(0.75, 0.5), (1.0, 0.93), (0.5, 0.9), (0.5, 0.48), (0.0, 0.25)])
def test_so_many_trials_as_are_said_tell_and_fewer_do_not(proportion, baseline):
    """Among the numbers of trials in which the share is a whole number of successes."""
    needed = trials_to_tell(proportion, baseline)
    whole = [n for n in range(1, 4 * needed) if n * proportion == int(n * proportion)]
    assert [told_apart(share(int(n * proportion), n), baseline) for n in whole] == [n >= needed for n in whole]


def test_how_many_trials_it_takes_at_the_edges():
    assert trials_to_tell(0.5, 0.5) is None
    assert trials_to_tell(0.9, 1.0) == 1, "one failure shows that it is not always"


def test_the_comparison_in_words():
    deaf = "an agent that never listens"
    assert compared(share(99, 100), 0.55, deaf) == f"above the 55.0 % of {deaf}: 99 of 100"
    assert compared(share(50, 100), 0.935, deaf) == f"below the 93.5 % of {deaf}: 50 of 100"
    assert compared(share(3, 4), 0.75, deaf) == f"n too small to tell: 3 of 4 may be the 75.0 % of {deaf}"
    assert compared(share(3, 4), 0.5, deaf) == f"n too small to tell: 3 of 4 may be the 50.0 % of {deaf}; it takes about 16"
    assert compared(share(0, 0), 0.5, deaf) == compared(share(3, 4), None, deaf) == "nothing to compare"


def test_every_ratio_of_a_table_is_estimated():
    ratios = {"rate": lambda m: (m, 10), "length": lambda m: (m, 1)}
    found = estimate_each(ratios, {"rate"}, [2, 4], seed=3)
    assert found == {
        "rate": estimate_ratio([(2, 10), (4, 10)], proportion=True, seed=3),
        "length": estimate_ratio([(2, 1), (4, 1)], proportion=False, seed=3),
    }
    assert (ratio_of_sums([(2, 10), (4, 10)]), ratio_of_sums([(1, 0)]), ratio_of_sums([])) == (0.3, None, None)


def test_the_order_of_conversations_changes_no_interval():
    """Not even in the last digit: two processes hand theirs over in any order."""
    values = [[part / 7 for part in range(i % 4)] for i in range(40)]
    other = list(reversed(UNEVEN))
    orders = [list(range(40)), list(range(39, -1, -1)), sorted(range(40), key=lambda i: i * 17 % 40)]
    ratios = [estimate_ratio([UNEVEN[i] for i in order], False, seed=2) for order in orders]
    differences = [paired_difference([UNEVEN[i] for i in order], [other[i] for i in order]) for order in orders]
    quantiles = [estimate_quantile([values[i] for i in order], 0.9) for order in orders]
    for found in (ratios, differences, quantiles):
        assert found[0] == found[1] == found[2] and found[0].ci95[0] < found[0].ci95[1]
    assert ratio_of_sums([(0.1, 1), (0.2, 1), (0.3, 1)]) == ratio_of_sums([(0.3, 1), (0.2, 1), (0.1, 1)])
