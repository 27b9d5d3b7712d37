"""Control tasks (Hewitt & Liang 2019): labels that mean nothing, with the frequencies of the real ones.

A probe that learns them has memorised. Hewitt and Liang give every word type one random label; an utterance is its own
type, so labels are permuted over the labelled utterances. Where the real label is the same for all utterances of a
speaker (gender, age), whole speakers swap labels, so that the control can be learnt as well from the speaker as the
target can. Selectivity = score - the control's score, by the same probe with the same penalty, on unseen speakers.
"""

from collections.abc import Sequence

import numpy as np

from harmonifuse_core.data.batching import generator


def is_constant(codes: np.ndarray, speakers: Sequence[str]) -> bool:
    """Does (N,) or (N, W) never change within a speaker who has several labelled utterances?"""
    rows = np.asarray(codes).reshape(len(codes), -1)
    first, several = {}, False
    for row, speaker in zip(rows, speakers, strict=True):
        if not np.isfinite(row).all() or (row < 0).any():
            continue
        if speaker in first and not np.array_equal(first[speaker], row):
            return False
        several |= speaker in first
        first.setdefault(speaker, row)
    return several


def control_labels(labels: np.ndarray, speakers: Sequence[str], name: str, seed: int = 0) -> np.ndarray:
    """A control for (N,) values with NaN, or (N, W) codes with -1, where there is no label: same shape and gaps."""
    rng = generator(seed, "control", name)
    known = np.isfinite(labels) if labels.ndim == 1 else (labels >= 0).all(1)
    control, places = labels.copy(), np.flatnonzero(known)
    if labels.ndim == 2 and is_constant(labels, speakers):
        own = np.asarray(speakers, str)[places]
        names, first, index = np.unique(own, return_index=True, return_inverse=True)
        control[places] = labels[places[first]][rng.permutation(len(names))][index]
    else:
        control[places] = labels[rng.permutation(places)]
    return control
