"""Batches side by side: what is in them, who works on them, and what an error or an early end leaves behind."""

import threading

import numpy as np
import pytest
import torch

from harmonifuse_core.inference.parallel import cpu_workers, length_batches, shared_batches, side_by_side


def padded(seconds, batch) -> float:
    return max(seconds[batch]) * len(batch)


def test_batches_hold_every_index_once_within_the_limits():
    seconds = np.random.default_rng(0).uniform(0.5, 20, 200)
    batches = length_batches(seconds, 60.0, 8)
    assert sorted(i for batch in batches for i in batch) == list(range(200))
    for batch in batches:
        assert len(batch) <= 8 and (len(batch) == 1 or padded(seconds, batch) <= 60)
    ends = [max(seconds[batch]) for batch in batches]
    assert ends == sorted(ends), "clips of like length go together"
    assert length_batches([100.0], 60.0, 8) == [[0]]


@pytest.mark.parametrize("workers", [2, 3, 4])
@pytest.mark.parametrize("clips", [1, 2, 7, 50, 200])
def test_workers_get_the_same_number_of_batches_of_like_size(workers, clips):
    seconds = np.random.default_rng(clips).uniform(2, 6, clips)
    batches = shared_batches(seconds, 100.0, 32, workers)
    assert sorted(i for batch in batches for i in batch) == list(range(clips))
    assert all(len(batch) == 1 or padded(seconds, batch) <= 100.0 for batch in batches)
    rounds = -(-len(length_batches(seconds, 100.0, 32)) // workers)
    assert min(clips, workers) <= len(batches) <= workers * rounds, "no worker waits in a round that others work in"
    if clips >= 50:
        loads = [padded(seconds, batch) for batch in batches]
        assert max(loads) < 1.35 * np.mean(loads)
    assert shared_batches(seconds, 100.0, 32, 1) == length_batches(seconds, 100.0, 32)
    assert shared_batches([], 100.0, 32, workers) == []


def test_each_worker_computes_with_one_thread_and_the_caller_keeps_its_own(two_threads):
    both = threading.Barrier(2, timeout=20)

    def work(batch):
        both.wait()  # passes only if two work at once
        return threading.get_ident(), torch.get_num_threads()

    found = dict((batch[0], result) for batch, result in side_by_side(work, [[0], [1]], 2))
    assert [found[i][1] for i in (0, 1)] == [1, 1] and found[0][0] != found[1][0]
    assert torch.get_num_threads() == 2 and cpu_workers(torch.device("cpu")) == 2
    fresh = []
    thread = threading.Thread(target=lambda: fresh.append(torch.get_num_threads()))
    thread.start(), thread.join()
    assert fresh == [2], "threads to come are not left with one"
    assert cpu_workers(torch.device("cuda")) == 1


def test_an_error_is_raised_and_what_was_not_begun_is_left():
    begun = []

    def work(batch):
        begun.append(batch[0])
        if batch == [9]:
            raise ValueError("too short")
        return batch

    with pytest.raises(ValueError, match="too short"):
        list(side_by_side(work, [[i] for i in range(10)], 2))
    assert begun[0] == 9 and len(begun) < 10


def test_one_worker_works_in_the_callers_thread():
    here = threading.get_ident()
    found = list(side_by_side(lambda batch: threading.get_ident(), [[0], [1]], 1))
    assert found == [([0], here), ([1], here)]
