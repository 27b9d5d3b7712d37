"""Means and rates by speaker, the swap test, and the cross-validated R2, by hand and by simulation."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from harmonifuse_core.analysis.clustered import RIDGE, cross_validated_r2, rate, rate_comparison, swap_test


def test_a_rate_is_sum_by_sum_and_its_interval_resamples_speakers():
    found = rate([1, 2, 3, 0], ["a", "a", "b", "b"], [10, 10, 5, 5])
    assert found.value == pytest.approx(6 / 30) and found.clusters == 2
    assert found.low == pytest.approx(3 / 20) and found.high == pytest.approx(3 / 10)  # one speaker alone, at most


def test_a_mean_of_one_utterance_has_no_interval():
    found = rate([0.3], ["a"])
    assert (found.value, found.low) == (0.3, None)


@pytest.mark.parametrize("values", [[], [np.nan, 1.0]], ids=["none", "gap"])
def test_what_cannot_be_averaged_is_refused(values):
    with pytest.raises(ValueError, match="finite"):
        rate(values, ["a"] * len(values))


def test_a_comparison_sees_a_shift_and_no_shift():
    rng, speakers = np.random.default_rng(0), [str(i // 4) for i in range(120)]
    noise = rng.normal(size=120)
    assert rate_comparison("x", noise + 1, speakers).p_value < 0.01
    assert rate_comparison("x", np.zeros(120), speakers).p_value == 1.0


def test_all_swaps_of_three_speakers_by_hand():
    # d = 1, 1, 1: |sum of signs| is 3 in 2 of 8 swaps, and nothing is larger
    found = swap_test(np.array([1.0, 1, 1]), np.zeros(3), ["a", "b", "c"])
    assert found.exact and found.permutations == 8
    assert found.p_value == found.smallest == 0.25 and found.statistic == pytest.approx(1.0)
    # d = 3, 1, -1: squared sums 9, 25, 1, 9 and their mirrors; 9 is reached or passed by 6 of 8
    assert swap_test(np.array([3.0, 1, -1]), np.zeros(3), ["a", "b", "c"]).p_value == 0.75


def test_one_speakers_utterances_are_swapped_together():
    a = np.ones(50)
    assert swap_test(a, np.zeros(50), ["a"] * 25 + ["b"] * 25).p_value == 0.5  # 2 units, not 50
    assert swap_test(a, np.zeros(50), [str(i) for i in range(50)]).p_value < 0.001


def test_the_p_value_is_uniform_under_the_null_of_correlated_utterances():
    rng, p_values = np.random.default_rng(0), []
    speakers = np.repeat(np.arange(10), 8)
    for _ in range(400):
        difference = rng.normal(size=(10, 4))[speakers] + 0.5 * rng.normal(
            size=(80, 4)
        )  # speakers differ, tasks do not
        p_values.append(swap_test(difference, np.zeros_like(difference), speakers.astype(str).tolist()).p_value)
    p_values = np.array(p_values)
    for level in (0.05, 0.25, 0.5, 0.75):
        spread = 4 * np.sqrt(level * (1 - level) / len(p_values))
        assert abs((p_values <= level).mean() - level) < spread + 2 / 1024, level
    by_utterance = swap_test(difference, np.zeros_like(difference), [str(i) for i in range(80)])
    assert by_utterance.units == 80 and not by_utterance.exact


def test_the_test_finds_a_difference_in_one_layer():
    rng = np.random.default_rng(1)
    a, b = rng.dirichlet(np.ones(5), 60), rng.dirichlet(np.ones(5), 60)
    b[:, 2] += 0.3
    assert swap_test(a, b, [str(i // 3) for i in range(60)]).p_value < 0.01


def test_the_left_out_error_equals_that_of_refitting():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(9, 20)), rng.normal(size=(9, 3))
    found = cross_validated_r2(x, y, permutations=20)
    centred = x - x.mean(0)
    penalty = RIDGE * np.square(centred).sum() / 9
    errors, total = 0.0, 0.0
    for i in range(9):
        rest = np.arange(9) != i
        fitted = Ridge(alpha=penalty).fit(centred[rest], y[rest])
        errors += np.square(y[i] - fitted.predict(centred[i : i + 1])[0]).sum()
        total += np.square(y[i] - y[rest].mean(0)).sum()
    assert found.r2 == pytest.approx(1 - errors / total, abs=1e-9)


def test_r2_finds_a_linear_law_and_no_law():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(16, 4))
    law = cross_validated_r2(x, x @ rng.normal(size=(4, 3)), permutations=500)
    assert law.r2 > 0.8 and law.p_value < 0.01 and law.groups == 16
    p_values = [cross_validated_r2(x, rng.normal(size=(16, 3)), permutations=99, seed=i).p_value for i in range(150)]
    assert 0.4 < np.mean(p_values) < 0.6 and np.mean(np.array(p_values) <= 0.1) < 0.2


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (np.eye(3), np.eye(3)),
        (np.eye(6), np.ones((6, 2)) + 1e-8 * np.eye(6)[:, :2]),
        (np.ones((6, 2)), np.eye(6)),
    ],
    ids=["few prompts", "still alpha", "one prompt"],
)  # fmt: skip
def test_nothing_to_predict_is_none(x, y):
    assert cross_validated_r2(x, y) is None
