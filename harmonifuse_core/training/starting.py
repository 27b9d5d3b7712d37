"""Begin a training with the weights of a run, or between them and the pre-trained ones."""

from pathlib import Path

import torch
from torch import nn

from harmonifuse_core.model.weights import load_shards

GIVEN = ("encoder.body.", "lm.body.", "gate.norm.", "fusion.norm.", "gate.logits", "fusion.task_bias")  # not random


@torch.no_grad()
def start_from(model: nn.Module, folder: Path, share: float = 1.0) -> list[str]:
    """Load the weights in `folder` into a freshly built `model`; returns the names that they lack: those stay fresh.

    With `share` below 1, what has a start of its own (pre-trained layers, their norms, the first logits of the layers)
    becomes share * loaded + (1 - share) * fresh: some of what the run learned, and some of what training took away from
    the pre-trained model, robustness above all (Wortsman et al. 2022). Raises ValueError for a share outside 0 to 1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"--init-share is {share:g}; use 0 (all pre-trained) to 1 (all of --init)")
    given = {n: t.clone() for n, t in model.state_dict().items() if n.startswith(GIVEN) and t.is_floating_point()}
    lacking = load_shards(model, folder, may_lack=True)
    if share < 1:
        for name, value in model.state_dict().items():
            if name in given:
                value.lerp_(given[name], 1 - share)
    return lacking
