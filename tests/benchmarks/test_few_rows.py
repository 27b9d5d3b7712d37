"""How fast the rows of a decoding step meet the vocabulary: `pytest -m slow -s tests/benchmarks/test_few_rows.py`.

Ratio of the medians of interleaved rounds in one process, one thread, as decoding has it.
"""

import statistics
import time

import pytest
import torch

from harmonifuse_core.allocation import keep_freed_memory
from harmonifuse_core.model.few_rows import FewRows

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("count", [18, 60])
@torch.inference_mode()
def test_a_packed_vocabulary_is_faster(count):
    keep_freed_memory()
    with torch.inference_mode(False):
        matrix = torch.nn.Parameter(torch.randn(51864, 384), requires_grad=False)
    rows, few, threads = torch.randn(count, 384), FewRows(), torch.get_num_threads()
    ways = {"packed": lambda: few.product(rows, matrix), "as it is": lambda: torch.mm(matrix, rows.T).T}
    spent = {name: [] for name in ways}
    torch.set_num_threads(1)
    try:
        for _ in range(40):
            for name, way in ways.items():
                started = time.perf_counter()
                torch.log_softmax(way(), -1).topk(4)
                spent[name].append(time.perf_counter() - started)
    finally:
        torch.set_num_threads(threads)
    packed, plain = (statistics.median(spent[name]) for name in ways)
    print(f"{count} rows: {1000 * packed:.1f} ms packed, {1000 * plain:.1f} ms as it is, ratio {plain / packed:.2f}")
    assert packed < plain
