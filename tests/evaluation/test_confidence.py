import pytest

from nemo_duplex.evaluation.confidence import cluster_bootstrap, estimate_ratio, paired_difference, wilson


def test_wilson_against_published_values():
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe 1998, table I
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson(20, 20) == pytest.approx((0.8389, 1.0), abs=1e-4)
    assert wilson(0, 0) is None


def test_bootstrap_is_seeded_and_widens_with_clusters():
    spread = [(1, 1), (0, 1)] * 50  # a hundred conversations of one event
    clustered = [(25, 25), (0, 25)] * 2  # the same hundred events in four conversations
    assert cluster_bootstrap(spread, seed=1) == cluster_bootstrap(spread, seed=1)
    low, high = cluster_bootstrap(spread)
    assert 0.38 < low < 0.42 and 0.58 < high < 0.62  # 0.5 +- 1.96 * sqrt(.25 / 100)
    wide = cluster_bootstrap(clustered)
    assert wide[1] - wide[0] > 3 * (high - low)


def test_one_conversation_shows_no_spread():
    assert cluster_bootstrap([(3, 4), (0, 0)]) is None
    assert estimate_ratio([(3, 4)], proportion=True).ci95 == wilson(3, 4)


def test_nothing_counted_is_undefined():
    estimate = estimate_ratio([(0, 0), (0, 0)], proportion=True)
    assert (estimate.value, estimate.n, estimate.ci95) == (None, 0, None)


def test_a_difference_of_pairs_is_seen_where_that_of_strangers_is_not():
    """Conversations differ much from each other, and each by little from itself."""
    first = [(10.0 * i, 10) for i in range(20)]
    second = [(10.0 * i + 1, 10) for i in range(20)]
    difference = paired_difference(first, second)
    assert difference.value == pytest.approx(0.1) and difference.ci95 == pytest.approx((0.1, 0.1))
    assert paired_difference(first, first).ci95 == (0.0, 0.0)
    low, high = paired_difference(first, first[::-1]).ci95
    assert low < -1 and high > 1


def test_a_difference_of_nothing_is_undefined():
    assert paired_difference([(0, 0)], [(1, 1)]).value is None
