"""Planted truth: only layer K carries the label, and probes, controls, code lengths and best sets must say so."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from planted_features import CLASSES, LAYERS, K, planted

from probes.classifiers import Problem, fit_logistic
from probes.design import make_design
from probes.folds import make_folds
from probes.mdl import block_ends, code_lengths
from probes.perceptron import Task, fit_perceptrons
from probes.probing import Options, Representation, majority, prepare, probe
from probes.tables import Baseline, best_row, best_set, layer_rows
from probes.targets import Target, label_target, word_target

OPTIONS = Options(folds=3, inner=2, resamples=300)


@cache
def material_and_features():
    features, _, utterances = planted()
    pitch = np.where(np.arange(len(utterances)) % 50 == 0, np.nan, features[K, :, 5] * 3 + 1).astype(float)
    targets = [label_target(name, utterances) for name in ("emotion", "gender", "speaker")]
    targets.append(Target("pitch", "number", "signal", "planted", pitch))
    return prepare(targets, utterances, OPTIONS), features, utterances


@cache
def outcomes(kind: str):
    material, features, utterances = material_and_features()
    if kind == "mlp":
        material = prepare(material.targets[:1], utterances, OPTIONS)
    return {o.target.name: o for o in probe(material, Representation("encoder", None, features), kind)}


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_the_layer_that_carries_the_label_is_found_and_the_others_are_not_in_its_set(kind):
    emotion = outcomes(kind)["emotion"]
    found = best_set(emotion.tally)
    assert found.best == K and found.members == (K,)
    assert emotion.tally.scores[K] > 0.6
    assert all(abs(emotion.tally.scores[m] - 1 / CLASSES) < 0.12 for m in range(LAYERS) if m != K)


def test_a_hidden_layer_reads_strong_axes_and_does_not_learn_the_weak_ones_by_heart():
    """As in speech states: the classes lie along a few axes of large variance, among hundreds of small noise."""
    draw = np.random.default_rng(0)
    count, codes = 480, draw.integers(0, 4, 480)
    axes, strength = np.linalg.qr(draw.normal(size=(300, 300)))[0], np.r_[[6.0] * 4, np.ones(296)]
    states = draw.normal(size=(count, 300))
    states[:, :4] += 1.8 * np.eye(4)[codes]
    train = np.arange(count) < 360
    design = make_design(torch.from_numpy(states * strength @ axes).float()[None], train)
    known = np.where(train, codes, -1)
    (output,) = fit_perceptrons(design, [Task(known, 4)], np.arange(count) % 3 == 0)
    logits = fit_logistic(design, [Problem(known, 4)], [1.0]).logits(0)[:, 0]
    hidden, linear = ((x[0].argmax(-1).numpy() == codes)[~train].mean() for x in (output, logits))
    assert linear > 0.7 and hidden > linear - 0.1, (hidden, linear)  # 0.3 where every axis has the same variance


def test_a_control_task_is_not_learnt_though_it_is_memorised():
    emotion = outcomes("linear")["emotion"]
    assert abs(emotion.control.scores[K] - 1 / CLASSES) < 0.12
    assert emotion.memorised.scores[K] > emotion.control.scores[K]
    assert emotion.tally.against(K, emotion.control, K).difference.low > 0.1


def test_a_number_is_predicted_where_it_is_and_nowhere_else():
    pitch = outcomes("linear")["pitch"]
    assert pitch.tally.scores[K] > 0.95 and best_set(pitch.tally).members == (K,)
    assert pitch.control.scores[K] < 0.1


def test_the_speaker_is_told_on_other_utterances_of_the_same_speakers():
    material, _, _ = material_and_features()
    assert material.folds["speaker"].grouped_by == "utterance" and material.folds["emotion"].grouped_by == "speaker"
    assert (outcomes("linear")["speaker"].tally.scores > 0.5).all()  # every layer has the voices


def test_code_is_shorter_at_the_layer_that_carries_the_label():
    emotion = outcomes("linear")["emotion"]
    others = [m for m in range(LAYERS) if m != K]
    assert emotion.code.bits[K] < emotion.code.bits[others].min() - 10
    assert emotion.code.compression[K] > 1.2 and emotion.control_code.compression[K] < 1.1
    assert outcomes("linear")["pitch"].code is None


def test_majority_answers_one_class_and_the_mean():
    material, _, _ = material_and_features()
    emotion, *_, pitch = material.targets
    assert 0.2 < majority(material, emotion).scores[0] < 0.45
    assert majority(material, pitch).scores[0] == pytest.approx(0)


def test_rows_say_what_was_found():
    material, features, _ = material_and_features()
    representation, emotion = Representation("encoder", None, features), outcomes("linear")["emotion"]
    rows = list(layer_rows(material, representation, emotion))
    assert [r["layer"] for r in rows] == list(range(LAYERS)) and [r["in_best_set"] for r in rows] == [
        m == K for m in range(LAYERS)
    ]
    assert rows[K]["p_holm"] is None and rows[0]["behind_best"] == pytest.approx(rows[K]["score"] - rows[0]["score"])
    assert rows[K]["score_low"] < rows[K]["score"] < rows[K]["score_high"]
    assert rows[K]["speakers"] == 9 and rows[K]["n"] == 144 and len(rows[K]["regularisation"]) == 3

    row = best_row(
        material, representation, emotion, {"majority": Baseline("majority", None, majority(material, emotion.target))}
    )
    assert row["layers"] == [K] and row["over_majority_low"] > 0 and row["over_logmel"] is None


def test_layers_fitted_apart_or_together_give_the_same_answers(monkeypatch):
    material, features, _ = material_and_features()
    monkeypatch.setattr("probes.probing.FIT_BYTES", features[0].nbytes)  # one layer at a time
    apart = {o.target.name: o for o in probe(material, Representation("encoder", None, features), "linear")}
    for name in ("emotion", "gender", "pitch"):
        together = outcomes("linear")[name]
        same = np.isclose(apart[name].answers.predicted, together.answers.predicted, atol=1e-3)
        assert same.mean() > 0.99
        assert np.allclose(apart[name].tally.scores, together.tally.scores, atol=0.01)


def test_folds_keep_speakers_whole_and_nest():
    speakers = [f"s{i % 7}" for i in range(70)]
    folds = make_folds(speakers, "speaker", folds=5, inner=3)
    for fold in range(folds.count):
        tested = {s for s, f in zip(speakers, folds.outer, strict=True) if f == fold}
        learnt = {s for s, f in zip(speakers, folds.outer, strict=True) if f != fold}
        assert tested and not tested & learnt
        assert ((folds.inner[fold] == -1) == (folds.outer == fold)).all()
        for group in range(3):
            inside = {s for s, g in zip(speakers, folds.inner[fold], strict=True) if g == group}
            outside = {s for s, g in zip(speakers, folds.inner[fold], strict=True) if g >= 0 and g != group}
            assert inside and not inside & outside
    with pytest.raises(ValueError, match="2 speakers"):
        make_folds(["a", "b"] * 5, "speaker")


def test_strata_are_spread_evenly():
    speakers = [f"s{i}" for i in range(20) for _ in range(5)]
    gender = ["f" if i < 10 else "m" for i in range(20) for _ in range(5)]
    folds = make_folds(speakers, "speaker", gender, folds=5)
    for fold in range(5):
        assert sum(g == "f" for g, f in zip(gender, folds.outer, strict=True) if f == fold) == 10


def test_code_blocks_end_with_whole_speakers_and_the_first_is_uniform():
    groups = [f"s{i // 4}" for i in range(32)]
    order, ends = block_ends(groups)
    assert ends[-1] == 32 and all(end % 4 == 0 for end in ends)
    target = Target("t", "classes", "label", "", np.arange(32)[:, None] % 2, ("a", "b"))
    found = code_lengths(torch.randn(1, 32, 3), [target], groups)["t"]
    assert found.uniform == 32 and found.bits[0] > 16  # noise costs about a bit a label


def test_words_that_go_together_are_one_problem():
    _, _, utterances = material_and_features()

    said = [replace(u, text="kids are talking" if i % 3 else "dogs are sitting now") for i, u in enumerate(utterances)]
    target = word_target(said)
    assert target.problems == 1 and target.kind == "words" and "100%" in target.caution
    with pytest.raises(ValueError, match="no word is in"):
        word_target([replace(u, text="always the same") for u in utterances])


def test_labels_that_cannot_be_probed_are_refused_with_what_there_is():
    _, _, utterances = material_and_features()
    with pytest.raises(ValueError, match="no utterance has it; the manifest has emotion, gender"):
        label_target("language", utterances)

    rare = [replace(u, labels={"emotion": "sad" if i else "happy"}) for i, u in enumerate(utterances)]
    with pytest.raises(ValueError, match="1 of 2 classes"):
        label_target("emotion", rare)
