"""Divergence of tasks: alpha is that of `infer`; planted differences are found, noise is not, seeds are compared."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from factories import tiny_config, tiny_model, tone

from harmonifuse_core.analysis.divergence import ANALYSIS, between_utterances, summarise
from harmonifuse_core.analysis.material import Spoken, encode_batch
from harmonifuse_core.analysis.registry import AnalysisOptions, Context, analyses
from harmonifuse_core.analysis.result import write_rows
from harmonifuse_core.config import save_yaml
from harmonifuse_core.data.manifest import Utterance
from harmonifuse_core.inference.predict import predict
from harmonifuse_core.inference.sources import Source
from harmonifuse_core.runs import RunFolder

CLIPS = [tone(0.5 + 0.1 * i, 150 + 40 * i, seed=i) for i in range(4)]
LAYERS = np.array([0.1, 0.2, 0.3, 0.2, 0.2])


def spoken(count=4, targets=None):
    return [
        Spoken(Source(Utterance(f"u{i}", Path(f"u{i}.wav"), speaker=f"s{i // 2}"), f"u{i}.wav"), targets or {}, {})
        for i in range(count)
    ]


def routing(shift=0.0, utterances=48, speakers=16, layers=LAYERS, noise=200.0, seed=0) -> pd.DataFrame:
    """Rows of both stages and tasks; ser has `shift` of the weight of layer 2 moved to layer 4."""
    rng, rows = np.random.default_rng(seed), []
    for stage in ("encoder", "lm"):
        for task in ("asr", "ser"):
            centre = layers.copy()
            if task == "ser":
                centre[2], centre[-1] = centre[2] - shift, centre[-1] + shift
            alphas = rng.dirichlet(noise * centre, utterances)
            for i, alpha in enumerate(alphas):
                row = {"utterance": f"u{i}", "speaker": f"s{i % speakers}", "task": task, "stage": stage}
                rows.append(row | {"alpha": alpha.tolist(), "bias": np.log(centre).tolist()})
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def model():
    return tiny_model("whisper", model__beams=2)


def context(model, **options) -> Context:
    return Context(model, **{"resamples": 300, **options})


def test_alpha_is_what_infer_returns(model):
    with torch.inference_mode():
        rows = pd.DataFrame(ANALYSIS.collect(model, encode_batch(model, spoken(), CLIPS), AnalysisOptions()))
    assert len(rows) == 4 * 2 * 2
    answers = predict(model, CLIPS)
    for row in rows.itertuples():
        answer = answers[int(row.utterance[1:])][row.task]
        weights = answer.encoder if row.stage == "encoder" else answer.lm
        assert np.abs(np.array(row.alpha) - weights.alpha).max() < 1e-6
        assert row.prediction == (answer.text if answer.label is None else answer.label)
    result = summarise(rows, context(model))
    assert result.utterances == 4 and {r["stage"] for r in result.table("pairs").rows} == {"encoder", "lm"}


def test_it_is_in_the_registry():
    assert analyses(["divergence"]) == [ANALYSIS]


def test_a_planted_difference_is_found_with_its_size(model):
    result = summarise(routing(shift=0.2), context(model))
    row = result.table("pairs").rows[0]
    assert row["p"] < 0.01 and row["p_holm"] >= row["p"] and row["jsd_low"] < row["jsd"] < row["jsd_high"]
    assert row["centre_difference"] == pytest.approx(-0.4, abs=0.05)  # asr minus ser: 0.2 of the weight, 2 layers
    assert row["wasserstein_layers"] == pytest.approx(0.4, abs=0.1)
    assert row["wasserstein_depth"] == pytest.approx(row["wasserstein_layers"] / 4)
    assert row["bias_jsd"] == pytest.approx(0.0623, abs=1e-4) and row["jsd"] > 3 * row["between_utterances"]
    assert {v.verdict for v in result.verdicts if "against" not in v.about} == {"tasks draw on different layers"}


def test_equal_tasks_are_not_told_apart(model):
    result = summarise(routing(shift=0.0), context(model))
    assert {v.verdict for v in result.verdicts if "against" not in v.about} == {"no provable difference"}
    assert all(row["p"] > 0.05 and row["n"] == 48 and row["speakers"] == 16 for row in result.table("pairs").rows)


def test_a_tiny_difference_is_called_tiny(model):
    result = summarise(routing(shift=0.02, noise=1e5), context(model))
    assert result.verdicts[0].verdict == "different, but hardly"


def test_three_speakers_decide_nothing(model):
    result = summarise(routing(shift=0.2, speakers=3), context(model))
    assert result.verdicts[0].verdict.startswith("undecided")


def test_one_task_alone_has_no_divergence(model):
    with pytest.raises(ValueError, match="two tasks"):
        summarise(routing().query("task == 'asr'"), context(model))


def test_without_other_runs_seeds_are_not_available(model):
    verdict = summarise(routing(), context(model)).verdicts[-1]
    assert (verdict.about, verdict.verdict) == ("against other seeds", "not available")


def other_run(folder, name, frame) -> RunFolder:
    run = RunFolder(folder / name)
    run.path.mkdir()
    save_yaml(tiny_config(), run.config_file)
    if frame is not None:
        write_rows(run.part("analysis", "divergence.parquet"), frame)
    return run


def test_against_runs_of_other_seeds(model, tmp_path):
    near = other_run(tmp_path, "near", routing(shift=0.2, seed=1))
    far = other_run(tmp_path, "far", routing(layers=np.array([0.6, 0.1, 0.1, 0.1, 0.1]), seed=2))
    deep = other_run(tmp_path, "deep", routing(layers=np.ones(7) / 7))
    empty = other_run(tmp_path, "empty", None)
    result = summarise(routing(shift=0.2), context(model, others=(near, far, deep, empty)))
    words = {v.about: v for v in result.verdicts}
    assert words["encoder / asr - ser / against near"].verdict == "beyond the seed"
    assert words["encoder / asr - ser / against far"].verdict == "not beyond the seed"
    assert words["against deep"].verdict == "not available" and "7 states" in words["against deep"].evidence
    assert "--only divergence" in words["against empty"].evidence
    row = next(r for r in result.table("seeds").rows if r["other"] == "near")
    assert row["difference"] == pytest.approx(row["task_jsd"] - row["seed_jsd"]) and row["n"] == 48


def test_between_utterances_pairs_different_ones():
    alpha = np.eye(4)
    assert between_utterances(alpha, 0) == 1.0 and between_utterances(alpha[:1], 0) == 0.0
