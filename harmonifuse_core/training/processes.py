"""Several processes train one model: what they must agree on, and nothing else.

    accelerate launch --num_processes 4 -m harmonifuse_core.train --config CONFIG.yaml --run runs/NAME
    torchrun --nproc-per-node 2 -m harmonifuse_core.train ... --device cpu

Each process takes every n-th utterance of a step; sums over processes make losses, gradients and running statistics
those of the whole step. No wrapper goes round the model, so that tasks may be missing from a process's share.
"""

import os
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from harmonifuse_core.model.standardise import RunningStandardise

BUCKET = 16 * 2**20  # numbers in one exchange


@dataclass
class Processes:
    """count: of processes, `index` this one's number from 0; device: this one's. `Processes()` is one alone."""

    count: int = 1
    index: int = 0
    device: torch.device = torch.device("cpu")
    muted: bool = False  # this process has no utterance of the task at hand: what it computes does not count

    @classmethod
    def join(cls, device: str) -> "Processes":
        """Meet the others that `accelerate launch` or `torchrun` started; alone, where none did. Raises ValueError."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls(device=torch.device(device))
        try:
            from accelerate import PartialState
        except ImportError:
            raise ValueError("several processes need accelerate: pip install -r requirements.txt") from None
        state = PartialState(cpu=device == "cpu")
        return cls(state.num_processes, state.process_index, state.device)

    @property
    def is_main(self) -> bool:
        return self.index == 0

    def wait(self):
        """Until all processes are here."""
        if self.count > 1:
            torch.distributed.barrier()

    def total(self, values: Tensor) -> Tensor:
        """Sum of `values` over all processes, in their place."""
        if self.count > 1:
            torch.distributed.all_reduce(values)
        return values

    def total_of(self, values: Sequence[float]) -> list[float]:
        """Sums of numbers over all processes."""
        if self.count == 1:
            return list(values)
        kind = torch.float32 if self.device.type == "mps" else torch.float64
        return self.total(torch.tensor(list(values), dtype=kind, device=self.device)).tolist()

    def agree(self, model: nn.Module):
        """Start from the first process's weights; running statistics are of all processes' utterances from here on."""
        if self.count == 1:
            return
        with torch.no_grad():
            for tensor in (*model.parameters(), *model.buffers()):
                torch.distributed.broadcast(tensor.data, 0)
        for module in model.modules():
            if isinstance(module, RunningStandardise):
                module.total = self._unmuted_total

    def _unmuted_total(self, values: Tensor) -> Tensor:
        return self.total(torch.zeros_like(values) if self.muted else values.clone())

    @contextmanager
    def muting(self, on: bool):
        """Inside, this process adds nothing to running statistics, though it takes part in the exchange."""
        self.muted = on
        try:
            yield
        finally:
            self.muted = False

    def share_gradients(self, parameters: Sequence[nn.Parameter]):
        """Sum every gradient over all processes; one that no process has stays None, as in a single process."""
        if self.count == 1:
            return
        present = torch.tensor([float(p.grad is not None) for p in parameters], device=self.device)
        wanted = [p for p, n in zip(parameters, self.total(present).tolist(), strict=True) if n]
        for p in wanted:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        self.share_tensors([p.grad for p in wanted])

    def share_tensors(self, tensors: Sequence[Tensor]):
        """Sum each tensor over all processes, in place, many in one exchange."""
        if self.count == 1:
            return
        bucket, size = [], 0
        for tensor in tensors:
            bucket.append(tensor)
            size += tensor.numel()
            if size >= BUCKET:
                self._exchange(bucket)
                bucket, size = [], 0
        if bucket:
            self._exchange(bucket)

    def _exchange(self, tensors: list[Tensor]):
        flat = self.total(torch.cat([t.flatten().float() for t in tensors]))
        for tensor, summed in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(summed.view_as(tensor))
