"""The dashboard's queries on generated routing of many utterances: right at 2,000, fast and small at 100,000."""

import resource
import time

import numpy as np
import pytest
from benchmarks.big_routing import write_big_routing

from app import routing_index, routing_query, routing_views
from app.routing_index import Filter

FILTER_SECONDS, BUILD_SECONDS, MEGABYTES = 0.5, 60.0, 1000


def built(path, utterances: int):
    return routing_index.build(routing_query.routing_files([write_big_routing(path, utterances)]))


def test_the_generator_writes_what_evaluation_writes(tmp_path):
    index = built(tmp_path / "big.parquet", 2000)
    assert (index.answers, index.utterances, index.repeated, index.odd) == (8000, 2000, 0, 0)
    means = routing_views.group_means(index, Filter(stage="lm"), "alpha")
    assert means.n == (2000, 2000) and means.mean.sum(1) == pytest.approx([1, 1], abs=1e-5)
    plane = routing_views.plane(index, "ser", "lm")
    found = routing_views.points(index, Filter("ser", "lm", (("outcome", "wrong"),)), "pca", plane, 100)
    assert len(found.table) == 100 < found.total < 1000


@pytest.mark.slow
def test_a_hundred_thousand_utterances_stay_fluid(tmp_path):
    """Processor seconds, so that a busy machine does not fail it; 95th percentile of 40 filters."""
    started = time.process_time()
    index = built(tmp_path / "big.parquet", 100_000)
    assert time.process_time() - started < BUILD_SECONDS
    plane, seconds = routing_views.plane(index, "ser", "lm"), []
    for k in range(40):
        wanted = [
            Filter("ser", "lm", (("speaker", f"speaker-{k}"),)), Filter("asr", "lm", (("outcome", "wrong"),)),
            Filter("ser", "encoder", (("dataset", "corpus-1"),)), Filter("asr", "encoder", text=f"{k}"),
        ]  # fmt: skip
        started = time.process_time()
        assert len(routing_views.points(index, wanted[k % 4], "shape", plane).table) <= routing_views.MOST_POINTS[0]
        seconds.append(time.process_time() - started)
    assert np.quantile(seconds, 0.95) < FILTER_SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 < MEGABYTES
