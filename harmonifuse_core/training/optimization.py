"""Parameter groups with a rate each, the schedule, and the moving average of the weights."""

import math
import re

import torch
from torch import nn

from harmonifuse_core.config import TrainingConfig
from harmonifuse_core.model.harmonifuse import HarmoniFuse
from harmonifuse_core.model.standardise import RunningStandardise
from harmonifuse_core.model.weights import names_fitting


def freeze_others(model: HarmoniFuse, only: str):
    """Let none learn but the weights whose names begin with the regular expression `only`; "" leaves all as they are.

    Running statistics whose names do not begin so stand still, too. Raises ValueError where `only` is none, or fits no
    weight that learns.
    """
    if not only:
        return
    learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
    chosen = names_fitting(only, learning, "training.only")
    for name, parameter in learning.items():
        parameter.requires_grad_(name in chosen)
    for name, module in model.named_modules():
        if isinstance(module, RunningStandardise) and not re.match(only, f"{name}."):
            module.still = True


def parameter_groups(model: HarmoniFuse, config: TrainingConfig) -> list[dict]:
    """AdamW groups: gates and task biases, encoder body, LM body with the fusions' shared norms, new modules.

    The gates get a rate of their own: at the rate of ordinary weights a logit hardly leaves its initial value. An
    encoder or LM that starts from random weights is a new module.
    """
    known = ("lm.body.", "gate.norm.", "fusion.norm.") if model.config.lm.name else ()
    if model.config.encoder.weights == "pretrained":
        known += ("encoder.body.",)
    groups = {"gate": [], "encoder": [], "lm": [], "new": [], "new_no_decay": []}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if name in ("gate.logits", "fusion.task_bias"):
            groups["gate"].append(parameter)
        elif name.startswith(known) and ".lora_" not in name:
            groups["encoder" if name.startswith("encoder.") else "lm"].append(parameter)
        else:
            groups["new" if parameter.ndim > 1 else "new_no_decay"].append(parameter)
    rates = dict(gate=config.gate_rate, encoder=config.encoder_rate, lm=config.lm_rate)
    decay = dict(gate=0.0, new_no_decay=0.0)
    return [
        {"params": p, "lr": rates.get(n, config.learning_rate), "base": rates.get(n, config.learning_rate),
         "weight_decay": decay.get(n, config.weight_decay), "name": n}
        for n, p in groups.items() if p
    ]  # fmt: skip


def scale_of(step: int, config: TrainingConfig) -> float:
    """Factor of the rates at `step`: linear warm-up, then cosine decay to `final_rate`."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.final_rate + (1 - config.final_rate) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def set_rates(optimizer, step: int, config: TrainingConfig):
    for group in optimizer.param_groups:
        group["lr"] = group["base"] * scale_of(step, config)


def average_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of the trainable weights, to be averaged over steps."""
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


@torch.no_grad()
def update_average(average: dict[str, torch.Tensor], model: nn.Module, decay: float, step: int):
    """average <- decay * average + (1 - decay) * weights; early on the decay is lower, so that the start fades."""
    decay = min(decay, (step + 1) / (step + 10))
    parameters = dict(model.named_parameters())
    names = list(average)
    torch._foreach_lerp_([average[n] for n in names], [parameters[n].detach() for n in names], 1 - decay)


class averaged:
    """Context manager: the model carries the averaged weights inside, its own again afterwards."""

    def __init__(self, model: nn.Module, average: dict[str, torch.Tensor] | None):
        self.model, self.average = model, average or {}

    def _swap(self):
        parameters = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, value in self.average.items():
                own = parameters[name].detach().clone()
                parameters[name].copy_(value)
                value.copy_(own)

    def __enter__(self):
        self._swap()
        return self.model

    def __exit__(self, *_):
        self._swap()
