"""Metrics: exact values by hand and against jiwer and scikit-learn, properties of the bootstrap, calibration."""

import json
import math

import jiwer
import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, f1_score
from sklearn.metrics import log_loss as sklearn_log_loss

from harmonifuse_core import calibration
from harmonifuse_core.metrics import (
    WordErrors,
    classification_report,
    expected_calibration_error,
    fit_temperature,
    holm,
    log_loss,
    normalize_text,
    normalizer_name,
    paired_accuracy_bootstrap,
    paired_bootstrap,
    reliability_bins,
    transcription_report,
    word_errors,
)

LABELS = ("neutral", "happy", "sad")
# Reference 0 0 0 1 1 2, predictions 0 0 1 1 1 0: recalls 2/3, 1, 0.
REFERENCE = [0, 0, 0, 1, 1, 2]
PREDICTED = [0, 0, 1, 1, 1, 0]
SPEAKERS = ["a", "b", "a", "b", "a", "b"]


def substituted(wrong: int, words: int) -> WordErrors:
    """An utterance of `words` words, `wrong` of them substituted."""
    return WordErrors(wrong, 0, 0, words - wrong, words, wrong, 4 * words)


def certain(predicted, classes: int = 3, confidence: float = 0.8) -> np.ndarray:
    """(N, C) rows with `confidence` at the predicted class and the rest spread evenly."""
    rows = np.full((len(predicted), classes), (1 - confidence) / (classes - 1))
    rows[np.arange(len(predicted)), predicted] = confidence
    return rows


# --- text and counts ---


@pytest.mark.parametrize(
    ("normalizer", "text", "expected"),
    [
        ("whisper-english", "Mr. Brown won't pay twenty-one dollars!", "mister brown will not pay $21"),
        ("whisper-english", "Um, hmm", ""),
        ("whisper-english", "The colour", "the colour"),  # no spelling table: not "color"
        ("basic", "  Hello,\tWORLD! [noise]", "hello world"),
        ("none", " Hello,\n WORLD! ", "Hello, WORLD!"),
    ],
)
def test_normalize_text(normalizer, text, expected):
    assert normalize_text(text, normalizer) == expected


def test_normalizer_name_tells_version_and_missing_spelling_map():
    import transformers

    assert normalizer_name("whisper-english") == (
        f"whisper-english without spelling map (transformers {transformers.__version__})"
    )
    assert normalizer_name("basic").startswith("basic (transformers ")
    assert normalizer_name("none") == "none"


def test_unknown_normalizer_and_missing_text_are_refused():
    with pytest.raises(ValueError, match="'fancy' is unknown; use one of whisper-english"):
        word_errors("a", "b", "fancy")
    with pytest.raises(ValueError, match="None is not a string"):
        word_errors(None, "b")


def test_word_errors_by_hand():
    counts = word_errors("the cat sat on the mats", "the bat sat the mats now", "none")
    # cat -> bat, "on" deleted, "now" inserted; characters: c -> b, "on " deleted, " now" inserted.
    assert counts == WordErrors(1, 1, 1, 4, 6, 8, 23, "none")
    assert counts.word_errors == 3


def test_corpus_rates_are_jiwers_and_not_the_mean_of_utterances():
    references = ["the cat sat", "on the mat today my friend", "a"]
    hypotheses = ["the bat sat down", "on mat today my dear friend", "b c d"]
    errors = [word_errors(r, h, "none") for r, h in zip(references, hypotheses, strict=True)]
    report = transcription_report(errors, ["s1", "s2", "s3"], resamples=50)
    assert report.wer == pytest.approx(jiwer.wer(references, hypotheses)) == pytest.approx(7 / 10)
    assert report.cer == pytest.approx(jiwer.cer(references, hypotheses))
    assert report.wer != pytest.approx(np.mean([e.word_errors / e.reference_words for e in errors]))


def test_empty_reference_counts_insertions():
    assert word_errors("", "my words") == WordErrors(0, 0, 2, 0, 0, 8, 0, normalizer_name())
    assert word_errors("um", "") == WordErrors(0, 0, 0, 0, 0, 0, 0, normalizer_name())


def test_empty_hypothesis_counts_deletions():
    assert word_errors("some words", "") == WordErrors(0, 2, 0, 0, 2, 10, 10, normalizer_name())


def test_impossible_counts_are_refused():
    with pytest.raises(ValueError, match="hits 1 .* is not reference_words 3"):
        WordErrors(1, 0, 0, 1, 3, 0, 9)
    with pytest.raises(ValueError, match="insertions -1 is negative"):
        WordErrors(0, 0, -1, 1, 1, 0, 3)
    with pytest.raises(ValueError, match="reference_characters 0 is below"):
        WordErrors(0, 0, 0, 1, 1, 0, 0)


# --- transcription report ---


def test_transcription_report_as_dict():
    errors = [
        word_errors("a b c d", "a x c", "none"),
        word_errors("a b", "a b b", "none"),
        word_errors("", "a", "none"),
    ]
    plain = transcription_report(errors, ["s1", "s2", "s2"], resamples=300, seed=7).as_dict()
    assert set(plain) == {
        "wer", "wer_ci", "cer", "substitutions", "deletions", "insertions", "words", "utterances", "normalizer",
        "speakers", "resamples", "seed", "ci_method",
    }  # fmt: skip
    assert plain["wer"] == pytest.approx(4 / 6)
    counts = ("substitutions", "deletions", "insertions", "words", "utterances", "speakers", "resamples", "seed")
    assert [plain[k] for k in counts] == [1, 1, 2, 6, 3, 2, 300, 7]
    # Speaker s1 has 2 errors in 4 words, s2 2 in 2: draws are 0.5, 4/6 or 1.
    assert plain["wer_ci"] == [pytest.approx(0.5), pytest.approx(1.0)]
    assert plain["normalizer"] == "none" and "2 only: likely too narrow" in plain["ci_method"]
    assert json.loads(json.dumps(plain)) == plain


def test_interval_contains_the_estimate_and_narrows_with_speakers():
    rng = np.random.default_rng(0)
    widths = []
    for count in (20, 320):
        errors = [substituted(int(rng.binomial(50, p)), 50) for p in rng.beta(2, 10, count)]
        report = transcription_report(errors, [f"s{k}" for k in range(count)], resamples=400)
        assert report.wer_ci[0] < report.wer < report.wer_ci[1]
        assert report.ci_method == "percentile bootstrap over speakers"
        widths.append(report.wer_ci[1] - report.wer_ci[0])
    assert 2 < widths[0] / widths[1] < 8  # sixteen times the speakers: about a quarter of the width


def test_identical_speakers_give_zero_width():
    errors = [substituted(1, 7), substituted(2, 5)] * 6
    report = transcription_report(errors, [f"s{k // 2}" for k in range(12)], resamples=200)
    assert report.wer == report.wer_ci[0] == report.wer_ci[1] == 3 / 12
    scores = classification_report(REFERENCE * 4, certain(PREDICTED * 4), LABELS, [f"s{k // 6}" for k in range(24)])
    assert scores.ua_ci == (scores.ua, scores.ua) and scores.wa_ci == (scores.wa, scores.wa)


def test_same_seed_same_interval():
    errors = [substituted(k % 7, 10) for k in range(40)]
    speakers = [f"s{k % 8}" for k in range(40)]
    first, again, other = (transcription_report(errors, speakers, resamples=200, seed=s) for s in (3, 3, 4))
    assert first == again
    assert first.wer_ci != other.wer_ci and first.wer == other.wer


def test_memory_chunks_leave_the_distribution_as_it_is(monkeypatch):
    errors = [substituted(k % 7, 10) for k in range(60)]
    speakers = [f"s{k}" for k in range(60)]
    whole = transcription_report(errors, speakers, resamples=2000)
    monkeypatch.setattr("harmonifuse_core.bootstrap._WEIGHTS_IN_MEMORY", 60 * 7)
    chunked = transcription_report(errors, speakers, resamples=2000)
    assert chunked.resamples == 2000
    assert chunked.wer_ci == pytest.approx(whole.wer_ci, abs=0.01)


def test_coverage_is_near_the_level():
    rng, covered, runs = np.random.default_rng(11), 0, 250
    speakers = [f"s{k}" for k in range(40)]
    for run in range(runs):
        errors = [substituted(int(rng.binomial(100, p)), 100) for p in rng.beta(2, 18, 40)]  # true WER 0.1
        low, high = transcription_report(errors, speakers, resamples=300, seed=run).wer_ci
        covered += low <= 0.1 <= high
    assert 0.87 < covered / runs < 0.99


def test_speakers_and_not_utterances_are_resampled():
    errors = [substituted(9 if k < 60 else 1, 10) for k in range(120)]  # 6 speakers, three of them hard throughout
    by_speaker = transcription_report(errors, [f"s{k // 20}" for k in range(120)], resamples=500).wer_ci
    by_utterance = transcription_report(errors, [f"u{k}" for k in range(120)], resamples=500).wer_ci
    assert by_speaker[1] - by_speaker[0] > 3 * (by_utterance[1] - by_utterance[0])


def test_one_speaker_falls_back_to_utterances_and_says_so():
    report = transcription_report([substituted(k % 4, 10) for k in range(30)], ["only"] * 30, resamples=300)
    assert "over utterances (one speaker only" in report.ci_method
    assert report.speakers == 1 and report.wer_ci[0] < report.wer < report.wer_ci[1]


def test_one_utterance_has_no_interval():
    report = transcription_report([substituted(1, 10)], ["only"])
    assert report.wer == 0.1 and report.wer_ci == (None, None)
    assert report.ci_method.startswith("not available")


def test_draws_without_reference_words_are_left_out():
    silent = word_errors("", "noise", "none")
    report = transcription_report([silent, word_errors("a b", "a", "none")], ["s1", "s2"], resamples=400)
    assert report.wer == 1.0
    assert 200 < report.resamples < 400 and np.isfinite(report.wer_ci).all()


@pytest.mark.parametrize(
    ("errors", "speakers", "message"),
    [
        ([], [], "0 utterances"),
        ([substituted(1, 2)], ["a", "b"], "2 speakers but 1 utterances"),
        ([substituted(1, 2)] * 2, ["a", ""], "speaker '' at position 1"),
        ([substituted(1, 2)] * 2, ["a", None], "speaker None at position 1"),
        ([substituted(1, 2)] * 2, [math.nan, "a"], "speaker nan at position 0"),
        ([WordErrors(0, 0, 1, 0, 0, 1, 0)], ["a"], "0 reference words"),
        ([word_errors("a", "a", "none"), word_errors("a", "a", "basic")], ["a", "b"], "several normalisers"),
    ],
)
def test_transcription_report_refuses(errors, speakers, message):
    with pytest.raises(ValueError, match=message):
        transcription_report(errors, speakers)


# --- classification report ---


def test_classification_report_by_hand_and_against_sklearn():
    plain = classification_report(REFERENCE, certain(PREDICTED), LABELS, SPEAKERS, resamples=100).as_dict()
    assert plain["ua"] == pytest.approx(5 / 9) == pytest.approx(balanced_accuracy_score(REFERENCE, PREDICTED))
    assert plain["wa"] == pytest.approx(4 / 6) == pytest.approx(accuracy_score(REFERENCE, PREDICTED))
    assert plain["macro_f1"] == pytest.approx(f1_score(REFERENCE, PREDICTED, average="macro"))
    assert plain["confusion"] == [[2, 1, 0], [0, 2, 0], [1, 0, 0]] == confusion_matrix(REFERENCE, PREDICTED).tolist()
    assert plain["per_class_recall"] == {"neutral": pytest.approx(2 / 3), "happy": 1.0, "sad": 0.0}
    assert plain["ece"] == pytest.approx(0.8 - 4 / 6)
    assert sum(b["count"] for b in plain["reliability"]) == plain["utterances"]
    assert sum(b["count"] * b["accuracy"] for b in plain["reliability"] if b["count"]) == pytest.approx(4)
    assert (plain["utterances"], plain["speakers"], plain["labels"]) == (6, 2, list(LABELS))
    assert json.loads(json.dumps(plain)) == plain


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_random_scores_match_sklearn_with_absent_classes():
    rng = np.random.default_rng(5)
    reference = rng.choice([0, 2, 3], 200)  # classes 1 and 5 never, class 4 only predicted
    probabilities = rng.dirichlet(np.ones(6), 200) * [1, 0.01, 1, 1, 1, 0.0]
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    predicted = probabilities.argmax(axis=1)
    assert 4 in predicted and not np.isin(predicted, [1, 5]).any()
    report = classification_report(reference, probabilities, "abcdef", [f"s{k % 25}" for k in range(200)])
    assert report.ua == pytest.approx(balanced_accuracy_score(reference, predicted))
    assert report.macro_f1 == pytest.approx(f1_score(reference, predicted, average="macro"))
    assert report.per_class_recall["b"] is None and report.per_class_recall["e"] is None
    assert report.ua_ci[0] < report.ua < report.ua_ci[1] and report.wa_ci[0] < report.wa < report.wa_ci[1]


def test_resampled_ua_is_over_the_classes_present():
    # Speaker a holds class 0 alone, always right; speaker b class 1 alone, always wrong: UA is 1, 0.5 or 0 by draw.
    report = classification_report([0, 0, 1, 1], certain([0, 0, 0, 0], 2), "xy", ["a", "a", "b", "b"], resamples=500)
    assert report.ua == 0.5 and report.ua_ci == (0.0, 1.0)


def test_one_speaker_classification_falls_back_to_utterances():
    report = classification_report(REFERENCE * 5, certain(PREDICTED * 5), LABELS, ["only"] * 30)
    assert "over utterances (one speaker only" in report.ci_method
    assert report.wa_ci[0] < report.wa < report.wa_ci[1]


@pytest.mark.parametrize(
    ("reference", "probabilities", "labels", "message"),
    [
        ([], np.zeros((0, 3)), LABELS, "shape"),
        ([0, 1], certain([0]), LABELS, "2 references but 1 rows"),
        ([0], [[np.nan, 0.5, 0.5]], LABELS, "row 0 are not finite"),
        ([0, 0], [[1, 0, 0], [0.5, 0.4, 0.4]], LABELS, "row 1 is not a distribution.*softmax"),
        ([0], [[1.5, -0.5, 0.0]], LABELS, "row 0 is not a distribution"),
        ([3], certain([0]), LABELS, r"class index 3 at position 0 is outside \[0, 3\)"),
        ([-1], certain([0]), LABELS, "class index -1"),
        ([0.0], certain([0]), LABELS, "dtype float64"),
        ([0], certain([0]), ("a", "b"), "for 3 columns"),
        ([0], certain([0]), ("a", "b", "b"), "one distinct label"),
    ],
)
def test_classification_report_refuses(reference, probabilities, labels, message):
    with pytest.raises(ValueError, match=message):
        classification_report(reference, probabilities, labels, ["s"] * len(reference))


# --- calibration ---


def planted(utterances: int = 20_000, classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, C) and references drawn from their very softmax: calibrated by construction."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (utterances, classes))
    cumulative = softmax(logits, axis=1).cumsum(axis=1)
    return logits, (rng.random((utterances, 1)) > cumulative[:, :-1]).sum(axis=1)


def test_ece_is_near_zero_when_calibrated_and_large_when_overconfident():
    logits, reference = planted()
    assert expected_calibration_error(reference, softmax(logits, axis=1)) < 0.02
    assert expected_calibration_error(reference, softmax(8 * logits, axis=1)) > 0.15
    assert expected_calibration_error([0, 1] * 50, certain([0] * 100, 2, 1.0)) == pytest.approx(0.5)


def test_reliability_bins_by_hand():
    probabilities = [[0.75, 0.25], [0.625, 0.375], [1.0, 0.0]]
    bins = reliability_bins([0, 0, 1], probabilities, bins=4)
    assert [b.count for b in bins] == [0, 0, 2, 1]  # 0.75 closes the third bin
    assert (bins[0].confidence, bins[0].accuracy, bins[0].low, bins[3].high) == (None, None, 0.0, 1.0)
    assert (bins[2].confidence, bins[2].accuracy) == (0.6875, 1.0)
    assert (bins[3].confidence, bins[3].accuracy) == (1.0, 0.0)
    assert expected_calibration_error([0, 0, 1], probabilities, bins=4) == pytest.approx((2 * 0.3125 + 1.0) / 3)
    with pytest.raises(ValueError, match="bins 0"):
        reliability_bins([0], [[1.0, 0.0]], bins=0)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_fit_recovers_a_planted_temperature(temperature):
    logits, reference = planted()
    fitted = fit_temperature(logits * temperature, reference)
    assert fitted == pytest.approx(temperature, rel=0.05)
    scaled = log_loss(reference, softmax(logits * temperature / fitted, axis=1))
    assert scaled <= log_loss(reference, softmax(logits * temperature, axis=1)) + 1e-9


def test_temperature_without_optimum_is_exactly_a_bound():
    logits = np.eye(3) * 4
    assert fit_temperature(logits, [0, 1, 2]) == calibration.TEMPERATURE_BOUNDS[0]
    assert fit_temperature(logits, [1, 2, 0]) == calibration.TEMPERATURE_BOUNDS[1]
    assert fit_temperature(np.zeros((3, 3)), [0, 1, 2]) == calibration.TEMPERATURE_BOUNDS[1]


def test_fit_temperature_refuses():
    with pytest.raises(ValueError, match="logits of row 1 are not finite"):
        fit_temperature([[0.0, 1.0], [0.0, -math.inf]], [0, 1])
    with pytest.raises(ValueError, match="3 references but 2 rows of logits"):
        fit_temperature(np.zeros((2, 2)), [0, 1, 0])


def test_log_loss_matches_sklearn_and_stays_finite():
    logits, reference = planted(200)
    probabilities = softmax(logits, axis=1)
    assert log_loss(reference, probabilities) == pytest.approx(sklearn_log_loss(reference, probabilities))
    assert log_loss([1], [[1.0, 0.0]]) == pytest.approx(36.04, abs=0.01)


# --- comparisons ---


def test_paired_bootstrap_sees_a_constant_gain_that_single_intervals_hide():
    rng = np.random.default_rng(2)
    b = [int(n) for n in rng.integers(5, 60, 30)]
    a = [n - 2 - int(rng.integers(0, 3)) for n in b]  # every speaker 2 to 4 words better
    errors_a, errors_b = ([substituted(n, 100) for n in wrong] for wrong in (a, b))
    speakers = [f"s{k}" for k in range(30)]
    found = paired_bootstrap(errors_a, errors_b, speakers)
    assert found.difference.value == pytest.approx((sum(a) - sum(b)) / 3000)
    assert found.difference.high < 0 and found.p_value < 0.01 and found.difference.clusters == 30
    alone_a, alone_b = (transcription_report(e, speakers) for e in (errors_a, errors_b))
    assert alone_a.wer_ci[1] > alone_b.wer_ci[0]  # unpaired, the intervals overlap


def test_a_system_against_itself_has_p_one():
    errors = [substituted(k % 4, 10) for k in range(20)]
    found = paired_bootstrap(errors, errors, [f"s{k}" for k in range(20)])
    assert (found.difference.value, found.difference.low, found.difference.high, found.p_value) == (0, 0, 0, 1.0)
    assert paired_bootstrap(errors[:1], errors[:1], ["s"]).p_value is None


def test_p_values_of_equal_systems_are_seldom_small():
    rng, small, runs = np.random.default_rng(3), 0, 200
    for run in range(runs):
        rates = rng.beta(2, 18, 40)
        a, b = ([substituted(int(rng.binomial(50, p)), 50) for p in rates] for _ in range(2))
        small += paired_bootstrap(a, b, [f"s{k}" for k in range(40)], resamples=200, seed=run).p_value < 0.05
    assert 0 < small / runs < 0.13


def test_paired_accuracy_bootstrap_by_metric():
    speakers = [f"s{k // 6}" for k in range(60)]
    right = REFERENCE * 10
    ua = paired_accuracy_bootstrap(right, right, PREDICTED * 10, speakers)
    wa = paired_accuracy_bootstrap(right, PREDICTED * 10, right, speakers, metric="wa")
    assert (ua.metric, ua.difference.value) == ("ua", pytest.approx(1 - 5 / 9))
    assert (wa.metric, wa.difference.value) == ("wa", pytest.approx(4 / 6 - 1))
    assert ua.difference.low > 0 > wa.difference.high and ua.p_value < 0.01


def test_the_same_recalls_in_another_order_are_a_tie():
    # Ten utterances a class: A has recalls 0.1 0.2 0.3 and B 0.3 0.2 0.1, whose floating-point sums differ.
    reference = np.repeat([0, 1, 2], 10)
    a, b = (
        np.concatenate([[c] * n + [(c + 1) % 3] * (10 - n) for c, n in enumerate(right)])
        for right in ((1, 2, 3), (3, 2, 1))
    )
    speakers = [f"s{k // 30}" for k in range(120)]
    found = paired_accuracy_bootstrap(np.tile(reference, 4), np.tile(a, 4), np.tile(b, 4), speakers)
    assert (found.difference.value, found.difference.low, found.difference.high, found.p_value) == (0, 0, 0, 1.0)


def test_p_value_of_two_speakers_by_hand():
    # A is better on one speaker and equal on the other: a quarter of the draws take the equal one twice, p = 2 / 4.
    a, b = [substituted(1, 10), substituted(4, 10)], [substituted(3, 10), substituted(4, 10)]
    found = paired_bootstrap(a, b, ["s1", "s2"], resamples=4000)
    assert found.difference.value == pytest.approx(-0.1) and found.p_value == pytest.approx(0.5, abs=0.05)
    assert paired_bootstrap(b, a, ["s1", "s2"], resamples=4000).p_value == found.p_value


def test_paired_inputs_are_checked():
    with pytest.raises(ValueError, match="1 utterances of A but 2 of B"):
        paired_bootstrap([substituted(1, 5)], [substituted(1, 5)] * 2, ["a"])
    with pytest.raises(ValueError, match="utterance 0 has 5 reference words in A but 6 in B"):
        paired_bootstrap([substituted(1, 5)], [substituted(1, 6)], ["a"])
    with pytest.raises(ValueError, match="lengths of reference, A and B differ"):
        paired_accuracy_bootstrap([0, 1], [0, 1], [0], ["a", "b"])
    with pytest.raises(ValueError, match="metric 'f1' is unknown"):
        paired_accuracy_bootstrap([0], [0], [0], ["a"], metric="f1")
    with pytest.raises(ValueError, match="resamples 0"):
        paired_bootstrap([substituted(1, 5)] * 2, [substituted(1, 5)] * 2, ["a", "b"], resamples=0)


def test_holm_worked_example():
    # Sorted 0.005 0.01 0.03 0.04, times 4 3 2 1: 0.02 0.03 0.06 0.04, the last raised to 0.06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    for wrong in ([], [0.1, math.nan], [1.2]):
        with pytest.raises(ValueError, match="p values"):
            holm(wrong)
