"""Pooled features in which only layer `K` carries the label, and a corpus of utterances for them."""

import numpy as np

from harmonifuse_core.data.manifest import Utterance

LAYERS, K, CLASSES, WIDTH, SPEAKERS, EACH = 3, 1, 3, 10, 9, 16
NAMES = ("angry", "happy", "sad")


def planted(seed: int = 0, strength: float = 2.0) -> tuple[np.ndarray, np.ndarray, list[Utterance]]:
    """features (M, N, F), codes (N,), utterances; 9 speakers with 16 utterances each and a voice of their own."""
    rng = np.random.default_rng(seed)
    count = SPEAKERS * EACH
    codes = rng.permutation(np.arange(count) % CLASSES)
    speakers = np.repeat(np.arange(SPEAKERS), EACH)
    features = rng.standard_normal((LAYERS, count, WIDTH)) + rng.standard_normal((LAYERS, SPEAKERS, WIDTH))[:, speakers]
    features[K, np.arange(count), codes] += strength
    utterances = [
        Utterance(
            f"u{i}",
            f"u{i}.wav",
            speaker=f"s{speakers[i]}",
            text=f"text number {i % 5}",
            labels={"emotion": NAMES[codes[i]], "gender": "fm"[speakers[i] % 2]},
        )
        for i in range(count)
    ]
    return features.astype(np.float32), codes, utterances
