"""Planted truth: a gate that must move with the input, one that does not move, and one that moves to no avail."""

import functools

import pandas as pd
import pytest
import torch
from planted import SER, STATES, K, planted_batches, planted_model

from harmonifuse_core.analysis import input_dependence
from harmonifuse_core.analysis.input_dependence import judged
from harmonifuse_core.analysis.interventions import ForcedTask
from harmonifuse_core.analysis.registry import AnalysisOptions, Context
from harmonifuse_core.analysis.replacements import Reference, replacements
from harmonifuse_core.analysis.running import analyse_batches
from harmonifuse_core.tasks import TaskConfig

UNIFORM = (0.2,) * STATES


@functools.cache
def analysed(listening: bool, moving: bool):
    model = planted_model(UNIFORM, listening=listening)
    batches = planted_batches(seed=2, moving=moving)
    return analyse_batches(model, batches, input_dependence.ANALYSIS, Context(model, resamples=300))


def verdict(result, about: str) -> str:
    return next(v.verdict for v in result.verdicts if v.about == about)


def row(result, replacement: str, stage="encoder") -> dict:
    rows = result.table("replacements").rows
    return next(r for r in rows if r["stage"] == stage and r["replacement"] == replacement and r["against"] == "own")


def test_a_gate_that_must_listen_is_hurt_by_every_replacement():
    result = analysed(listening=True, moving=True)
    assert verdict(result, "encoder / ser") == "the input matters"
    for name in ("task_mean", "uniform", "one_hot_best"):
        assert row(result, name)["loss_change_low"] > 0.01, name
    assert row(result, "one_hot_best")["metric_change_high"] < 0  # half of the utterances speak in the other layer
    assert sum(row(result, "one_hot_best")["layers_chosen"].values()) == 48
    assert row(result, "other_utterance")["loss_change"] > 0
    moving = next(r for r in result.table("logits").rows if r["stage"] == "encoder")
    # a score of 1 on one of two layers in turn: 0.06 of its mean square of 0.16 is the same for all utterances
    assert moving["moving"] == pytest.approx(0.1 / 0.16, abs=0.03) and moving["moving_low"] > 0.2
    assert moving["share_bias"] == pytest.approx(0, abs=1e-6)


def test_a_gate_without_input_is_constant():
    result = analysed(listening=False, moving=True)
    assert verdict(result, "encoder / ser") == "constant: uniform over layers"
    assert row(result, "task_mean")["loss_change"] == pytest.approx(0, abs=1e-6)
    assert row(result, "other_utterance")["loss_change"] == 0
    lm = next(r for r in result.table("logits").rows if r["stage"] == "lm")
    assert lm["share_bias"] == pytest.approx(1) and lm["moving"] == 0
    assert verdict(result, "lm / ser") == "constant: the same for every utterance"


def test_where_one_layer_carries_everything_the_best_layer_is_that_one():
    result = analysed(listening=True, moving=False)
    best = row(result, "one_hot_best")
    assert best["layers_chosen"] == {str(K): 48} and best["n"] == 48 and best["speakers"] == 8


def test_the_reference_never_comes_from_the_same_speaker():
    rows = pd.DataFrame(
        {
            "utterance": ["a", "b", "c"],
            "speaker": ["x", "x", "y"],
            "alpha": [[1.0, 0.0], [0.0, 1.0], [0.25, 0.75]],
            "one_hot_loss": [[1.0, 2.0], [1.0, 2.0], [3.0, 0.0]],
        }
    )
    reference = Reference(rows)
    assert reference.mean_alpha("a", "x").tolist() == [0.25, 0.75] and reference.best_layer("a", "x") == 1
    assert reference.mean_alpha("c", "y").tolist() == [0.5, 0.5] and reference.best_layer("c", "y") == 0
    alone = Reference(rows[:2])  # one speaker: another utterance then
    assert alone.mean_alpha("a", "x").tolist() == [0.0, 1.0] and Reference(rows[:1]).best_layer("a", "x") is None


def test_the_other_task_is_its_own_gate_on_the_same_speech():
    again = TaskConfig("mood", labels=("good", "bad"), prompts=("Which mood?",))
    model = planted_model(UNIFORM, tasks=(SER, again))
    with torch.no_grad():
        model.gate.logits[1] = torch.arange(5.0)
        model.fusion.task_bias[1] = torch.arange(5.0, 0.0, -1)
    batch = planted_batches(2, 1)[0]
    forced = ForcedTask(model, batch, "ser")
    found = {name: alpha for name, alpha, _ in replacements(forced, "encoder", AnalysisOptions())}
    assert torch.allclose(found["task:mood"], torch.arange(5.0).softmax(0).expand(16, 5))
    found = {name: alpha for name, alpha, _ in replacements(forced, "lm", AnalysisOptions())}
    assert torch.allclose(found["task:mood"], torch.arange(5.0, 0.0, -1).softmax(0).expand(16, 5))
    assert set(found) == {"uniform", "other_utterance", "task:mood"}  # without a survey neither mean nor best


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.02, 0.3, "the input matters"),
        (-0.3, -0.02, "the input misleads"),
        (-0.005, 0.009, "the input makes no difference"),
        (-0.005, 0.011, "undecided"),
        (None, None, "undecided"),
    ],
)
def test_verdicts_by_hand(low, high, words):
    assert judged({"loss": 1.0, "loss_change_low": low, "loss_change_high": high}) == words
