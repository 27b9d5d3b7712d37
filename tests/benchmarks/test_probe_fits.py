"""Batched fits against a plain loop of scikit-learn: the same protocol on the same features, accuracy and time.

The full size (1,200 utterances, 6 targets, 5 folds, controls) is marked slow; sizes can be given:
`PROBE_BENCHMARK="utterances=1200,layers=5,width=768" python -m pytest tests/benchmarks/test_probe_fits.py -m slow -s`.
"""

import os
import time
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from probes.controls import control_labels
from probes.crossvalidation import STRENGTHS, cross_validate
from probes.folds import make_folds
from probes.targets import Target

CLASSES = (8, 20, 2, 2, 4, 6)  # of emotion, speaker, gender, a word, age groups, language


@dataclass(frozen=True)
class Size:
    utterances: int = 90
    layers: int = 1
    width: int = 16
    targets: int = 1
    folds: int = 3
    inner: int = 2
    speakers: int = 9


FULL = Size(1200, 5, 768, 6, 5, 3, 20)


def asked(size: Size) -> Size:
    given = (item.split("=") for item in os.environ.get("PROBE_BENCHMARK", "").split(",") if item)
    return Size(**{**vars(size), **{key: int(value) for key, value in given}})


def material(size: Size):
    """Features whose spectrum falls as that of pooled speech states does; labels that they hold in part."""
    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((size.utterances, 64)) / np.sqrt(1 + np.arange(64))
    mixes = rng.standard_normal((size.layers, 64, size.width))
    noise = rng.standard_normal((size.layers, size.utterances, size.width))
    features = (hidden @ mixes + 0.1 * noise).astype(np.float32)
    speakers = [f"s{i % size.speakers}" for i in range(size.utterances)]
    targets = []
    for number in range(size.targets):
        classes = CLASSES[number % len(CLASSES)]
        scores = hidden @ rng.standard_normal((64, classes)) + 0.5 * rng.standard_normal((size.utterances, classes))
        names = tuple(map(str, range(classes)))
        targets.append(Target(f"t{number}", "classes", "label", "", scores.argmax(1)[:, None], names))
    folds = make_folds(speakers, "speaker", folds=size.folds, inner=size.inner)
    controls = {t.name: control_labels(t.labels, speakers, t.name) for t in targets}
    return features, targets, folds, controls


def decided(model: LogisticRegression, x: np.ndarray, codes: np.ndarray, width: int) -> np.ndarray:
    """The rule of the batched probes: argmax of log p - log prior."""
    prior = np.bincount(codes, minlength=width)[model.classes_] / len(codes)
    return model.classes_[(model.predict_log_proba(x) - np.log(prior)).argmax(1)]


def loop(features, targets, folds, controls) -> dict[str, np.ndarray]:
    """{target: (M, N) answers}: one LogisticRegression after the other, the penalty chosen on inner speakers."""
    found = {t.name: np.full(features.shape[:2], -1) for t in targets}
    for layer, x in enumerate(features.astype(np.float64)):
        for fold in range(folds.count):
            learn, inner = folds.outer != fold, folds.inner[fold]
            z = (x - x[learn].mean(0)) / x[learn].std(0)
            for target in targets:
                codes, losses = target.labels[:, 0], np.zeros(len(STRENGTHS))
                for group in range(inner.max() + 1):
                    part, held = learn & (inner != group), inner == group
                    for place, strength in enumerate(STRENGTHS):
                        model = LogisticRegression(C=strength, max_iter=1000).fit(z[part], codes[part])
                        chances = np.zeros((held.sum(), target.width))
                        chances[:, model.classes_] = model.predict_proba(z[held])
                        own = chances[np.arange(held.sum()), codes[held]]
                        losses[place] -= np.log(np.maximum(own, 1e-9)).sum()
                best = STRENGTHS[int(losses.argmin())]
                for labels in (codes, controls[target.name][:, 0]):
                    model = LogisticRegression(C=best, max_iter=1000).fit(z[learn], labels[learn])
                    if labels is codes:
                        tested = folds.outer == fold
                        found[target.name][layer, tested] = decided(model, z[tested], labels[learn], target.width)
    return found


def compare(size: Size) -> tuple[float, float, float]:
    """Largest difference of accuracy over layers and targets, and the seconds of both."""
    features, targets, folds, controls = material(size)
    start = time.perf_counter()
    answers = cross_validate(torch.from_numpy(features), targets, folds, controls)
    batched = time.perf_counter() - start
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = time.perf_counter()
        reference = loop(features, targets, folds, controls)
        looped = time.perf_counter() - start
    worst = 0.0
    for target in targets:
        codes = target.labels[:, 0]
        right = [(a == codes).mean(1) for a in (answers[target.name].predicted[..., 0], reference[target.name])]
        worst = max(worst, float(np.abs(right[0] - right[1]).max()))
    return worst, batched, looped


def test_batched_fits_answer_as_the_loop_does():
    worst, _, _ = compare(asked(Size()))
    assert worst <= 0.012  # one utterance of 90: two answers may tie


@pytest.mark.slow
def test_batched_fits_take_at_most_a_tenth_of_the_loop():
    worst, batched, looped = compare(asked(FULL))
    print(f"\naccuracy within {worst:.4f}; batched {batched:.1f} s, loop {looped:.1f} s: {looped / batched:.1f} times")
    assert worst <= 0.005 and batched <= looped / 10
