"""Training state on disk, written atomically, without pickle: safetensors for every tensor, JSON for the rest.

A checkpoint is a folder `step-000123`; it is complete or it is not there. No random state is kept: batches,
augmentation and dropout are functions of (seed, step), see `data/batching.py` and `training/loop.py`.
"""

import json
import os
import re
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from harmonifuse_core.model.weights import load_state, unique_state

NAME = re.compile(r"step-(\d+)")


def list_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Complete checkpoints, oldest first."""
    found = [(int(match[1]), p) for p in Path(folder).glob("step-*") if (match := NAME.fullmatch(p.name))]
    return sorted(found)


def save_checkpoint(
    folder: Path, step: int, model, optimizer, average: dict[str, torch.Tensor] | None, keep: int, extra: dict
):
    """Write the state after `step` steps and drop all but the newest `keep` checkpoints."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"part-{step:06d}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    state = optimizer.state_dict()
    tensors = {f"{index}.{key}": v.contiguous() for index, slots in state["state"].items() for key, v in slots.items()}
    save_file(unique_state(model), partial / "model.safetensors")
    save_file(tensors, partial / "optimizer.safetensors")
    if average is not None:
        save_file(average, partial / "average.safetensors")
    (partial / "state.json").write_text(json.dumps({"step": step, **extra}))
    for file in partial.iterdir():
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    partial.rename(folder / f"step-{step:06d}")
    for _, old in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(old)


def load_checkpoint(path: Path, model, optimizer, average: dict[str, torch.Tensor] | None) -> dict:
    """Restore model, optimiser and average in place; returns what `state.json` holds (`step` and extras)."""
    path = Path(path)
    load_state(model, load_file(path / "model.safetensors"), str(path))
    slots: dict[int, dict] = {}
    for name, tensor in load_file(path / "optimizer.safetensors").items():
        index, _, key = name.partition(".")
        slots.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
    if average is not None:
        for name, tensor in load_file(path / "average.safetensors").items():
            average[name].copy_(tensor)
    return json.loads((path / "state.json").read_text())
