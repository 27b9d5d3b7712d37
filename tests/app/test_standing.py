"""One utterance's weights among the logged ones: exact on planted routing, and through the pages."""

import numpy as np
import pytest
from dashboard import charts, opened, press, shown, sound
from planted_routing import indexed, record, written

from app import standing
from app.components.standing import TITLE, VIEW
from app.routing_index import Filter

ALPHAS = np.array([[0.1 + 0.02 * i, 0.5, 0.4 - 0.02 * i] for i in range(11)], np.float32)


@pytest.fixture
def index(tmp_path):
    """11 answers: layer 0 rises by 0.02 from 0.1, layer 1 never moves; the first six are of corpus `a`."""
    facts = [{"dataset": "a" if i < 6 else "b"} for i in range(11)]
    rows = [record(f"u{i}", "ser", "encoder", a, **f) for i, (a, f) in enumerate(zip(ALPHAS, facts, strict=True))]
    rows += [record(f"u{i}", "asr", "encoder", [0.2, 0.5, 0.3]) for i in range(11)]
    return indexed(written(tmp_path / "r.parquet", rows))


def test_deviation_and_rank_are_those_of_the_logged_answers(index):
    alpha = np.array([ALPHAS[8, 0], 0.5, ALPHAS[8, 2]])
    found = standing.standing(index, Filter("ser", "encoder"), alpha)
    assert found.n == 11
    np.testing.assert_allclose(found.mean, ALPHAS.mean(0), atol=1e-7)
    np.testing.assert_allclose(found.std, ALPHAS.std(0, ddof=1), atol=1e-7)
    expected = 0.06 / ALPHAS[:, 0].std(ddof=1)
    np.testing.assert_allclose(found.deviation, [expected, np.nan, -expected], atol=1e-5)
    np.testing.assert_allclose(found.below, [8.5 / 11, 0.5, 2.5 / 11])
    assert found.moves.tolist() == [True, False, True]
    more = standing.standing(index, Filter("ser", "encoder"), [0.4, 0.5, 0.3])
    assert standing.furthest({("asr", "lm"): found, ("ser", "encoder"): more}) == (("ser", "encoder"), 0)
    assert not standing.still({("ser", "encoder"): found})


def test_a_fusion_that_never_moves_is_named_and_has_no_furthest_layer(index):
    found = {("asr", "encoder"): standing.standing(index, Filter("asr", "encoder"), [0.2, 0.5, 0.3])}
    assert standing.still(found) == [("asr", "encoder")] and standing.furthest(found) is None
    assert standing.furthest({}) is None


@pytest.mark.parametrize(
    ("wanted", "alpha"),
    [
        (Filter("ser", "encoder", (("dataset", "a"),)), [0.2, 0.5, 0.3]),  # six answers
        (Filter("ser", "encoder"), [0.5, 0.5]),
        (Filter("ser", "lm"), [0.2, 0.5, 0.3]),
        (Filter("ser", "encoder"), [np.nan, 0.5, 0.5]),
    ],
)
def test_too_few_or_other_layers_give_nothing(index, wanted, alpha):
    assert standing.standing(index, wanted, np.array(alpha)) is None


def test_only_answers_to_the_same_prompt_count(index):
    asked = standing.asked_alike(index, "ser", "encoder", "p")
    assert standing.standing(index, asked, ALPHAS[0]).n == 11
    assert standing.standing(index, standing.asked_alike(index, "ser", "encoder", "another"), ALPHAS[0]) is None
    assert standing.standing(index, standing.asked_alike(index, "ser", "encoder", ""), ALPHAS[0]) is None
    assert standing.asked_alike(index, "ser", "encoder", "p", "a").fields == (("prompt", "p"), ("dataset", "a"))


def test_the_table_has_a_row_a_layer(index):
    found = {("ser", "encoder"): standing.standing(index, Filter("ser", "encoder"), ALPHAS[3])}
    table = standing.table(found)
    assert list(table.state) == ["input", "1", "2"] and set(table.answers) == {11}
    np.testing.assert_allclose(table.alpha - table["mean"], table.deviation.fillna(0) * table["std"], atol=1e-7)


def logged_among(at):
    """The page with the view chosen."""
    control = next(c for c in at.segmented_control if TITLE in c.options)
    return sound(control.set_value(VIEW).run())


def test_listen_and_utterance_compare_with_what_is_logged(full_run, monkeypatch):
    monkeypatch.setattr(standing, "FEWEST", 3)
    at = press(opened(), "sample-input-quick-voice")
    before = charts(at)
    at = logged_among(at)
    assert "Furthest from the others" in shown(at) and charts(at) == before
    table = next(f.value for f in at.dataframe if "deviation" in f.value)
    assert set(zip(table.task, table.stage, strict=True)) == {
        (task, stage) for task in ("asr", "ser") for stage in ("encoder", "lm")
    }
    assert table.below.between(0, 1).all() and (table.answers >= 3).all()
    page = logged_among(opened("utterance", utt="u-2"))
    assert "Furthest from the others" in shown(page)


def test_too_few_logged_answers_are_said(full_run):
    at = logged_among(press(opened(), "sample-input-quick-voice"))
    assert "Fewer than 10 answers are logged" in shown(at)


def test_without_routing_the_command_is_named(full_run):
    full_run.part("routing", "test.parquet").unlink()
    at = logged_among(press(opened(), "sample-input-quick-voice"))
    assert "No usable routing is logged" in shown(at) and "harmonifuse_core.evaluate" in shown(at)
