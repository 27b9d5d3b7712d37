"""Neighbours by routing: planted weights come back in their order, with their distances."""

import numpy as np
import pytest

from harmonifuse_core.neighbours import Routes, nearest, read_routes
from harmonifuse_core.routing import RoutingRecord, RoutingWriter, jensen_shannon

BASE = (0.5, 0.3, 0.2)


def moved(by: float) -> tuple[float, ...]:
    return (0.5 - by, 0.3, 0.2 + by)


def record(utterance: str, task: str, stage: str, alpha, prompt: str = "p") -> RoutingRecord:
    return RoutingRecord(
        utterance=utterance, task=task, prompt=prompt, stage=stage, alpha=alpha, bias=alpha, score=alpha, share=alpha,
        prediction="x",
    )  # fmt: skip


def write(path, records):
    with RoutingWriter(path) as writer:
        writer.write(records)
    return path


@pytest.fixture
def files(tmp_path):
    """u-0 to u-5, each a little further from u-0; u-3 has no asr; u-1 stands in both files."""
    steps = {"u-0": 0.0, "u-1": 0.05, "u-4": 0.2, "u-2": 0.1, "u-3": 0.15, "u-5": 0.3}
    records = [
        record(name, task, stage, moved(by))
        for name, by in steps.items()
        for task in ("asr", "ser")
        for stage in ("encoder", "lm")
        if (name, task) != ("u-3", "asr")
    ]
    first = write(tmp_path / "a.parquet", records)
    again = [record("u-1", "ser", "lm", (0.0, 0.0, 1.0)), record("u-0", "ser", "lm", (0.0, 1.0, 0.0), "other prompt")]
    return [first, write(tmp_path / "b.parquet", again)]


def test_neighbours_come_in_the_order_of_their_distance(files):
    routes = read_routes(files)
    found = nearest(routes, routes.of("u-0"), exclude="u-0")
    assert [n.utterance for n in found] == ["u-1", "u-2", "u-3", "u-4", "u-5"]
    for neighbour, by in zip(found, (0.05, 0.1, 0.15, 0.2, 0.3), strict=True):
        assert neighbour.distance == pytest.approx(float(jensen_shannon(np.array(BASE), np.array(moved(by)))), abs=1e-6)


def test_what_both_have_is_compared_and_named(files):
    routes = read_routes(files)
    found = {n.utterance: n.fusions for n in nearest(routes, routes.of("u-0"))}
    assert found["u-3"] == (("ser", "encoder"), ("ser", "lm")) and len(found["u-1"]) == 4
    only = nearest(routes, {("asr", "lm"): np.array(BASE)})
    assert "u-3" not in {n.utterance for n in only} and only[0].utterance == "u-0" and only[0].distance < 1e-9


def test_the_distance_is_the_mean_over_fusions():
    pass_through = np.array([1.0, 0.0, 0.0])
    other = np.array([0.0, 1.0, 0.0])
    routes = Routes(
        np.array(["far", "half"], object),
        {("ser", "encoder"): np.stack([other, pass_through]), ("ser", "lm"): np.stack([other, other])},
    )
    query = {("ser", "encoder"): pass_through, ("ser", "lm"): pass_through}
    assert [(n.utterance, n.distance) for n in nearest(routes, query)] == [("half", 0.5), ("far", 1.0)]


def test_of_several_rows_the_first_counts(files):
    assert read_routes(files).of("u-1")["ser", "lm"] == pytest.approx(moved(0.05))
    assert read_routes(files).of("u-0")["ser", "lm"] == pytest.approx(BASE)
    assert read_routes(files[::-1]).of("u-1")["ser", "lm"] == pytest.approx((0, 0, 1))


def test_another_number_of_layers_is_no_neighbour(tmp_path, files):
    wide = [record("wide", "ser", "lm", (0.25,) * 4), record("fits", "ser", "lm", BASE)]
    routes = read_routes([*files, write(tmp_path / "c.parquet", wide)])
    names = {n.utterance for n in nearest(routes, {("ser", "lm"): np.array(BASE)}, 20)}
    assert "wide" not in names
    with pytest.raises(KeyError, match="'nobody' is not logged"):
        routes.of("nobody")
    assert nearest(routes, {("ser", "lm"): np.ones(7) / 7}) == ()
