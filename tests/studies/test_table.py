"""Tables and verdicts from planted rows: true differences, ties, tolerated losses, unfinished studies."""

import numpy as np
import pandas as pd
import pytest

from harmonifuse_core.bootstrap import holm
from harmonifuse_core.fields import to_dict
from harmonifuse_core.studies.plan import Claim, Contrast, EvaluationSet, Study, System
from harmonifuse_core.studies.report import study_card
from harmonifuse_core.studies.rows import SCHEMAS, StudyRows, _frame
from harmonifuse_core.studies.statistics import Difference, Range
from harmonifuse_core.studies.table import missing_cells, study_result
from harmonifuse_core.studies.verdicts import (
    NOT_SUPPORTED,
    SUPPORTED,
    UNDECIDED,
    claim_verdict,
    verdict_of,
)

SPEAKERS, EACH, SEEDS = 12, 5, (0, 1, 2)
RECORD = {"cells_done": 1, "cells_expected": 2, "again": "run it", "table_again": "table it"}


def claim(name: str, system: str, **fields) -> Claim:
    return Claim(name, f"{name}.", (Contrast(system, "plain", "asr", **fields),))


def study() -> Study:
    from factories import tiny_config

    return Study(
        "s", to_dict(tiny_config()), tuple(System(n) for n in ("plain", "better", "alike", "worse")),
        (EvaluationSet("e", ("asr", "ser"), "m.jsonl"),),
        (claim("gain", "better"), claim("tie", "alike"), claim("harm", "worse"),
         claim("tolerated", "alike", expect="not worse", margin=0.05),
         claim("not-tolerated", "worse", expect="not worse", margin=0.05),
         claim("too-small", "alike", margin=0.08)),
        SEEDS,
    )  # fmt: skip


def planted_rows(plan: Study, effects: dict[str, float], leave_out=()) -> StudyRows:
    """Of 10 words an utterance, `effects` share errors on average; speakers, seeds and utterances vary."""
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 1, SPEAKERS)
    cells, utterances, alphas = [], [], []
    for cell in plan.cells():
        if cell.name in leave_out:
            continue
        owner = {"cell": cell.name, "system": cell.system.name, "seed": cell.seed}
        drift = rng.normal(0, 0.1)
        cells.append(
            owner | {"config_hash": cell.key, "tasks": "asr,ser", "losses": "{}", "failed": "[]", "date": "",
                     "steps": 1, "parameters": 2, "trainable": 1, "threads": 1, "train_seconds": 1.0,
                     "train_cpu_seconds": 2.0, "evaluate_seconds": 0.5, "speech_seconds": 60.0}
        )  # fmt: skip
        for i in range(SPEAKERS * EACH):
            errors = 10 * effects[cell.system.name] + hard[i // EACH] + drift + rng.normal(0, 1)
            row = owner | {"evaluation": "e", "utterance": f"u{i:03d}", "speaker": f"s{i // EACH:02d}"}
            utterances.append(
                row | {"task": "asr", "errors": int(np.clip(round(errors), 0, 10)), "words": 10, "reference": "a b",
                       "prediction": "a"}
            )  # fmt: skip
            utterances.append(row | {"task": "ser", "reference": "sad", "prediction": "sad", "correct": True})
        for stage in ("encoder", "lm"):
            alphas.append(
                owner | {"evaluation": "e", "task": "asr", "stage": stage, "alpha": [0.25, 0.75 - cell.seed / 100],
                         "share": [0.5, 0.5], "bias": [0.0, 1.0], "alpha_std": [0.0, 0.0], "utterances": 60}
            )  # fmt: skip
    return StudyRows(
        *(_frame(rows, kind) for rows, kind in ((cells, "cells"), (utterances, "utterances"), (alphas, "alphas")))
    )


@pytest.fixture(scope="module")
def plan() -> Study:
    return study()


EFFECTS = {"plain": 0.4, "better": 0.25, "alike": 0.4, "worse": 0.55}


@pytest.fixture(scope="module")
def result(plan):
    return study_result(plan, planted_rows(plan, EFFECTS), resamples=500)


def test_planted_effects_get_their_verdicts(result):
    verdicts = {row["claim"]: row["verdict"] for row in result.table("claims").rows}
    assert verdicts == {
        "gain": SUPPORTED, "tie": UNDECIDED, "harm": NOT_SUPPORTED, "tolerated": SUPPORTED,
        "not-tolerated": NOT_SUPPORTED, "too-small": NOT_SUPPORTED,
    }  # fmt: skip
    assert [v.verdict for v in result.verdicts] == list(verdicts.values())
    gain = result.table("comparisons").rows[0]
    assert (
        gain["benefit"] == pytest.approx(0.15, abs=0.03)
        and gain["benefit_low"] < gain["benefit"] < gain["benefit_high"]
    )
    assert "benefit +" in result.verdicts[0].evidence and "after Holm" in result.verdicts[0].evidence


def test_p_values_are_corrected_over_the_whole_study(result):
    rows = result.table("comparisons").rows
    assert [r["p_holm"] for r in rows] == pytest.approx(holm([r["p"] for r in rows]))
    assert rows[3]["p"] != rows[1]["p"], "a tolerated loss is another null hypothesis on the same numbers"


def test_scores_alphas_and_costs_are_means_over_seeds(plan, result):
    scores = pd.DataFrame(result.table("scores").rows)
    assert set(scores["metric"]) == {"wer", "ua", "wa"} and (scores["seeds"] == 3).all() and (scores["n"] == 60).all()
    row = scores[(scores["system"] == "plain") & (scores["metric"] == "wer")].iloc[0]
    assert (
        row["value"] == pytest.approx(np.mean(row["per_seed"])) and row["value_low"] < row["value"] < row["value_high"]
    )
    last = next(r for r in result.table("alphas").rows if r["layer"] == 1)
    assert last["alpha"] == pytest.approx(0.74) and last["alpha_sd"] == pytest.approx(0.01)
    assert result.table("costs").rows[0]["train_cpu_seconds"] == 2.0 and result.speakers == SPEAKERS


def test_an_unfinished_study_says_what_is_missing_and_decides_nothing_from_one_seed(plan):
    out = [cell.name for cell in plan.cells() if cell.seed > 0 or cell.system.name == "worse"]
    rows = planted_rows(plan, EFFECTS, out)
    partial = study_result(plan, rows, resamples=200)
    assert (
        [f"{r['system']}.seed-{r['seed']}" for r in partial.table("missing").rows] == out == missing_cells(plan, rows)
    )
    assert {v.verdict for v in partial.verdicts} == {UNDECIDED}
    evidence = {row["claim"]: row["evidence"] for row in partial.table("claims").rows}
    assert "no cells yet" in evidence["harm"] and "at least 2 of each" in evidence["gain"]
    assert "## Missing" in study_card(plan, partial, RECORD)


def test_rows_of_another_config_do_not_count(plan):
    rows = planted_rows(plan, EFFECTS)
    rows.cells.loc[rows.cells["cell"] == "worse.seed-1", "config_hash"] = "old"
    found = study_result(plan, rows, resamples=200)
    assert found.table("missing").rows == (
        {"system": "worse", "seed": 1, "reason": "its rows belong to another config"},
    )
    assert next(r for r in found.table("comparisons").rows if r["system"] == "worse")["seeds"] == 2
    empty = StudyRows(*(_frame([], kind) for kind in SCHEMAS))
    with pytest.raises(ValueError, match="no finished cell"):
        study_result(plan, empty)


def test_a_card_holds_verdicts_numbers_and_the_commands(plan, result):
    card = study_card(plan, result, RECORD)
    for words in ("**supported here**", "**not supported here**", "**undecided at this size**", "run it", "table it"):
        assert words in card
    assert "\n\n\n" not in card and "None" not in card and "nan" not in card


def found(benefit: float, low: float, high: float) -> Difference:
    return Difference("wer", benefit, 0.0, 0.0, {0: 1.0}, Range(), Range(), Range(low, high), 0.5, 0.5, 1, 1)


@pytest.mark.parametrize(
    ("fields", "benefit", "p", "verdict"),
    [
        ({}, 0.1, 0.049, SUPPORTED),
        ({}, 0.1, 0.05, UNDECIDED),
        ({}, -0.1, 0.01, NOT_SUPPORTED),
        ({"margin": 0.5}, 0.1, 0.2, NOT_SUPPORTED),
        ({"margin": 0.11}, 0.1, 0.2, UNDECIDED),
        ({"expect": "not worse", "margin": 0.02}, -0.01, 0.01, SUPPORTED),
        ({"expect": "not worse", "margin": 0.02}, -0.03, 0.01, NOT_SUPPORTED),
        ({"expect": "not worse", "margin": 0.02}, -0.03, 0.2, UNDECIDED),
        ({}, 0.1, None, UNDECIDED),
    ],
)
def test_the_rule_by_hand(fields, benefit, p, verdict):
    assert verdict_of(Contrast("a", "b", "asr", **fields), found(benefit, benefit - 0.2, benefit + 0.2), p) == verdict


def test_a_claim_needs_all_and_falls_with_one():
    assert claim_verdict([SUPPORTED, SUPPORTED]) == SUPPORTED
    assert claim_verdict([SUPPORTED, UNDECIDED]) == UNDECIDED
    assert claim_verdict([UNDECIDED, NOT_SUPPORTED, SUPPORTED]) == NOT_SUPPORTED
