"""The variance of alpha's logits: the parts add up, and each is found where it was put."""

import numpy as np
import pytest

from harmonifuse_core.analysis.logits import PARTS, logit_variance

SPEAKERS = [f"s{i % 6}" for i in range(30)]


def test_parts_by_hand():
    bias, score = np.array([1.0, -1.0]), np.array([[1.0, -1.0], [3.0, -3.0]])
    found = logit_variance(bias, score, ["a", "b"], np.array([0.5, 1.5]))
    # bias^2 = 1; mean score (2, -2): 4; 2 * 1 * 2 = 4; spread of (1, 3) round 2: 1; tokens 1
    assert [found.values[part] for part in PARTS] == pytest.approx([1, 4, 4, 1, 1])
    assert sum(found.shares.values()) == pytest.approx(1) and found.moving.value == pytest.approx(2 / 11)


def test_what_all_layers_share_does_not_count():
    score = np.random.default_rng(0).standard_normal((30, 4))
    plain = logit_variance(np.arange(4.0), score, SPEAKERS)
    lifted = logit_variance(np.arange(4.0) + 7, score + np.linspace(-9, 9, 30)[:, None], SPEAKERS)
    assert lifted.values == pytest.approx(plain.values)


def test_the_parts_are_the_whole_mean_square():
    rng = np.random.default_rng(1)
    bias, score = rng.standard_normal(5), rng.standard_normal((30, 5)) + rng.standard_normal(5)
    logits = bias + score
    centred = logits - logits.mean(1, keepdims=True)
    assert sum(logit_variance(bias, score, SPEAKERS).values.values()) == pytest.approx(np.square(centred).mean())


def test_no_ffn_moves_nothing_and_all_zero_has_no_shares():
    found = logit_variance(np.arange(3.0), np.zeros((30, 3)), SPEAKERS)
    assert found.shares["bias"] == 1 and found.moving.value == 0 and found.moving.high == 0
    nothing = logit_variance(np.zeros(3), np.zeros((30, 3)), SPEAKERS)
    assert set(nothing.shares.values()) == {None} and nothing.moving.low is None


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="L1"):
        logit_variance(np.zeros(3), np.zeros((2, 4)), ["a", "b"])
