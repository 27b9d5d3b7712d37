"""The batched fits are scikit-learn's, one at a time."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge

from probes.classifiers import Problem, fit_logistic, fit_ridge
from probes.crossvalidation import ROUGH, STRENGTHS
from probes.design import make_design
from probes.logistic import TOLERANCE


def data(layers: int = 2, count: int = 120, width: int = 20, seed: int = 0):
    rng = np.random.default_rng(seed)
    base = rng.standard_normal((count, 6))
    mixes = rng.standard_normal((layers, 6, width))
    features = base @ mixes + 0.5 * rng.standard_normal((layers, count, width)) + 3
    codes = (base[:, :3] + 0.7 * rng.standard_normal((count, 3))).argmax(1)
    binary = (base[:, 4] + 0.5 * rng.standard_normal(count) > 0).astype(int)
    return torch.from_numpy(features.astype(np.float32)), codes, binary, base[:, 5], rng.random(count) < 0.75


def standardised(features, train):
    x = features.numpy().astype(float)
    return (x - x[:, train].mean(1, keepdims=True)) / x[:, train].std(1, keepdims=True)


@pytest.mark.parametrize("width", [20, 150])  # fewer and more features than utterances
def test_logistic_fits_are_those_of_scikit_learn(width):
    features, codes, binary, _, train = data(width=width)
    unlabelled = np.arange(len(codes)) % 11 == 0  # some utterances lack the second label
    learn = train & ~unlabelled
    problems = [Problem(np.where(train, codes, -1), 3), Problem(np.where(learn, binary, -1), 2)]
    strengths = [1e-3, 1e-2, 0.1, 1.0]
    fitted = fit_logistic(make_design(features, train), problems, strengths)
    x = standardised(features, train)
    for number, problem in enumerate(problems):
        rows = problem.codes >= 0
        for place, strength in enumerate(strengths):
            chances = torch.softmax(fitted.logits(number)[:, place], -1).numpy()
            for layer in range(len(x)):
                model = LogisticRegression(C=strength, max_iter=2000, tol=1e-8).fit(x[layer][rows], problem.codes[rows])
                assert np.abs(chances[layer] - model.predict_proba(x[layer])).max() < 0.02
                weights = fitted.parts[number][layer, place, :, :-1].numpy()
                found = objective(chances[layer], problem.codes, weights, strength)
                least = objective(model.predict_proba(x[layer]), problem.codes, model.coef_, strength)
                assert least - 1e-5 < found < least + 5 * TOLERANCE


def objective(chances: np.ndarray, codes: np.ndarray, weights: np.ndarray, strength: float) -> float:
    """Of scikit-learn's LogisticRegression, an utterance."""
    rows = codes >= 0
    return (np.square(weights).sum() / (2 * strength) - np.log(chances[rows, codes[rows]]).sum()) / rows.sum()


def test_without_a_label_to_learn_from_every_class_is_as_likely():
    features, codes, _, _, train = data()
    design = make_design(features, train)
    problems = [Problem(np.full(len(codes), -1), 3), Problem(np.where(train, codes, -1), 3)]
    fitted = fit_logistic(design, problems, [0.1, 1.0])
    assert (fitted.logits(0) == 0).all() and fitted.logits(1, np.array([2, 5])).shape == (2, 2, 2, 3)


def test_weights_that_start_far_from_separable_classes_still_descend():
    """Two blobs far apart and hardly a penalty: p (1 - p) vanishes, and a plain Newton step would overshoot."""
    side = np.arange(60) % 2
    features = torch.from_numpy((side[:, None] * 50 + np.random.default_rng(0).normal(size=(60, 4))).astype(np.float32))
    train = np.arange(60) < 40
    fitted = fit_logistic(make_design(features[None], train), [Problem(np.where(train, side, -1), 2)], [1e6])
    logits = fitted.logits(0)[0, 0]
    assert torch.isfinite(logits).all() and (logits.argmax(-1).numpy() == side).all()


def test_each_layer_may_have_its_own_penalty_and_batch_equals_loop():
    features, codes, binary, _, train = data()
    design = make_design(features, train)
    problems = [Problem(np.where(train, codes, -1), 3), Problem(np.where(train, binary, -1), 2)]
    strengths = torch.tensor([[0.01, 0.1], [1.0, 0.001]])[..., None]
    together = fit_logistic(design, problems, strengths)
    for layer in range(2):
        for number, problem in enumerate(problems):
            alone = fit_logistic(design.rows(slice(layer, layer + 1)), [problem], [float(strengths[layer, number])])
            difference = torch.softmax(together.logits(number)[layer, 0], -1) - torch.softmax(alone.logits(0)[0, 0], -1)
            assert difference.abs().max() < 0.01


def test_a_constant_feature_and_a_class_that_never_comes_do_no_harm():
    features, codes, _, _, train = data()
    features[:, :, 3] = 7.0
    fitted = fit_logistic(make_design(features, train), [Problem(np.where(train, codes, -1), 5)], [0.1])
    logits = fitted.logits(0)[:, 0]
    assert torch.isfinite(logits).all() and logits.argmax(-1).max() < 3


def test_nothing_of_the_tested_utterances_reaches_the_fit():
    features, codes, _, _, train = data()
    problem = Problem(np.where(train, codes, -1), 3)
    before = fit_logistic(make_design(features, train), [problem], [0.1]).logits(0)[:, 0, train]
    changed = features.clone()
    changed[:, ~train] += 100
    after = fit_logistic(make_design(changed, train), [problem], [0.1]).logits(0)[:, 0, train]
    assert torch.allclose(before, after, atol=1e-4)


def test_ridge_is_that_of_scikit_learn():
    features, _, _, values, train = data()
    design = make_design(features, train)
    found = fit_ridge(design, torch.from_numpy(values)[:, None], train, [0.01, 1.0])
    x = standardised(features, train)
    for place, penalty in enumerate((0.01, 1.0)):
        for layer in range(len(x)):
            reference = Ridge(alpha=penalty * train.sum()).fit(x[layer][train], values[train])
            assert np.allclose(found[place, layer, :, 0], reference.predict(x[layer]), atol=1e-3)


def test_a_number_along_a_small_direction_is_found_as_scikit_learn_finds_it():
    """One direction holds nearly all variance, and the number lies along those that hold a thousandth of it."""
    rng = np.random.default_rng(0)
    loud, quiet = rng.standard_normal((400, 1)), rng.standard_normal((400, 60))
    features = torch.from_numpy((loud + 0.05 * quiet)[None].astype(np.float32))
    values, train = quiet[:, 0] - quiet[:, 1], np.arange(400) < 300
    design, x = make_design(features, train), standardised(features, train)[0]
    found = fit_ridge(design, torch.from_numpy(values)[:, None], train, [1e-3])[0, 0, :, 0].numpy()
    reference = Ridge(alpha=1e-3 * train.sum()).fit(x[train], values[train]).predict(x)
    assert np.abs(found - reference).max() < 2e-3 * values.std()


def test_a_weak_signal_under_a_strong_penalty_is_followed_to_its_end():
    """The probabilities hardly leave the prior; decisions against it (`decide`) read what little there is."""
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 8, 400)
    features = torch.from_numpy((rng.standard_normal(400) + 0.01 * codes)[None, :, None].astype(np.float32))
    train = np.arange(400) < 300
    problem = Problem(np.where(train, codes, -1), 8)
    fitted = fit_logistic(make_design(features, train), [problem], STRENGTHS, ROUGH)
    x = standardised(features, train)[0]
    for place, strength in enumerate(STRENGTHS):
        model = LogisticRegression(C=strength, max_iter=5000, tol=1e-10).fit(x[train], codes[train])
        mine, reference = fitted.parts[0][0, place, :, 0].numpy(), model.coef_[:, 0]
        mine, reference = mine - mine.mean(), reference - reference.mean()
        mine = mine * np.sign(mine @ reference)  # the sign of a principal axis is nobody's
        assert np.abs(mine - reference).max() < 0.025 * np.abs(reference).max(), strength
