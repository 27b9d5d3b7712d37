"""Random generators that depend on their keys alone, in any process: the same draw for the same utterance and step."""

import hashlib

import numpy as np


def generator(*keys) -> np.random.Generator:
    """A random generator that depends on its keys alone, in any process."""
    digest = hashlib.sha256("/".join(map(str, keys)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))
