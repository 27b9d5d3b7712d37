"""Distances over depth, by hand and against scipy."""

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from harmonifuse_core.analysis.depth import centre_of_mass, wasserstein_depth, wasserstein_layers
from harmonifuse_core.routing import entropy_bits, jensen_shannon

FIRST, LAST, MIXED = np.array([1.0, 0, 0]), np.array([0, 0, 1.0]), np.array([0.5, 0.25, 0.25])


def test_by_hand():
    assert wasserstein_layers(FIRST, LAST) == 2 and wasserstein_depth(FIRST, LAST) == 1
    assert wasserstein_layers(FIRST, MIXED) == pytest.approx(0.25 * 1 + 0.25 * 2)
    assert centre_of_mass(MIXED) == pytest.approx(0.75)
    assert entropy_bits(MIXED) == pytest.approx(1.5) and jensen_shannon(FIRST, LAST) == 1
    # H of (0.75, 0.125, 0.125) = 1.0612781, minus (0 + 1.5) / 2
    assert jensen_shannon(FIRST, MIXED) == pytest.approx(1.0612781 - 0.75, abs=1e-6)


def test_against_scipy_and_for_unlike_depths():
    rng = np.random.default_rng(0)
    a, b, short = rng.dirichlet(np.ones(5), 20), rng.dirichlet(np.ones(5), 20), rng.dirichlet(np.ones(3), 20)
    layers = np.arange(5)
    wanted = [wasserstein_distance(layers, layers, x, y) for x, y in zip(a, b, strict=True)]
    assert np.allclose(wasserstein_layers(a, b), wanted) and np.allclose(wasserstein_depth(a, b), np.array(wanted) / 4)
    wanted = [wasserstein_distance(layers / 4, np.arange(3) / 2, x, y) for x, y in zip(a, short, strict=True)]
    assert np.allclose(wasserstein_depth(a, short), wanted)


def test_it_is_a_distance():
    rng = np.random.default_rng(1)
    a, b, c = (rng.dirichlet(np.ones(7), 30) for _ in range(3))
    d = wasserstein_layers
    assert np.allclose(d(a, a), 0) and np.allclose(d(a, b), d(b, a))
    assert (d(a, c) <= d(a, b) + d(b, c) + 1e-12).all()
    assert (d(a, b) >= np.abs(centre_of_mass(a) - centre_of_mass(b)) - 1e-12).all()


def test_what_is_no_distribution_is_refused():
    with pytest.raises(ValueError, match="no distributions"):
        centre_of_mass(np.array([0.5, 0.2]))
    with pytest.raises(ValueError, match="wasserstein_depth"):
        wasserstein_layers(FIRST, np.array([0.5, 0.5]))
