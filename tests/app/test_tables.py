"""Comparison, tables, checks and exports: pure functions between the model's answers and the page."""

import io
import json

import numpy as np
import pandas as pd
import pytest

from app import checks, exports, palette, tables
from app.comparison import ADDED, REMOVED, SAME, compare, word_difference
from app.figures import weights
from harmonifuse_core.config import Config
from harmonifuse_core.model.harmonifuse import HarmoniFuseOutput, LayerWeights


def layer_weights(*alpha: float) -> LayerWeights:
    row = np.array(alpha, np.float32)
    return LayerWeights(row, np.log(row), np.zeros_like(row), row)


def transcript(text: str, alpha=(0.2, 0.8)) -> HarmoniFuseOutput:
    weights_ = layer_weights(*alpha)
    per_token = LayerWeights(*(np.stack([getattr(weights_, n)] * 2) for n in ("alpha", "bias", "score", "share")))
    logprobs = np.log(np.array([0.5, 0.25], np.float32))
    return HarmoniFuseOutput("asr", "p", layer_weights(0.5, 0.5), weights_, text=text, tokens=(" a", "b"),
                             token_logprobs=logprobs, token_weights=per_token)  # fmt: skip


def emotion(happy: float, alpha=(0.6, 0.4)) -> HarmoniFuseOutput:
    return HarmoniFuseOutput("ser", "p", layer_weights(0.9, 0.1), layer_weights(*alpha), label="happy",
                             probabilities={"happy": happy, "sad": 1 - happy})  # fmt: skip


def test_word_difference_by_hand():
    assert word_difference("the red dog ran", "the big dog ran home") == (
        (SAME, "the"), (REMOVED, "red"), (ADDED, "big"), (SAME, "dog"), (SAME, "ran"), (ADDED, "home"),
    )  # fmt: skip
    assert word_difference("", "") == ()


def test_compare_measures_the_lm_and_leaves_an_equal_encoder_at_zero():
    change = compare(transcript("one two"), transcript("one three", alpha=(0.5, 0.5)))
    assert change.encoder.largest == change.encoder.divergence == 0
    assert change.lm.difference == pytest.approx([0.3, -0.3])
    assert change.lm.divergence == pytest.approx(0.0731, abs=1e-3)
    assert change.text_changed and change.probabilities is None


def test_compare_of_classes_is_edited_minus_default():
    change = compare(emotion(0.5), emotion(0.75))
    assert change.probabilities == {"happy": 0.25, "sad": -0.25}
    with pytest.raises(ValueError, match="give one task"):
        compare(emotion(0.5), transcript("x"))


def test_weights_table_has_every_number_once():
    table = tables.weights_table({"asr": transcript("x"), "ser": emotion(0.5)})
    assert len(table) == 2 * 2 * 2
    row = table[(table.task == "ser") & (table.stage == "encoder") & (table.layer == 0)].iloc[0]
    assert (row.state, row.alpha) == ("input", pytest.approx(0.9))
    grid = tables.weights_grid({"asr": transcript("x"), "ser": emotion(0.5)}, "lm", "alpha")
    assert grid.ravel().tolist() == pytest.approx(table[table.stage == "lm"].alpha.tolist())


def test_token_table_gives_probabilities_and_alpha():
    table = tables.token_table(transcript("ab"))
    assert table.probability.tolist() == pytest.approx([0.5, 0.25])
    assert table["alpha input"].tolist() == pytest.approx([0.2, 0.2])


@pytest.mark.parametrize("bad", [None, "x", True, float("nan"), [1]])
def test_missing_numbers_say_so(bad):
    assert tables.number(bad) == tables.percent(bad) == "not available"
    assert tables.interval([bad, 0.2]) == "no interval available"


def test_results_table_reads_what_is_a_result_and_nothing_else():
    asr = {"wer": 0.2, "wer_ci": [0.1, 0.3], "cer": 0.1, "utterances": 5, "speakers": 2, "ci_method": "bootstrap"}
    table = tables.results_table(
        {"test": {"asr": asr, "rtf": 0.1, "environment": {"python": "3"}}, "calibration": {"tasks": {}}}
    )
    assert table.key.tolist() == ["wer", "cer"]
    assert (table.iloc[0].low, table.iloc[0].high, table.iloc[0].utterances) == (0.1, 0.3, 5)
    assert np.isnan(table.iloc[1].low)


def test_training_table_survives_damaged_rows():
    rows = [
        {"step": 1, "tasks": {"asr": {"loss": 2.0}, "ser": "x"}, "dev": {"asr.wer": 0.5}, "lr": "y"},
        {"tasks": {}},
        {},
    ]
    table = tables.training_table(rows)
    assert sorted(zip(table.kind, table.series, table.value, strict=True)) == [
        ("dev", "asr.wer", 0.5),
        ("loss", "asr", 2.0),
    ]


def test_alpha_over_training_leaves_out_what_does_not_fit():
    good = {"step": 10, "tasks": {"asr": {"lm_alpha": [0.4, 0.6]}}}
    rows = [good, {"step": 20, "tasks": {"asr": {"lm_alpha": [1.0]}}}, {"step": 30, "tasks": None}, {"step": 40}]
    steps, alpha = tables.alpha_over_training(rows, "asr", "lm")
    assert steps == [10] and alpha.tolist() == [[0.4, 0.6]]
    assert tables.alpha_over_training(rows, "asr", "encoder")[1].shape == (0, 0)


@pytest.mark.parametrize(("count", "most"), [(0, 5), (3, 5), (5, 5), (1000, 7)])
def test_thinned_keeps_both_ends(count, most):
    kept = tables.thinned(count, most)
    assert len(kept) == min(count, most)
    assert not count or (kept[0], kept[-1]) == (0, count - 1)


def test_checks_of_an_untrained_and_of_a_finished_run():
    levels = {c.text.split(":")[0]: c.level for c in checks.checks(Config(), [], {})}
    assert levels == {"No training log": checks.BAD, "No saved evaluation": checks.BAD}
    alpha = {"loss": 1.0, "encoder_alpha": [0.5, 0.5], "lm_alpha": [0.99, 0.01]}
    metrics = [{"step": 1000, "tasks": {"asr": alpha, "ser": alpha}}]
    result = {
        "test": {"asr": {"wer": 0.1, "speakers": 3}, "ser": {"ua": 0.5, "ece": 0.3, "speakers": 40}, "failed": [{}]}
    }
    texts = " ".join(c.text for c in checks.checks(Config(), metrics, result))
    for part in (
        "last of 1000 steps",
        "1 of 2 results",
        "0.30 on average",
        "1 recordings",
        "nearly uniform",
        "on layer 0",
    ):
        assert part in texts


def test_csv_and_parquet_hold_exactly_the_numbers():
    table = pd.DataFrame({"name": ["=1+1", "x"], "value": [0.1 + 0.2, 1e-9]})
    back = pd.read_csv(io.BytesIO(exports.csv_bytes(table)))
    assert back.value.tolist() == table.value.tolist()
    assert back.name.tolist() == ["'=1+1", "x"]
    pd.testing.assert_frame_equal(pd.read_parquet(io.BytesIO(exports.parquet_bytes(table))), table)


def test_html_is_one_offline_file_with_an_inert_title(hostile):
    figure = weights.task_layers(np.array([[0.5, 0.5]]), ["asr"], 0.5, palette.LIGHT)
    page = exports.html_bytes(hostile, {hostile: figure, "b": figure}, "#fff", "#000").decode()
    assert hostile not in page and "&lt;img" in page
    assert page.count("plotly.js v") == 1 and '<script src="http' not in page


def test_json_has_the_whole_answer():
    value = json.loads(exports.answers_json([transcript("a b"), emotion(0.75)], {"run": "r"}))
    assert value["answers"]["asr"]["text"] == "a b" and len(value["answers"]["asr"]["token_weights"]["alpha"]) == 2
    assert value["answers"]["ser"]["probabilities"] == {"happy": 0.75, "sad": 0.25}
