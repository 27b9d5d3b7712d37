"""A few rows times a large matrix that stays the same, on a CPU: the vocabulary at each decoding step.

A library that packs the matrix anew at every product spends more time on that than on the product. oneDNN keeps it
packed: 1.5 to 1.7 times as fast, softmax and all, for 18 to 60 rows of 51,864 x 384
(tests/benchmarks/test_few_rows.py).
"""

import torch
from torch import Tensor

FEWEST = 5  # rows; fewer are faster with the matrix as it is


class FewRows:
    """`product(rows, matrix)`: rows (R, D) times matrix (V, D) transposed, (R, V), without gradient.

    A packed copy is kept for the last matrix that wants no gradient, until it is another one or was written to.
    """

    def __init__(self):
        # matrix, its version, packed: in one value, as threads share it
        self._kept: tuple[Tensor, int, Tensor] | None = None

    def product(self, rows: Tensor, matrix: Tensor) -> Tensor:
        if len(rows) < FEWEST or not self._can_pack(rows, matrix):
            return torch.mm(matrix, rows.T).T  # 1.6 times as fast as `linear`
        kept = self._kept
        if kept is None or kept[0] is not matrix or kept[1] != matrix._version:
            packed = torch.ops.mkldnn._reorder_linear_weight(matrix.detach(), None)
            kept = self._kept = (matrix, matrix._version, packed)
        return torch.ops.mkldnn._linear_pointwise(rows, kept[2], None, "none", [], "")

    @staticmethod
    def _can_pack(rows: Tensor, matrix: Tensor) -> bool:
        fixed = not matrix.requires_grad and not matrix.is_inference()
        return fixed and rows.dtype == matrix.dtype == torch.float32 and torch.backends.mkldnn.is_available()

    def __deepcopy__(self, _):
        return FewRows()  # a packed matrix cannot be copied
