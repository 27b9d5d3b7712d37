"""Planted truth: a model in which only encoder state k and LM state j carry the label, its weights set by hand."""

import functools

import numpy as np
import pytest
import torch
from planted import PEAKED, STATES, J, K, planted_batches, planted_model

from harmonifuse_core.analysis import faithfulness
from harmonifuse_core.analysis.faithfulness import REMOVALS, movement
from harmonifuse_core.analysis.interventions import kept, mean_state, others_state, partners
from harmonifuse_core.analysis.registry import AnalysisOptions, Context
from harmonifuse_core.analysis.running import analyse_batches, rows_of


@functools.cache
def analysed(encoder_alpha=PEAKED, lm_alpha=None):
    model = planted_model(encoder_alpha, lm_alpha)
    return analyse_batches(model, planted_batches(seed=2), faithfulness.ANALYSIS, Context(model, resamples=300))


def verdict(result, about: str) -> str:
    return next(v.verdict for v in result.verdicts if v.about == about)


def column(result, table: str, name: str, **where) -> list:
    return [r[name] for r in result.table(table).rows if all(r[key] == value for key, value in where.items())]


def test_weights_that_favour_the_planted_layer_are_faithful():
    result = analysed()
    assert verdict(result, "encoder / ser") == "faithful" == verdict(result, "lm / ser")
    assert verdict(result, "encoder / ser / alpha") == "constant: the same for every utterance"
    assert result.utterances == 48 and result.speakers == 8


@pytest.mark.parametrize("shift", [1, 2])
def test_permuted_weights_are_not(shift):
    result = analysed(tuple(np.roll(PEAKED, shift).tolist()))
    assert verdict(result, "encoder / ser") == "not faithful"
    assert verdict(result, "lm / ser") == "faithful"  # untouched
    elsewhere = analysed(PEAKED, (0.3, 0.25, 0.2, 0.05, 0.2))
    assert verdict(elsewhere, "lm / ser") == "not faithful" and verdict(elsewhere, "encoder / ser") == "faithful"


def test_uniform_weights_are_flagged():
    result = analysed((0.2,) * 5)
    assert verdict(result, "encoder / ser") == "not faithful"
    assert verdict(result, "encoder / ser / alpha") == "constant: uniform over layers"
    rho = column(result, "correlation", "rho", stage="encoder", ranking="alpha")
    assert set(rho) == {0.0} and set(column(result, "correlation", "constant", stage="encoder", ranking="alpha")) == {1}


@pytest.mark.parametrize(("stage", "layer"), [("encoder", K), ("lm", J)])
@pytest.mark.parametrize(("removal", "weights"), REMOVALS)
def test_every_way_of_removing_finds_the_layer(stage, layer, removal, weights):
    where = {"stage": stage, "removal": removal, "weights": weights}
    changes = column(analysed(), "layers", "loss_change", **where)
    lows = column(analysed(), "layers", "loss_change_low", **where)
    assert len(changes) == STATES and int(np.argmax(changes)) == layer and lows[layer] > 0.2
    ua = column(analysed(), "layers", "metric_change_high", **where)
    assert ua[layer] < -0.2 and column(analysed(), "layers", "metric", **where) == ["UA"] * STATES


def test_curves_and_areas_prefer_alpha_where_it_is_faithful():
    for curve in ("deletion", "insertion"):
        where = {"stage": "encoder", "curve": curve}
        assert column(analysed(), "areas", "over_random_low", ranking="alpha", **where)[0] > 0
        assert column(analysed(), "areas", "over_random", ranking="random", **where) == [0]
        points = column(analysed(), "curves", "layers", ranking="alpha", **where)
        assert points == [1, 2, 3, 4]
        rolled = analysed(tuple(np.roll(PEAKED, 2).tolist()))
        assert column(rolled, "areas", "over_random_high", ranking="alpha", **where)[0] < 0


def test_the_first_point_of_deletion_is_the_removal_of_the_favourite():
    where = {"stage": "encoder"}
    first = column(analysed(), "curves", "loss_change", curve="deletion", ranking="alpha", layers=1, **where)
    removal = column(analysed(), "layers", "loss_change", removal="zero", weights="renormalised", layer=K, **where)
    assert first == pytest.approx(removal)


def test_random_orders_are_the_mean_over_all_subsets():
    where = {"stage": "encoder"}
    first = column(analysed(), "curves", "loss_change", curve="deletion", ranking="random", layers=1, **where)
    each = column(analysed(), "layers", "loss_change", removal="zero", weights="renormalised", **where)
    assert first == pytest.approx([np.mean(each)])


def test_every_row_says_how_many_and_every_table_what():
    for table in analysed().tables:
        assert len(table.definition) > 80 and all(row["n"] == 48 and row["speakers"] == 8 for row in table.rows)
    stored = analysed().as_dict()
    assert stored["tables"]["correlation"]["rows"][0]["verdict"] == "faithful"


def test_more_layers_than_all_subsets_are_measured_too(monkeypatch):
    """The same curves of the rankings, with subsets on demand; random orders are drawn."""
    from harmonifuse_core.analysis import conditions

    batch, model = planted_batches(seed=2, count=1)[0], planted_model()
    everything = rows_of(model, batch, faithfulness.ANALYSIS, AnalysisOptions())
    monkeypatch.setattr(conditions, "ALL_SUBSETS", 4)
    some = rows_of(model, batch, faithfulness.ANALYSIS, AnalysisOptions())
    assert len(some) == len(everything)
    for a, b in zip(everything, some, strict=True):
        same = {k: v for k, v in a.items() if k not in ("loss", "predicted", "error")}
        assert same == {k: b[k] for k in same}
        if a.get("ranking") != "random":
            assert b["loss"] == pytest.approx(a["loss"], abs=1e-4)


def test_rows_of_a_layer_do_not_depend_on_the_batch_it_is_in_where_no_partner_is_asked():
    model, batch = planted_model(), planted_batches(seed=2, count=1)[0]

    def own(rows):
        kept = [r for r in rows if r["condition"] == "zero" and r["utterance"] in ("0-1", "0-4")]
        return sorted((r["utterance"], r["stage"], r["layer"], r["weights"], round(r["loss"], 4)) for r in kept)

    options = AnalysisOptions()
    whole = own(rows_of(model, batch, faithfulness.ANALYSIS, options))
    assert whole == own(rows_of(model, batch.rows([4, 1]), faithfulness.ANALYSIS, options)) and len(whole) == 40


def test_a_lone_utterance_has_no_partner():
    rows = rows_of(planted_model(), planted_batches(2, 1)[0].rows([3]), faithfulness.ANALYSIS, AnalysisOptions())
    assert {r["condition"] for r in rows} == {"intact", "zero", "deletion", "insertion"}


def test_kept_weights_by_hand():
    alpha, keep = torch.tensor([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]]), torch.tensor([False, True, True])
    assert kept(alpha, keep).tolist() == [[0, 0.5, 0.5], [0, 0, 0]]
    assert kept(alpha, keep, renormalise=False).tolist() == [[0, 0.25, 0.25], [0, 0, 0]]


def test_replaced_states_by_hand():
    state = torch.tensor([[1.0, 2, 0, 0], [5.0, 6, 7, 8], [3.0, 0, 0, 0]])[..., None]  # (B, N, 1)
    frames = torch.tensor([2, 4, 1])
    mean = mean_state(state, frames)[:, 0, 0].tolist()
    assert mean == pytest.approx([29 / 5, 6 / 3, 29 / 6])
    other = others_state(state, frames, [1, 0, 1])[..., 0]
    assert other[0, :2].tolist() == [5, 7] and other[1].tolist() == [1, 1, 2, 2] and other[2, 0] == 5


def test_partners_are_others_and_stay():
    batch = planted_batches(2, 1)[0]
    chosen = partners(batch, seed=0)
    speakers = [item.speaker for item in batch.items]
    assert all(speakers[i] != speakers[j] for i, j in enumerate(chosen)) and chosen == partners(batch, seed=0)
    assert chosen != partners(batch, seed=1) and partners(batch.rows([0]), seed=0) is None


def test_movement_by_hand():
    moving = np.array([[0.2, 0.8], [0.3, 0.7]])
    assert movement(moving)[0] == "moves with the input"
    assert movement(moving[:1].repeat(3, 0))[0] == "constant: the same for every utterance"
    assert movement(np.full((3, 4), 0.25))[0] == "constant: uniform over layers"


def test_nothing_labelled_is_an_error_with_a_remedy():
    import pandas as pd

    with pytest.raises(ValueError, match="--manifest"):
        faithfulness.summarise(pd.DataFrame(), Context(None))
