"""Begin a training with the weights of a run, or between them and the pre-trained ones."""

from pathlib import Path

import torch

from harmonifuse_core.model.harmonifuse import HarmoniFuse
from harmonifuse_core.model.weights import load_shards

ALWAYS = ("gate.norm.", "fusion.norm.", "gate.logits", "fusion.task_bias")  # of every model, none drawn at random


def given_weights(model: HarmoniFuse) -> dict[str, torch.Tensor]:
    """Copies of what a freshly built `model` did not draw at random: pre-trained layers, norms, first logits of layers.

    An encoder with `weights: random` and an LM without a `name` have no pre-trained layers.
    """
    encoder, lm = model.config.encoder.weights == "pretrained", bool(model.config.lm.name)
    given = (*ALWAYS, *["encoder.body."] * encoder, *["lm.body."] * lm)
    weights = {n: t for n, t in model.state_dict().items() if n.startswith(given) and t.is_floating_point()}
    return {n: t.clone() for n, t in weights.items() if not n.endswith("lora_down")}  # random; lora_up starts at zero


@torch.no_grad()
def draw_back(model: HarmoniFuse, given: dict[str, torch.Tensor], share: float):
    """Make each weight in `given` share * that + (1 - share) * the model's own (Wortsman et al. 2022).

    Some of what training took away from the pre-trained model comes back, robustness above all.
    """
    for name, value in model.state_dict().items():
        if name in given:
            value.lerp_(given[name].to(value), share)


def start_from(model: HarmoniFuse, folder: Path, share: float = 1.0) -> list[str]:
    """Load the weights in `folder` into a freshly built `model`; returns the names that they lack: those stay fresh.

    With `share` below 1, what has a start of its own is drawn back to it: share * loaded + (1 - share) * fresh. Raises
    ValueError for a share outside 0 to 1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"--init-share is {share:g}; use 0 (all pre-trained) to 1 (all of --init)")
    given = given_weights(model)
    lacking = load_shards(model, folder, may_lack=True)
    draw_back(model, given, 1 - share)
    return lacking
