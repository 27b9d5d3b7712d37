"""Batches side by side on the cores of a CPU.

Decoding is many small matrix products, which two threads hardly compute faster than one. So a CPU that may use N
threads answers N batches at once, each with one thread; a single batch, or an accelerator, is worked on as it is.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from queue import SimpleQueue
from typing import TypeVar

import numpy as np
import torch

Result = TypeVar("Result")
BATCHES = list[list[int]]


def length_batches(seconds: Sequence[float], batch_seconds: float, batch_size: int) -> BATCHES:
    """Indices in batches of like length: padded length x count stays under `batch_seconds`, one clip may exceed it."""
    batches: BATCHES = []
    for index in np.argsort(seconds, kind="stable").tolist():
        current = batches[-1] if batches else None
        if current is None or len(current) == batch_size or seconds[index] * (len(current) + 1) > batch_seconds:
            batches.append([])
        batches[-1].append(index)
    return batches


def shared_batches(seconds: Sequence[float], batch_seconds: float, batch_size: int, workers: int) -> BATCHES:
    """As `length_batches`, but as many of like padded length as give every worker the same number, where there can be.

    The limit on a batch is lowered until one more batch would not fit the rounds that the given limits need.
    """
    batches = length_batches(seconds, batch_seconds, batch_size)
    most = -(-len(batches) // workers) * workers
    if workers == 1 or not batches:
        return batches
    low, high = 0.0, max(max(seconds[i] for i in batch) * len(batch) for batch in batches)
    for _ in range(20):
        middle = (low + high) / 2
        tried = length_batches(seconds, middle, batch_size)
        if len(tried) <= most:
            batches, high = tried, middle
        else:
            low = middle
    return batches


def cpu_workers(device: torch.device) -> int:
    """Batches to work on at once: the threads that torch may use on a CPU, else 1."""
    return torch.get_num_threads() if device.type == "cpu" else 1


class Workers:
    """Threads that answer batches; a context manager. Several may use one at once: what was asked first begins first.

    With one worker, or a single batch, the caller's own thread works, with all of torch's threads.
    """

    def __init__(self, device: torch.device):
        self.count = cpu_workers(device)

    def __enter__(self) -> "Workers":
        self._threads = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(self.count, "answer", initializer=torch.set_num_threads, initargs=(1,))
        return self

    def __exit__(self, *_):
        """Batches that were not begun are left."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(self._threads)  # of threads to come; a worker's own number is its own

    def side_by_side(self, work: Callable[[list[int]], Result], batches: BATCHES) -> Iterator[tuple[list[int], Result]]:
        """Yield (batch, work(batch)) as batches finish; the longest come first where there are several workers.

        What `work` raises is raised here, and those of `batches` that were not begun are left. Raises CancelledError
        where the workers end meanwhile.
        """
        if self.count == 1 or len(batches) < 2:
            for batch in batches:
                yield batch, work(batch)
            return
        futures, done = {}, SimpleQueue()  # `as_completed` would wait for ever for what `__exit__` cancels
        try:
            for batch in reversed(batches):
                try:
                    future = self._pool.submit(work, batch)
                except RuntimeError as error:  # the pool's own word for what comes after its end
                    raise CancelledError("the workers have ended") from error
                futures[future] = batch
                future.add_done_callback(done.put)
            for _ in batches:
                future = done.get()
                yield futures[future], future.result()
        finally:
            for future in futures:
                future.cancel()
