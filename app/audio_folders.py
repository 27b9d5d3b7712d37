"""Where the recordings of logged utterances may lie on this machine. Pure.

Routing keeps an utterance's audio as its manifest names it, relative to the manifest. Only files below an allowed
folder are ever opened: whatever a run's file says, no path leads out of these.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from harmonifuse_core.inference.sources import AUDIO_SUFFIXES

DATA_VARIABLE = "HARMONIFUSE_DATA"


def data_folders(repository: Path) -> tuple[Path, ...]:
    """The folders that HARMONIFUSE_DATA lists (separated as in PATH), or `shared/data` beside the repository."""
    named = [Path(part) for part in os.environ.get(DATA_VARIABLE, "").split(os.pathsep) if part]
    return tuple(named or [repository.parent / "shared" / "data"])


def find_audio(name: str | None, folders: Sequence[Path]) -> Path | None:
    """The file `name` below one of `folders`, or None. Absolute names, `..` and links that lead out find nothing."""
    if not isinstance(name, str) or not name.strip() or "\x00" in name or Path(name).is_absolute():
        return None
    if Path(name).suffix.lower() not in AUDIO_SUFFIXES:
        return None
    for folder in folders:
        try:
            root = folder.resolve(strict=True)
            path = (root / name).resolve(strict=True)
        except (OSError, ValueError, RuntimeError):  # not there, a name that no file can have, a loop of links
            continue
        if path.is_relative_to(root) and path.is_file():
            return path
    return None
