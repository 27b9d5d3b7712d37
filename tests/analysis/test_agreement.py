"""The statistics behind faithfulness, on numbers that can be worked out by hand."""

import numpy as np
import pytest

from harmonifuse_core.analysis.agreement import (
    across_utterances,
    agreement,
    area,
    curve_points,
    descending,
    first_layers,
    permutation_p,
    profile_correlation,
    ranks,
    spearman_rows,
)

SPEAKERS = [f"s{i % 8}" for i in range(40)]
NOISE = np.random.default_rng(0)


def rows(profile, n=40, noise=0.01):
    return np.asarray(profile) + noise * NOISE.standard_normal((n, len(profile)))


def test_spearman_by_hand():
    a = [[1, 2, 3, 4, 5], [1, 2, 3, 4, 5], [0.2] * 5, [0.1, 0.1, 0.6, 0.1, 0.1]]
    d = [[10, 20, 30, 40, 50], [2, 1, 4, 3, 5], [1, 2, 3, 4, 5], [1, 2, 9, 3, 4]]
    # second row: rank differences 1, 1, 1, 1, 0 -> 1 - 6 * 4 / (5 * 24) = 0.8
    # last row: ranks (2.5, 2.5, 5, 2.5, 2.5) and (1, 2, 5, 3, 4): 5 / sqrt(5 * 10)
    assert spearman_rows(a, d) == pytest.approx([1, 0.8, 0, 5 / np.sqrt(50)])


def test_differences_of_nothing_make_no_ranks():
    assert spearman_rows([[0.2, 0.2 + 1e-4, 0.2 - 1e-4]], [[1, 2, 3]])[0] == 0
    assert ranks(np.array([[-0.004, 0.003, 2.7, 0.001], [0, 0, 0, 0], [-1, 0.5, 0.505, 0.6]])).tolist() == [
        [2, 2, 4, 2],
        [2.5, 2.5, 2.5, 2.5],
        [1, 2.5, 2.5, 4],
    ]
    # the planted layer alone matters: what the others get by chance neither helps nor harms
    assert spearman_rows([[0.05, 0.15, 0.5]], [[0.001, -0.001, 2.7]]) == pytest.approx([np.sqrt(3) / 2])


def test_permutation_p_counts_the_orders_by_hand():
    alpha = np.array([[1.0, 2, 3]])
    assert permutation_p(alpha, [[1.0, 2, 3]]) == pytest.approx(1 / 6)  # only its own order gives rho 1
    assert permutation_p(alpha, [[3.0, 2, 1]]) == 1  # rho -1: every order does as well
    assert permutation_p(alpha, [[2.0, 1, 3]]) == pytest.approx(3 / 6)  # rho 0.5, reached by two orders, 1 by a third


def test_many_utterances_with_one_profile_are_no_evidence_about_the_order():
    """Shuffled utterance by utterance p would be tiny; the order of three layers can give no less than 1/6."""
    assert permutation_p(rows([1, 2, 3]), rows([1, 2, 3])) == pytest.approx(1 / 6)


def test_alpha_that_follows_the_damage_is_faithful_and_permuted_is_not():
    alpha, damage = rows([0.1, 0.15, 0.5, 0.2, 0.05], noise=0.005), rows([0.2, 0.4, 3, 0.7, 0.1], noise=0.05)
    norm = rows([1, 1, 1, 1, 1])
    found = agreement(alpha, damage, SPEAKERS, norm)
    assert found.verdict == "faithful" and found.within.value > 0.95 and found.order_p == pytest.approx(1 / 120)
    assert found.minus_norm.difference.low > 0 and found.constant == 0 and found.speakers == 8
    permuted = agreement(np.roll(alpha, 2, axis=1), damage, SPEAKERS, norm)
    assert permuted.verdict == "not faithful" and permuted.within.high < 0


def test_alpha_that_norm_alone_explains_is_not_faithful():
    damage = rows([1, 2, 3, 4, 5], noise=0.5)
    assert agreement(damage, damage, SPEAKERS, damage).verdict == "undecided"  # norm ranks exactly as well
    worse = rows([1, 3, 2, 5, 4], noise=0.01)
    found = agreement(worse, rows([1, 2, 3, 4, 5]), SPEAKERS, rows([1, 2, 3, 4, 5]))
    assert found.verdict == "not faithful" and found.within.low > 0 and found.minus_norm.difference.high < 0


def test_uniform_alpha_ranks_nothing():
    found = agreement(np.full((40, 5), 0.2), rows([1, 2, 3, 4, 5]), SPEAKERS)
    assert found.verdict == "not faithful" and found.within.value == 0 and found.constant == 1 and found.across is None


def test_one_utterance_decides_nothing():
    found = agreement([[1, 2, 3]], [[1, 2, 3]], ["a"], [[1, 1, 1]])
    assert found.verdict == "undecided" and found.within.value == pytest.approx(1)
    assert found.within.low is None and found.minus_others is None


def test_movement_across_utterances():
    """alpha's deviations are those of the damage, or of another utterance's: only the first is found."""
    deviation = NOISE.standard_normal((60, 4))
    alpha, damage = 0.25 + 0.01 * deviation, 1 + deviation + 0.3 * NOISE.standard_normal((60, 4))
    speakers = [f"s{i % 12}" for i in range(60)]
    assert across_utterances(alpha, damage, speakers).low > 0.7
    shuffled = across_utterances(alpha[NOISE.permutation(60)], damage, speakers)
    assert shuffled.low < 0 < shuffled.high
    own = agreement(alpha, damage, speakers)
    assert own.minus_others.difference.low > 0.5


def test_across_is_plain_spearman_where_one_layer_moves():
    from scipy.stats import spearmanr

    alpha, damage = np.full((20, 3), 0.3), np.ones((20, 3))
    alpha[:, 1], damage[:, 1] = NOISE.random(20), NOISE.random(20)
    found = across_utterances(alpha, damage, [str(i) for i in range(20)])
    assert found.value == pytest.approx(spearmanr(alpha[:, 1], damage[:, 1]).statistic)
    assert across_utterances(np.full((20, 3), 0.3), damage, ["a"] * 20) is None


def test_the_profile_averages_first():
    """Each utterance alone is mostly noise: rho within is weak, that of the means is 1."""
    alpha, damage = rows([1, 2, 3, 4], n=400, noise=0.01), rows([1, 2, 3, 4], n=400, noise=5)
    found = agreement(alpha, damage, [f"s{i % 40}" for i in range(400)])
    assert found.within.value < 0.5 and found.profile.value == pytest.approx(1) and found.profile.low > 0.5
    assert profile_correlation([[1, 2, 3], [9, 2, 3]], [[1, 1, 1], [0, 2, 7]], ["a", "b"]).value == pytest.approx(
        spearman_rows([[10, 4, 6]], [[1, 3, 8]])[0]
    )


def test_orders_and_areas_by_hand():
    weights = np.array([[0.1, 0.6, 0.3], [0.2, 0.5, 0.3]])
    order = descending(weights, np.random.default_rng(0))
    assert order.tolist() == [[1, 2, 0], [1, 2, 0]]
    assert first_layers(order, 2).tolist() == [[False, True, True]] * 2
    assert area([[1, 2, 6]], [1, 2, 3]) == pytest.approx([(1.5 + 4) / 2])
    assert area([[1, 2, 6]], [1, 2, 5]) == pytest.approx([1.5 / 4 + 4 * 3 / 4])
    assert area([[7]], [1]) == pytest.approx([7])
    assert curve_points(5) == [1, 2, 3, 4] and curve_points(25) == [1, 4, 8, 11, 14, 17, 21, 24]


def test_ties_are_ordered_at_random():
    orders = {tuple(descending(np.full(3, 1 / 3), np.random.default_rng(i))) for i in range(60)}
    assert len(orders) == 6


@pytest.mark.parametrize(
    ("alpha", "damage", "message"),
    [(np.ones((2, 3)), np.ones((2, 4)), "N, L1"), (np.ones((2, 2)), np.ones((2, 2)), "at least 3")],
)
def test_errors_name_the_value(alpha, damage, message):
    with pytest.raises(ValueError, match=message):
        agreement(alpha, damage, ["a", "b"], alpha)
