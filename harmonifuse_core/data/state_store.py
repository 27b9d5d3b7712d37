"""Encoder states on disk: one safetensors file a recording, bounded in size, each whole or not there.

    FOLDER/ENCODER/encoder.json      what the encoder is, for readers
    FOLDER/ENCODER/ab/abcd....safetensors      states (L1, T, D), float16

ENCODER and the file's name are digests, of the encoder and of the samples that it heard.
"""

import json
import logging
import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

logger = logging.getLogger("harmonifuse.states")
RECOUNT = 256  # own writes between two looks at what other processes have written


class StateStore:
    """States of one encoder below `folder`, whose files together (of all encoders) stay below `gigabytes`.

    Several processes may share a folder: the same key always holds the same states. The bound is then kept to within
    `RECOUNT` recordings a process. What stands there is never replaced: a corpus that does not fit is read in full from
    disk as far as it goes, and its rest is computed, which is faster than to evict what the next pass needs first.
    """

    def __init__(self, folder: str | Path, encoder: str, description: dict, gigabytes: float):
        self.root, self.limit, self.full = Path(folder), int(gigabytes * 1e9), False
        self.folder = self.root / encoder
        self.folder.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "encoder.json").is_file():
            _replace(
                self.folder / "encoder.json", lambda path: path.write_text(json.dumps(description, indent=1) + "\n")
            )
        self.used, self.written = self._count(), 0

    def _count(self) -> int:
        return sum(path.stat().st_size for path in self.root.rglob("*.safetensors"))

    def path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"

    def get(self, key: str) -> torch.Tensor | None:
        """States (L1, T, D) under `key`, or None. A damaged file counts as absent."""
        try:
            return load_file(self.path(key))["states"]
        except FileNotFoundError:
            return None
        except (SafetensorError, KeyError, OSError):
            self.path(key).unlink(missing_ok=True)
            return None

    def put(self, key: str, states: torch.Tensor) -> torch.Tensor:
        """Keep `states` (L1, T, D) where there is room; returns them as a later `get` will: in float16 if they fit."""
        half = states.half()
        states = (half if bool(half.isfinite().all()) else states).contiguous().cpu()
        if self.used + states.nbytes > self.limit:
            self._say_full()
            return states
        path = self.path(key)
        path.parent.mkdir(exist_ok=True)
        _replace(path, lambda partial: save_file({"states": states}, partial))
        self.used, self.written = self.used + states.nbytes, self.written + 1
        if self.written % RECOUNT == 0:
            self.used = self._count()
        return states

    def _say_full(self):
        if not self.full:
            logger.warning(
                "state cache %s is full (%.1f of %.1f GB): further states are computed each time; raise the limit, or "
                "delete folders of encoders that are no longer used", self.root, self.used / 1e9, self.limit / 1e9,
            )  # fmt: skip
        self.full = True


def _replace(path: Path, write):
    """`write` a temporary file and put it in the place of `path` at once."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
