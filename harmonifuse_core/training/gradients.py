"""Do the tasks pull the shared weights the same way? Norms of their gradients and cosines between them, by module.

A negative cosine in a module says that what helps one task there hurts the other (Yu et al. 2020, gradient surgery). A
module that only one task reaches has no cosine.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor, nn

BLOCK = re.compile(r"\.(?:layers|h|blocks)\.(\d+)\.")
WHOLE = "all"


def module_of(name: str) -> str:
    """The module that a parameter's gradient is counted under: `gate`, `fusion`, `encoder.3` (its block 3), `lm`."""
    top = name.partition(".")[0]
    found = BLOCK.search(name)
    return f"{top}.{int(found[1]) + 1}" if found else top


class TaskGradients:
    """Gathers each task's gradient over the parts of a step."""

    def __init__(self, model: nn.Module):
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self.modules = [module_of(name) for name, _ in named]
        self.parameters = [p for _, p in named]
        self.gradients: dict[str, list[Tensor]] = {}

    def add(self, task: str, loss: Tensor):
        """Add the gradient of `loss`, whose graph stays for the step's own backward pass."""
        found = [None] * len(self.parameters)
        if loss.requires_grad:  # else nothing that it knows learns
            found = torch.autograd.grad(loss, self.parameters, retain_graph=True, allow_unused=True)
        dense = [torch.zeros_like(p) if g is None else g for p, g in zip(self.parameters, found, strict=True)]
        if task in self.gradients:
            torch._foreach_add_(self.gradients[task], dense)
        else:
            self.gradients[task] = [g.clone() for g in dense]

    def report(self) -> dict:
        """{"norm": {task: {module: value}}, "cosine": {"asr,ser": {module: value}}}, with `all` for the whole model."""
        norms = {task: self._sums(gradients, gradients) for task, gradients in self.gradients.items()}
        cosines = {}
        for one, other in combinations(self.gradients, 2):
            products = self._sums(self.gradients[one], self.gradients[other])
            lengths = {m: (norms[one][m] * norms[other][m]) ** 0.5 for m in products}
            cosines[f"{one},{other}"] = {m: round(products[m] / lengths[m], 5) for m in products if lengths[m] > 0}
        return {
            "norm": {task: {m: float(f"{v**0.5:.5g}") for m, v in sums.items()} for task, sums in norms.items()},
            "cosine": cosines,
        }

    def _sums(self, ones: Sequence[Tensor], others: Sequence[Tensor]) -> Mapping[str, float]:
        """Scalar product of two gradients over each module and over all."""
        products = torch.stack([(a.double() * b.double()).sum() for a, b in zip(ones, others, strict=True)]).tolist()
        sums = dict.fromkeys(self.modules, 0.0) | {WHOLE: sum(products)}
        for module, value in zip(self.modules, products, strict=True):
            sums[module] += value
        return sums
