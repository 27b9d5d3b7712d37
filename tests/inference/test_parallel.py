"""Batches side by side: what is in them, who works on them, and what an error or an early end leaves behind."""

import threading
import time
from concurrent.futures import CancelledError

import numpy as np
import pytest
import torch

from harmonifuse_core.inference.parallel import Workers, cpu_workers, length_batches, shared_batches

CPU = torch.device("cpu")


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

    with Workers(CPU) as workers:
        found = dict((batch[0], result) for batch, result in workers.side_by_side(work, [[0], [1]]))
    assert [found[i][1] for i in (0, 1)] == [1, 1] and found[0][0] != found[1][0]
    assert torch.get_num_threads() == 2 and cpu_workers(torch.device("cpu")) == 2
    fresh = []
    thread = threading.Thread(target=lambda: fresh.append(torch.get_num_threads()))
    thread.start(), thread.join()
    assert fresh == [2], "threads to come are not left with one"
    assert cpu_workers(torch.device("cuda")) == 1


def test_an_error_is_raised_and_what_was_not_begun_is_left(two_threads):
    begun = []

    def work(batch):
        begun.append(batch[0])
        if batch == [9]:
            raise ValueError("too short")
        return batch

    with Workers(CPU) as workers:
        with pytest.raises(ValueError, match="too short"):
            list(workers.side_by_side(work, [[i] for i in range(10)]))
        assert begun[0] == 9
        assert list(workers.side_by_side(lambda batch: batch, [[0], [1]])), "the workers stay for others"
    assert len(begun) < 10


def test_the_work_of_two_askers_is_done_in_turn_and_goes_to_the_right_one(two_threads):
    begun, started, permits, results = [], threading.Semaphore(0), threading.Semaphore(0), {}

    def first(batch):
        begun.append("first")
        started.release()
        assert permits.acquire(timeout=20)
        return batch[0]

    def second(batch):
        begun.append("second")
        return -batch[0]

    def ask(name, work, batches):
        results[name] = sorted(result for _, result in workers.side_by_side(work, batches))

    with Workers(CPU) as workers:
        askers = [
            threading.Thread(target=ask, args=("first", first, [[1], [2], [3]])),
            threading.Thread(target=ask, args=("second", second, [[4], [5]])),
        ]
        askers[0].start()
        assert started.acquire(timeout=20) and started.acquire(timeout=20)  # both threads are held by the first asker
        while workers._pool._work_queue.qsize() < 1:
            time.sleep(0.01)
        askers[1].start()
        while workers._pool._work_queue.qsize() < 3:
            time.sleep(0.01)
        permits.release()  # one thread goes on
        assert started.acquire(timeout=20)
        permits.release(2)
        for asker in askers:
            asker.join(20)
    assert results == {"first": [1, 2, 3], "second": [-5, -4]}
    assert begun == ["first"] * 3 + ["second"] * 2


def test_one_worker_works_in_the_callers_thread():
    here = threading.get_ident()
    with Workers(torch.device("cuda")) as workers:
        found = list(workers.side_by_side(lambda batch: threading.get_ident(), [[0], [1]]))
    assert found == [([0], here), ([1], here)]


def test_who_waits_for_workers_that_end_is_told(two_threads):
    both, end, told = threading.Barrier(3, timeout=20), threading.Event(), []

    def work(batch):
        if batch[0] > 1:
            both.wait()  # the two that run, and the test
        end.wait(20)
        return batch[0]

    def ask():
        try:
            list(workers.side_by_side(work, [[0], [1], [2], [3]]))
        except CancelledError as error:
            told.append(error)

    def go_on(pool):
        while not pool._shutdown:
            time.sleep(0.01)
        with pool._shutdown_lock:  # held until what was not begun is cancelled
            end.set()

    asking = threading.Thread(target=ask)
    with Workers(CPU) as workers:
        asking.start()
        both.wait()
        while workers._pool._work_queue.qsize() < 2:  # two run; the other two have been asked for
            time.sleep(0.01)
        threading.Thread(target=go_on, args=(workers._pool,)).start()
    asking.join(20)
    assert not asking.is_alive() and told
    with pytest.raises(CancelledError, match="ended"):
        next(workers.side_by_side(work, [[0], [1]]))
