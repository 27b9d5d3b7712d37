"""May a run go on under this config? Only what does not change what is learnt may differ; more steps may be added."""

import logging

from harmonifuse_core.config import Config, to_dict

logger = logging.getLogger("harmonifuse.training")

# How often is written and looked, and where: no part of what is learnt.
FREE = {
    "title", "description", "data.cache_megabytes", "data.state_cache_gigabytes", "data.dev", "training.log_every",
    "training.eval_every", "training.checkpoint_every", "training.keep_checkpoints", "training.gradients_every",
    "training.keep_best", "training.patience", "training.export", "training.steps", "model.beams",
}  # fmt: skip


def differences(old: Config, new: Config) -> dict[str, tuple]:
    """{dotted field: (old, new)} of all fields that differ and matter to what is learnt."""
    found = {}

    def walk(one, other, path: str):
        if path in FREE or one == other:
            return
        if isinstance(one, dict) and isinstance(other, dict):
            for key in sorted({*one, *other}):
                walk(one.get(key), other.get(key), f"{path}.{key}".lstrip("."))
        elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
            for index, (a, b) in enumerate(zip(one, other, strict=True)):
                walk(a, b, f"{path}[{index}]")
        else:
            found[path] = (one, other)

    walk(to_dict(old), to_dict(new), "")
    return found


def check_resumable(old: Config, new: Config, step: int):
    """Raises ValueError, naming the fields, where `new` would go on with what `old` began, but otherwise."""
    if changed := differences(old, new):
        told = "; ".join(f"{name} was {a!r}, is {b!r}" for name, (a, b) in list(changed.items())[:5])
        more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
        raise ValueError(
            f"the config differs from the one that the checkpoint of step {step} was made with: {told}{more}. Resume "
            "with the old values, or begin another --run (with --init to start from these weights)"
        )
    if new.training.steps == old.training.steps:
        return
    if new.training.steps < step:
        raise ValueError(f"training.steps is {new.training.steps}, but the run is at step {step} already")
    moving = new.training.interleaving
    if moving.end_shares or moving.end_temperature:
        raise ValueError("training.steps cannot change where the interleaving moves over training: begin another --run")
    logger.info("training.steps was %d, is %d: rates decay to the new end from here", old.training.steps,
                new.training.steps)  # fmt: skip
