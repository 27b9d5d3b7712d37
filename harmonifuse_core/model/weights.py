"""Weights to and from safetensors: shards under a size, tied tensors once; complete, or an error says what lacks."""

import json
import re
from collections.abc import Collection
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import nn

SHARD_BYTES = 45 * 2**20
INDEX = "weights.json"


def names_fitting(pattern: str, names: Collection[str], asked: str) -> set[str]:
    """Those of `names` that begin with the regular expression `pattern`, which `asked` (an option, a field) gave.

    Raises ValueError where it is none, or fits no name.
    """
    try:
        found = {name for name in names if re.match(pattern, name)}
    except re.error as error:
        raise ValueError(f"{asked} {pattern!r} is no regular expression: {error}") from None
    if not found:
        raise ValueError(f"{asked} {pattern!r} fits no weight; names begin like {next(iter(names), '(there is none)')}")
    return found


def unique_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """`state_dict` without the second names of tied tensors (safetensors refuses shared memory)."""
    seen, state = set(), {}
    for name, tensor in model.state_dict().items():
        key = (tensor.data_ptr(), tensor.shape)
        if tensor.numel() and key in seen:
            continue
        seen.add(key)
        state[name] = tensor.detach().contiguous()
    return state


def load_state(model: nn.Module, state: dict[str, torch.Tensor], source: str, may_lack: bool = False) -> list[str]:
    """Copy `state` into the model; every tensor must be there, tied names aside, unless it `may_lack` some.

    Returns the names of those.
    """
    expected = set(unique_state(model))
    if (missing := sorted(expected - set(state))) and not may_lack:
        raise ValueError(
            f"{source} lacks {missing[0]!r} ({len(missing)} tensors missing): the weights are not of this config"
        )
    if unexpected := sorted(set(state) - set(model.state_dict())):
        raise ValueError(f"{source} holds {unexpected[0]!r}, which the config does not build")
    try:
        model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise ValueError(f"{source} does not fit the config: {str(error).splitlines()[-1].strip()}") from error
    return missing


def save_shards(model: nn.Module, folder: Path, dtype: torch.dtype = torch.float16):
    """Write `weights-K.safetensors` files of at most 45 MiB and an index; what stood there before goes.

    Tensors larger than a shard are cut along their first dimension; the index says how to join them.
    """
    (Path(folder) / INDEX).unlink(missing_ok=True)
    for old in Path(folder).glob("weights-*.safetensors"):
        old.unlink()
    shards, room = [{}], SHARD_BYTES
    joins: dict[str, list[str]] = {}
    for name, tensor in unique_state(model).items():
        tensor = tensor.cpu().to(dtype) if tensor.is_floating_point() else tensor.cpu()
        pieces = [tensor]
        if tensor.nbytes > SHARD_BYTES:
            pieces = list(tensor.chunk(-(-tensor.nbytes // SHARD_BYTES)))
        for number, piece in enumerate(pieces):
            key = name if len(pieces) == 1 else f"{name}#{number}"
            if piece.nbytes > room:
                shards.append({})
                room = SHARD_BYTES
            shards[-1][key] = piece.contiguous()
            room -= piece.nbytes
            joins.setdefault(name, []).append(key)
    files = {}
    for number, shard in enumerate(shards, 1):
        file = f"weights-{number}.safetensors"
        (Path(folder) / file).write_bytes(save(shard))  # save_file would keep it from every other reader of the run
        files[file] = sorted(shard)
    index = {
        "dtype": str(dtype).removeprefix("torch."),
        "files": files,
        "joined": {n: k for n, k in joins.items() if len(k) > 1},
    }
    (Path(folder) / INDEX).write_text(json.dumps(index, indent=1))


def load_shards(model: nn.Module, folder: Path, may_lack: bool = False) -> list[str]:
    """Read what `save_shards` wrote into the model, which keeps its own dtype; see `load_state`."""
    folder = Path(folder)
    if not (folder / INDEX).is_file():
        raise ValueError(
            f"{folder} has no {INDEX}: it holds no model, or its writing was cut off; export the run again"
        )
    index, state = json.loads((folder / INDEX).read_text()), {}
    for file in index["files"]:
        if Path(file).name != file or not (folder / file).is_file():
            raise ValueError(f"{folder} lacks the weight file {file!r}: copy the run folder again")
        state.update(load_file(folder / file))
    for name, keys in index["joined"].items():
        state[name] = torch.cat([state.pop(key) for key in keys])
    return load_state(model, state, str(folder), may_lack)
