"""The overview of runs: state, health and the next step follow from what a run's files hold. Pure."""

import numpy as np
import pytest

from app import layer_tables, overview
from app.routing_views import Means
from harmonifuse_core.analysis.result import AnalysisResult, Table
from harmonifuse_core.config import Config

SCORED = {"test": {"asr": {"wer": 0.2, "wer_ci": [0.1, 0.3], "utterances": 50, "speakers": 30}}}
LOG = [
    {"step": s, "tasks": {"asr": {"encoder_alpha": [0.2, 0.8], "lm_alpha": [0.5, 0.5]}}}
    for s in (1, Config().training.steps)
]


def summary(metrics=(), evaluations=None, routing=False, signatures=None, config=Config(), **more) -> overview.Summary:
    return overview.summarise("r", config, "facts", list(metrics), evaluations or {}, routing, signatures, **more)


def commands(found: overview.Summary) -> str:
    return "\n".join(advice.command for advice in found.first)


def signatures(**row) -> AnalysisResult:
    base = {
        "name": "uniform alpha",
        "about": "lm / ser",
        "status": "found",
        "evidence": "0.001 bits.",
        "by_design": False,
    }
    return AnalysisResult("signatures", "?", (Table("signatures", "d", (base | row,)),))


def test_each_state_gives_its_next_command():
    assert summary().state == overview.UNTRAINED and "harmonifuse_core.train" in commands(summary())
    half = summary(LOG[:1])
    assert (
        half.state == overview.RUNNING
        and "--resume" in commands(half)
        and "harmonifuse_core.evaluate" in commands(half)
    )
    done = summary(LOG, SCORED, True)
    assert done.state == overview.COMPLETE and "harmonifuse_core.evaluate" not in commands(done)
    assert "--only signatures" in commands(done) and [a.page for a in done.first if a.page] == [
        "layer_weights",
        "explorer",
    ]
    broken = summary(LOG, SCORED, True, config=None, damaged=["config.yaml is damaged"])
    assert broken.state == overview.DAMAGED == broken.health and broken.first[0].page == "run"


def test_scores_without_a_training_log_are_not_called_untrained():
    cell = summary((), SCORED, True)
    assert cell.state == overview.SCORED and "harmonifuse_core.train" not in commands(cell)
    assert any("log is not kept" in advice.why for advice in cell.first) and "missing" in cell.health


def test_only_signatures_that_nobody_asked_for_are_an_alarm():
    assert summary(LOG, SCORED, True, signatures()).signatures == ("uniform alpha (lm / ser): 0.001 bits.",)
    assert summary(LOG, SCORED, True, signatures(by_design=True)).signatures == ()
    assert summary(LOG, SCORED, True, signatures(status="not found")).signatures == ()
    assert summary(LOG, SCORED, True).signatures is None
    assert "signatures were found" in summary(LOG, SCORED, True, signatures()).first[0].why


def test_the_table_holds_scores_intervals_and_the_last_alpha():
    table = overview.table_of([summary(LOG, SCORED), summary()])
    assert table.WER[0] == 0.2 and table["WER 95 %"][0] == "10.0 to 30.0 %" and np.isnan(table.WER[1])
    assert table["alpha asr encoder"][0] == [0.2, 0.8] and table.steps.tolist() == [Config().training.steps, 0]


def test_search_wants_every_word():
    found = [summary(), summary(LOG, SCORED)]
    assert overview.matching(found, "COMPLETE facts") == found[1:]
    assert overview.matching(found, "") == found and overview.matching(found, "complete nothing") == []


def means(*rows) -> Means:
    grid = np.array(rows, float)
    return Means(("asr", "ser")[: len(rows)], grid, 0 * grid, (5,) * len(rows))


def test_spread_over_seeds_is_that_of_the_runs_means():
    found = layer_tables.seed_spread({"a": means([0.2, 0.8]), "b": means([0.4, 0.6], [0.5, 0.5])})
    assert found.names == ("asr",) and found.mean == pytest.approx(np.array([[0.3, 0.7]]))
    assert found.std == pytest.approx(np.full((1, 2), 0.2 / np.sqrt(2)))
    assert layer_tables.seed_spread({"a": means([0.2, 0.8])}) is None
    assert layer_tables.seed_spread({"a": means([0.2, 0.8]), "b": means([0.1, 0.1, 0.8])}) is None


def test_tables_of_weights_hold_every_number_once():
    table = layer_tables.means_table({("encoder", "alpha"): means([0.2, 0.8], [0.5, 0.5])})
    assert table["mean"].tolist() == [0.2, 0.8, 0.5, 0.5] and table.state.tolist() == ["input", "1"] * 2
    steps = layer_tables.step_table(7, {"lm": (["asr"], np.array([[0.25, 0.75]]))})
    assert steps.alpha.tolist() == [0.25, 0.75] and set(steps.step) == {7}
