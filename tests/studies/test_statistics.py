"""Scores and differences over speakers and seeds: by hand, against the metrics of a single run, and under the null."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from harmonifuse_core.metrics import classification_report
from harmonifuse_core.studies.statistics import counts_of, difference, metric_values, score, seed_range, shared

LABELS = ("neutral", "happy", "sad")


def text_rows(errors: dict[int, list[int]], words: int = 10) -> pd.DataFrame:
    """{seed: errors of utterances 0, 1, ...}, two utterances a speaker."""
    rows = [
        {"seed": seed, "utterance": f"u{i}", "speaker": f"s{i // 2}", "errors": e, "words": words, "reference": "x"}
        for seed, values in errors.items()
        for i, e in enumerate(values)
    ]
    return pd.DataFrame(rows)


def class_rows(rng, seeds=(0, 1, 2), speakers: int = 8, each: int = 6, right: float = 0.6) -> pd.DataFrame:
    rows = []
    for seed in seeds:
        for i in range(speakers * each):
            reference = LABELS[i % 3]
            correct = bool(rng.random() < right)
            prediction = reference if correct else LABELS[(i + 1) % 3]
            rows.append(
                {"seed": seed, "utterance": f"u{i}", "speaker": f"s{i // each}", "reference": reference,
                 "prediction": prediction, "correct": correct}
            )  # fmt: skip
    return pd.DataFrame(rows)


def test_wer_is_of_the_corpus_and_its_mean_is_over_seeds():
    found = score(text_rows({0: [1, 2, 3, 4], 1: [2, 2, 4, 8], 5: [0, 0, 0, 0]}), "wer")
    assert found.per_seed == pytest.approx({0: 0.25, 1: 0.4, 5: 0.0}) and found.value == pytest.approx(0.65 / 3)
    assert (found.utterances, found.clusters) == (4, 2) and found.sd == pytest.approx(np.std([0.25, 0.4, 0], ddof=1))
    assert found.speakers.low == pytest.approx((0.15 + 0.2 + 0) / 3)  # both draws are the better speaker
    half = stats.t.ppf(0.975, 2) * found.sd / 3**0.5
    assert (found.seeds.low, found.seeds.high) == pytest.approx((found.value - half, found.value + half))


def test_utterances_weigh_by_their_words():
    rows = text_rows({0: [1, 0, 0, 0], 1: [1, 0, 0, 0]})
    rows["words"] = [7, 1, 1, 1] * 2
    assert score(rows, "wer").value == pytest.approx(0.1)


def test_one_seed_has_no_interval_over_seeds_and_no_test():
    rows, better = text_rows({3: [4, 4, 4, 6]}), text_rows({3: [1, 1, 1, 1]})
    assert score(rows, "wer").seeds.low is None and score(rows, "wer").sd is None
    found = difference(better, rows, "wer")
    assert found.benefit == pytest.approx(0.35) and found.p_value is None and found.both.low is None
    assert found.p_speakers < 0.05 and found.speakers.low > 0
    assert seed_range([0.5]).low is None


def test_ua_and_wa_of_one_seed_are_those_of_a_report():
    rows = class_rows(np.random.default_rng(0), seeds=(0,))
    report = classification_report(
        rows["reference"].map(LABELS.index), np.eye(3)[rows["prediction"].map(LABELS.index)], LABELS, rows["speaker"]
    )
    ua, wa = score(rows, "ua"), score(rows, "wa")
    assert ua.value == pytest.approx(report.ua) and wa.value == pytest.approx(report.wa)
    assert (ua.speakers.low, ua.speakers.high) == pytest.approx(report.ua_ci)
    assert (wa.speakers.low, wa.speakers.high) == pytest.approx(report.wa_ci)


def test_a_difference_is_paired_by_seed_and_utterance_whatever_the_order():
    rng = np.random.default_rng(1)
    a, b = class_rows(rng), class_rows(rng, right=0.5)
    found = difference(a, b, "ua")
    again = difference(a.sample(frac=1, random_state=0), b.sample(frac=1, random_state=1), "ua")
    assert found == again
    assert found.benefit == pytest.approx(score(a, "ua").value - score(b, "ua").value)
    swapped = difference(b, a, "ua")
    assert swapped.benefit == -found.benefit and swapped.p_value == pytest.approx(found.p_value)


def test_only_shared_seeds_and_utterances_count():
    a, b = text_rows({0: [1, 1, 1, 1], 1: [1, 1, 1, 1], 2: [9, 9, 9, 9]}), text_rows({0: [3, 3, 3, 3], 1: [2, 2, 2, 2]})
    found = difference(a, b[b["utterance"] != "u3"], "wer")
    assert found.per_seed == pytest.approx({0: 0.2, 1: 0.1}) and found.utterances == 3
    with pytest.raises(ValueError, match="share no utterance"):
        shared([a[a["seed"] == 2], b])


def test_a_row_that_stands_twice_is_refused():
    rows = text_rows({0: [1, 1], 1: [1, 1]})
    with pytest.raises(ValueError, match="5 rows for 2 utterances x 2 seeds"):
        counts_of(pd.concat([rows, rows[:1]]), "wer", ["u0", "u1"], [0, 1], ())


def test_the_variance_adds_speakers_and_seeds():
    """Seeds differ and speakers do not: the test is the paired t test over seeds."""
    benefits = {0: 2, 1: 3, 2: 5}
    a = text_rows({seed: [10 - b] * 8 for seed, b in benefits.items()})
    b = text_rows({seed: [10] * 8 for seed in benefits})
    found = difference(a, b, "wer")
    expected = stats.ttest_1samp([0.2, 0.3, 0.5], 0)
    assert found.p_value == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval()
    assert (found.both.low, found.both.high) == pytest.approx((interval.low, interval.high))
    against = difference(a, b, "wer", shift=-0.1)
    assert against.p_value == pytest.approx(stats.ttest_1samp([0.2, 0.3, 0.5], -0.1).pvalue)
    assert (against.both, against.benefit) == (found.both, found.benefit)


def test_speakers_alone_when_all_seeds_agree():
    a = text_rows({seed: [5, 5, 7, 7, 1, 1, 4, 4] for seed in (0, 1, 2)})
    b = text_rows({seed: [8] * 8 for seed in (0, 1, 2)})
    found = difference(a, b, "wer", resamples=20000)
    per_speaker = np.array([0.3, 0.1, 0.7, 0.4])
    spread = per_speaker.std(ddof=1) / 2  # standard error of a mean of 4: the t test over speakers
    half = stats.t.ppf(0.975, 3) * spread
    assert found.both.low == pytest.approx(per_speaker.mean() - half, rel=0.02)
    assert found.p_value == pytest.approx(2 * stats.t.sf(per_speaker.mean() / spread, 3), rel=0.05)


def test_equal_systems_are_a_tie_with_certainty():
    rows = class_rows(np.random.default_rng(2))
    found = difference(rows, rows.copy(), "ua")
    assert found.benefit == 0 and found.p_value == 1 and (found.both.low, found.both.high) == (0, 0)


def test_under_the_null_the_test_rejects_as_rarely_as_it_says():
    """Systems whose speakers and seeds vary, none truly better: at most 5 % (here 4 standard errors above) rejected."""
    rng, rejected, runs = np.random.default_rng(3), 0, 200
    for _ in range(runs):
        frames = []
        for _ in range(2):
            hard = rng.normal(0, 2, 12)[None, :].repeat(3, 0) + rng.normal(0, 1, (3, 1)) + rng.normal(0, 1, (3, 12))
            errors = np.clip(np.round(20 + hard.repeat(2, 1)), 0, None).astype(int)
            frames.append(text_rows({seed: list(errors[seed]) for seed in range(3)}, words=50))
        rejected += difference(*frames, "wer", resamples=200).p_value < 0.05
    assert rejected <= runs * 0.05 + 4 * (runs * 0.05 * 0.95) ** 0.5


def test_metric_values_by_hand():
    assert metric_values(np.array([[3.0, 4.0], [0.0, 0.0]]), "wer")[0] == 0.75
    assert np.isnan(metric_values(np.array([0.0, 0.0]), "wer"))
    sums = np.array([4.0, 2.0, 0.0, 3.0, 1.0, 0.0])  # supports 4, 2, 0; hits 3, 1, 0
    assert metric_values(sums, "ua") == pytest.approx((0.75 + 0.5) / 2) and metric_values(sums, "wa") == pytest.approx(
        4 / 6
    )
