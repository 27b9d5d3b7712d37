"""How far apart two weightings of layers lie in depth. (Entropy and Jensen-Shannon divergence are in `routing.py`.)

Jensen-Shannon divergence does not know that layers have an order: weight moved from layer 3 to 4 counts as much as from
0 to 24. Wasserstein-1 does: it is the mean way, in layers, that weight has to move.
"""

import numpy as np


def _checked(weights: np.ndarray) -> np.ndarray:
    weights = np.asarray(weights, np.float64)
    if weights.shape[-1] < 1 or (weights < -1e-6).any() or not np.allclose(weights.sum(-1), 1, atol=1e-3):
        raise ValueError(f"weights of shape {weights.shape} are no distributions over layers: >= 0 and sum 1")
    return weights


def centre_of_mass(weights: np.ndarray) -> np.ndarray:
    """(..., L1) -> (...): mean layer, 0 (before the first block) to L."""
    weights = _checked(weights)
    return weights @ np.arange(weights.shape[-1])


def wasserstein_layers(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(..., L1) and (..., L1) -> (...): Wasserstein-1 distance in layers, 0 to L."""
    a, b = _checked(a), _checked(b)
    if a.shape[-1] != b.shape[-1]:
        raise ValueError(f"{a.shape[-1]} and {b.shape[-1]} layers do not compare in layers; use wasserstein_depth")
    return np.abs(np.cumsum(a - b, -1)[..., :-1]).sum(-1)


def wasserstein_depth(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(..., La) and (..., Lb) -> (...): Wasserstein-1 distance in normalised depth, layer / L, from 0 to 1.

    The two models may differ in their number of layers.
    """
    a, b = _checked(a), _checked(b)
    depths = [np.linspace(0, 1, x.shape[-1]) if x.shape[-1] > 1 else np.zeros(1) for x in (a, b)]
    grid = np.unique(np.round(np.concatenate(depths), 12))
    # Distribution functions of both on the joint grid: all weight up to and at each depth.
    below = [(d[:, None] <= grid + 1e-9).astype(np.float64) for d in depths]
    difference = np.abs(a @ below[0] - b @ below[1])  # (..., grid)
    return (difference[..., :-1] * np.diff(grid)).sum(-1)
