"""The packed vocabulary: the plain product, and never that of a matrix that is gone or was written to."""

import copy

import pytest
import torch

from harmonifuse_core.model.few_rows import FEWEST, FewRows


def fixed(seed: int) -> torch.nn.Parameter:
    values = torch.randn(300, 16, generator=torch.Generator().manual_seed(seed))
    return torch.nn.Parameter(values, requires_grad=False)


@pytest.mark.parametrize("count", [1, FEWEST - 1, FEWEST, 40, 200])
@torch.inference_mode()
def test_the_product_is_the_plain_one_for_any_number_of_rows(count):
    few, rows = FewRows(), torch.randn(count, 16)
    with torch.inference_mode(False):
        matrix = fixed(0)
    for _ in range(2):
        torch.testing.assert_close(few.product(rows, matrix), rows @ matrix.T, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_another_matrix_and_one_written_to_are_packed_anew():
    few, rows, first, second = FewRows(), torch.randn(9, 16), fixed(0), fixed(1)
    few.product(rows, first)
    torch.testing.assert_close(few.product(rows, second), rows @ second.T, atol=1e-5, rtol=1e-5)
    second.mul_(3.0)
    torch.testing.assert_close(few.product(rows, second), rows @ second.T, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_matrix_that_learns_is_never_kept():
    few, rows, matrix = FewRows(), torch.randn(9, 16), torch.nn.Parameter(torch.randn(300, 16))
    few.product(rows, matrix)
    matrix.data.add_(1.0)  # which no version tells of
    torch.testing.assert_close(few.product(rows, matrix), rows @ matrix.T, atol=1e-5, rtol=1e-5)
    assert few._kept is None and isinstance(copy.deepcopy(few), FewRows)
