"""The index of logged routing and what pages ask of it: planted weights, exact numbers, fixed samples."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from planted_routing import indexed, record, written

from app import routing_views
from app.routing_index import Filter, RoutingIndex

LAYERS = 4


def drawn(n: int, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).dirichlet(np.ones(LAYERS), n)
    return values.astype(np.float32)


ASR, SER = drawn(40, 1), drawn(40, 2)


@pytest.fixture
def index(tmp_path) -> RoutingIndex:
    """40 utterances; alpha of the encoder is ASR[i] resp. SER[i], of the LM one-hot on layer 3."""
    rows = []
    for i in range(40):
        facts = {"speaker": f"s{i % 4}", "dataset": "ab"[i % 2], "audio": f"{i}.wav"}
        for stage in ("encoder", "lm"):
            asr, ser = (ASR[i], SER[i]) if stage == "encoder" else (np.eye(LAYERS)[3],) * 2
            rows.append(record(f"u{i:02d}", "asr", stage, asr, errors=i % 3, error=i % 3 / 2, **facts))
            truth = "happy" if i % 4 else "sad"
            names = {"reference": truth, "label": f"{truth} in the corpus"}
            rows.append(record(f"u{i:02d}", "ser", stage, ser, error=float(not i % 4), **names, **facts))
    return indexed(written(tmp_path / "one.parquet", rows))


def points(index: RoutingIndex, wanted: Filter, most: int = 1000, place: str = "shape"):
    planes = {"pca": routing_views.plane, "umap": routing_views.embedding}
    found = planes[place](index, wanted.task, wanted.stage) if place in planes else None
    return routing_views.points(index, wanted, place, found, most)


def test_an_answer_counts_once_and_keeps_every_evaluation_that_logged_it(tmp_path):
    both = [record("u1", "ser", "encoder", [0.25] * 4), record("u2", "ser", "encoder", [0.25] * 4)]
    found = indexed(written(tmp_path / "part.parquet", both[:1]), written(tmp_path / "whole.parquet", both))
    assert (found.answers, found.utterances, found.repeated, found.odd) == (2, 2, 1, 0)
    assert found.facets["evaluation"] == ("part", "whole")
    names = {name: set(points(found, Filter("ser", "encoder", (("evaluation", name),))).table.utterance)
             for name in ("part", "whole")}  # fmt: skip
    assert names == {"part": {"u1"}, "whole": {"u1", "u2"}}


def test_damaged_rows_and_rows_of_another_depth_are_left_out_and_counted(tmp_path):
    rows = [record(f"u{i}", "ser", "encoder", [0.25] * 4) for i in range(3)]
    rows += [record("nan", "ser", "encoder", [np.nan] * 4), record("short", "ser", "encoder", [0.5, 0.5])]
    found = indexed(written(tmp_path / "x.parquet", rows))
    assert (found.answers, found.odd, dict(found.layers)) == (3, 2, {"encoder": 4})


def test_files_without_any_weights_say_so(tmp_path):
    with pytest.raises(ValueError, match="make them again"):
        indexed(written(tmp_path / "x.parquet", [record("u", "ser", "encoder", [])]))


def test_entropy_centre_and_top_layer_by_hand(tmp_path):
    rows = [record("even", "ser", "lm", [0.25] * 4), record("deep", "ser", "lm", [0, 0, 0.5, 0.5])]
    table = points(indexed(written(tmp_path / "x.parquet", rows)), Filter("ser", "lm")).table.set_index("utterance")
    assert table.loc["even", ["x", "y"]].tolist() == [1.5, 2.0]  # centre of mass, entropy in bits
    assert table.loc["deep", ["x", "y", "top"]].tolist() == [2.5, 1.0, 2]


def test_means_and_spread_are_numpys(index):
    means = routing_views.group_means(index, Filter(stage="encoder"), "alpha")
    assert means.names == ("asr", "ser") and means.n == (40, 40)
    assert means.mean == pytest.approx(np.stack([ASR.mean(0), SER.mean(0)]), abs=1e-6)
    assert means.std == pytest.approx(np.stack([ASR.std(0), SER.std(0)]), abs=1e-6)
    share = routing_views.group_means(index, Filter(stage="encoder"), "share")
    assert share.mean == pytest.approx(means.mean[:, ::-1], abs=1e-7)
    assert routing_views.group_means(index, Filter(stage="lm"), "alpha").std.max() == 0


def test_groups_split_by_a_field_and_the_largest_are_kept(index, monkeypatch):
    wanted = Filter("ser", "encoder")
    found = routing_views.group_means(index, wanted, "alpha", "label")
    assert found.names == ("happy", "sad") and found.n == (30, 10)
    assert found.mean[1] == pytest.approx(SER[::4].mean(0), abs=1e-6)
    monkeypatch.setattr(routing_views, "MOST_GROUPS", 3)
    found = routing_views.group_means(index, wanted, "alpha", "speaker")
    assert len(found.names) == 3 and found.left_out == 1
    for bad in ("utterance", "speaker; DROP TABLE answers", "evaluation"):
        with pytest.raises(ValueError, match="no field"):
            routing_views.group_means(index, wanted, "alpha", bad)


def test_tasks_are_compared_on_the_same_utterances(index, tmp_path):
    found = routing_views.task_difference(index, Filter(stage="encoder"), "alpha", "asr", "ser")
    assert found.n == (40,)
    assert found.mean[0] == pytest.approx((ASR - SER).mean(0), abs=1e-6)
    assert found.std[0] == pytest.approx((ASR - SER).std(0), abs=1e-6)
    apart = [record("a", "asr", "encoder", [0.25] * 4), record("b", "ser", "encoder", [0.25] * 4)]
    lone = indexed(written(tmp_path / "y.parquet", apart))
    assert routing_views.task_difference(lone, Filter(stage="encoder"), "alpha", "asr", "ser").n == ()


def test_the_plane_is_the_pca_of_all_answers_and_filters_do_not_move_points(index):
    plane = routing_views.plane(index, "ser", "encoder")
    centred = SER.astype(float) - SER.mean(0)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    assert plane.share == pytest.approx((sizes**2 / (sizes**2).sum())[:2], abs=1e-6)
    assert np.abs((plane.axes * axes[:2]).sum(1)) == pytest.approx([1, 1], abs=1e-5)
    assert (plane.axes[np.arange(2), np.abs(plane.axes).argmax(1)] > 0).all()
    every = points(index, Filter("ser", "encoder"), place="pca").table.set_index("utterance")
    some = points(index, Filter("ser", "encoder", (("dataset", "a"),)), place="pca").table.set_index("utterance")
    assert len(some) == 20 and np.allclose(some[["x", "y"]], every.loc[some.index, ["x", "y"]])
    flat = routing_views.plane(index, "ser", "lm")
    assert flat.share.tolist() == [0, 0]  # nothing varies


def test_umap_puts_two_kinds_of_routing_apart_and_filters_do_not_move_points(tmp_path):
    draw = np.random.default_rng(0)
    kinds = np.array([[4.0, 1, 1, 1], [1, 1, 1, 4]])
    alphas = [draw.dirichlet(20 * kinds[i % 2]) for i in range(60)]
    rows = [record(f"u{i:02d}", "ser", "lm", alpha, dataset="ab"[i % 2]) for i, alpha in enumerate(alphas)]
    found = indexed(written(tmp_path / "x.parquet", rows))
    threads = torch.get_num_threads()
    every = points(found, Filter("ser", "lm"), place="umap")
    assert torch.get_num_threads() == threads, "numba shares torch's threads"
    one, other = (every.table.loc[every.table.dataset == name, ["x", "y"]].to_numpy() for name in "ab")
    apart = np.linalg.norm(one.mean(0) - other.mean(0))
    assert apart > 2 * max(np.linalg.norm(part - part.mean(0), axis=1).mean() for part in (one, other))
    some = points(found, Filter("ser", "lm", (("dataset", "a"),)), place="umap")
    spots = every.table.set_index("utterance").loc[some.table.utterance, ["x", "y"]]
    assert (some.total, len(some.table)) == (30, 30) and np.array_equal(some.table[["x", "y"]], spots)
    sample = routing_views.embedding(found, "ser", "lm", most=40)
    drawn = routing_views.points(found, Filter("ser", "lm"), "umap", sample)
    assert (len(drawn.table), drawn.total) == (40, 60), "the sample's points, and the number of all"
    few = indexed(written(tmp_path / "y.parquet", rows[:9]))
    with pytest.raises(ValueError, match="needs more than 15 logged answers, 9 are here"):
        routing_views.embedding(few, "ser", "lm")


def test_the_sample_is_fixed_random_and_the_total_is_told(index):
    wanted = Filter("ser", "encoder")
    ten = points(index, wanted, most=10)
    assert len(ten.table) == 10 and ten.total == 40
    assert ten.table.utterance.tolist() == points(index, wanted, most=40).table.utterance.tolist()[:10]
    assert ten.table.utterance.tolist() == points(index, replace(wanted, task="asr"), most=10).table.utterance.tolist()
    assert ten.table.utterance.tolist() != sorted(ten.table.utterance)


def test_filters_hold_together_and_text_is_looked_for_everywhere(index):
    wanted = Filter("ser", "encoder", (("dataset", "a"), ("outcome", "wrong")))
    table = points(index, wanted).table
    assert set(table.utterance) == {f"u{i:02d}" for i in range(0, 40, 4)} and set(table.outcome) == {"wrong"}
    assert points(index, Filter("ser", "encoder", text="U07")).total == 1
    assert points(index, Filter("ser", "encoder", text="7.wav")).total == 4
    assert points(index, Filter("asr", "encoder", (("prediction_class", "two words"),))).total == 0  # text is no class


@pytest.mark.parametrize("text", ["' OR 1=1 --", "%", "_", '"', "\\", "\x00", "'; DROP TABLE answers; --"])
def test_filters_are_never_part_of_the_query(index, text):
    assert points(index, Filter("ser", "encoder", (("speaker", text),))).total == 0
    assert points(index, Filter("ser", "encoder", text=text)).total == 0
    assert index.ask("SELECT count(*) FROM answers").fetchone()[0] == 160


def test_files_of_older_runs_without_some_columns_are_indexed_all_the_same(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"utterance": ["u"], "task": ["ser"], "stage": ["lm"], "alpha": [[0.5, 0.5]]})
    pq.write_table(table, tmp_path / "old.parquet")
    found = indexed(tmp_path / "old.parquet")
    assert not found.has_share and found.facets["speaker"] == ()
    row = points(found, Filter("ser", "lm")).table.iloc[0]
    assert row.outcome == "no reference" and row.y == 1.0
