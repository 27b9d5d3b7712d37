"""LEACE takes the concept, all of it and little else; a random subspace of the same rank does not."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from planted import CLASSES, K, planted_batches, planted_model

from probes.erasing import Condition, Halves, conditions_of, erasure_table, measure
from probes.erasing_run import erase_layers
from probes.erasure import Moments, leace, random_eraser
from probes.probing import Options, prepare
from probes.targets import label_target


def frames(count=600, width=10, classes=3, seed=0):
    rng = torch.Generator().manual_seed(seed)
    codes = torch.arange(count) % classes
    x = torch.randn(count, width, generator=rng) @ torch.randn(width, width, generator=rng)
    x[torch.arange(count), codes] += 5
    return x, codes


def moments_of(x, codes, classes=3):
    moments = Moments(x.shape[1], classes)
    for start in range(0, len(x), 100):  # as a stream
        moments.add(x[start : start + 100], codes[start : start + 100])
    return moments


def test_moments_are_those_of_all_frames_together():
    x, codes = frames()
    moments = moments_of(x, codes)
    assert torch.allclose(moments.mean, x.double().mean(0))
    assert torch.allclose(moments.covariance, torch.cov(x.double().T, correction=0), atol=1e-6)


def test_after_leace_class_means_are_equal_and_erasing_again_changes_nothing():
    x, codes = frames()
    moments = moments_of(x, codes)
    eraser = leace(moments)
    erased = eraser(x)
    means = torch.stack([erased[codes == c].mean(0) for c in range(3)])
    assert eraser.rank == 2 and torch.allclose(means, means.mean(0).expand_as(means), atol=1e-3)
    assert torch.allclose(eraser(erased), erased, atol=1e-3)  # erasing twice changes nothing
    half = eraser.into @ eraser.read  # a projection: what it leaves it leaves as it was
    assert torch.allclose(half @ half, half, atol=1e-3)


def means_of(x, codes):
    means = torch.stack([x[codes == c].mean(0) for c in range(3)])
    return means - means.mean(0)


def test_a_random_subspace_of_the_same_rank_leaves_the_concept():
    x, codes = frames(width=30)
    moments = moments_of(x, codes)
    eraser = random_eraser(moments, leace(moments).rank, np.random.default_rng(0))
    left = means_of(eraser(x), codes).norm() / means_of(x, codes).norm()
    assert eraser.rank == 2 and left > 0.7
    assert torch.allclose(eraser(eraser(x)), eraser(x), atol=1e-3)


def test_one_class_cannot_be_erased():
    x, _ = frames()
    with pytest.raises(ValueError, match="one class only"):
        leace(moments_of(x, torch.zeros(len(x), dtype=torch.long)))


@pytest.fixture(scope="module")
def erased():
    model = planted_model()
    batches = [
        replace(b, items=tuple(replace(i, source=replace(i.source, utterance=labelled(i))) for i in b.items))
        for b in planted_batches(seed=5, count=8)
    ]
    utterances = [item.utterance for batch in batches for item in batch.items]
    ids = [u.id for u in utterances]
    material = prepare([label_target("emotion", utterances)], utterances, Options(resamples=300))
    codes = dict(zip(ids, material.targets[0].labels[:, 0].tolist(), strict=True))
    halves = Halves(codes, dict(zip(ids, material.speakers, strict=True)), CLASSES)
    conditions, measured = conditions_of([0, K, None]), []
    for batch in batches:
        halves.add(batch)
    for batch in batches:
        measured += measure(model, batch, halves, conditions)
    table = erasure_table("emotion", measured, conditions, halves, material, ids, model)
    return {(r["layer"], r["method"], r["task"]): r for r in table.rows}


def labelled(item):
    return replace(item.utterance, labels={"emotion": item.targets["ser"]})


def test_erasure_at_the_layer_that_carries_the_label_destroys_the_answer_and_a_random_one_does_not(erased):
    assert erased[None, "intact", "ser"]["value"] > 0.9
    gone, random = erased[K, "leace", "ser"], erased[K, "random", "ser"]
    assert gone["value"] < 0.5 and gone["change_high"] < -0.3 and gone["beyond_random_high"] < -0.2
    assert random["value"] > 0.8 and random["draws"] == 3 and gone["rank"] == CLASSES - 1
    assert erased[None, "leace", "ser"]["value"] < 0.5


def test_erasure_elsewhere_changes_nothing(erased):
    assert abs(erased[0, "leace", "ser"]["change"]) < 0.1


def test_the_concept_is_gone_from_the_layer_itself(erased):
    assert erased[K, "intact", None]["concept_score"] > 0.9
    assert erased[K, "leace", "ser"]["concept_score"] < 0.5 < erased[K, "random", "ser"]["concept_score"]


def test_layers_are_named_or_refused():
    assert erase_layers("", 2) == [0, 1, 2, None] and erase_layers("1, all", 2) == [1, None]
    with pytest.raises(ValueError, match="from 0 to 2"):
        erase_layers("3", 2)
    assert [c.method for c in conditions_of([1], draws=2)] == ["intact", "leace", "random", "random"]
    assert Condition(None, "intact") == conditions_of([])[0]
