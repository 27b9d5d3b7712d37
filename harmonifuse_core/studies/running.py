"""A study's cells one after another: a cell that fails holds up no other, and what is left is said after each."""

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

from harmonifuse_core.allocation import keep_freed_memory
from harmonifuse_core.runs import StudyFolder
from harmonifuse_core.studies.cell import run_cell
from harmonifuse_core.studies.plan import Cell, Study
from harmonifuse_core.studies.rows import reuse_cell
from harmonifuse_core.studies.scoring import Listener
from harmonifuse_core.training.loop import TrainingError


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute with `count` threads, whatever the machine has: the order of sums, and so a trained model, hang on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run_cells(
    study: Study, todo: Sequence[Cell], folder: StudyFolder, donors: Sequence[StudyFolder],
    say: Callable[[str], None], *, megabytes: int, device: str, keep_models: bool = False,
) -> bool:  # fmt: skip
    """Train and score the cells one after another; True where one failed. What is left is said after each.

    Args:
        donors: studies whose equal cells are copied. say: takes a line of progress.
        megabytes: of encoded evaluation speech kept in memory. keep_models: keep every cell's weights.
    """
    keep_freed_memory()
    listener, seconds, failed = Listener(megabytes), {}, False
    say(f"{len(todo)} cells to do in this process; rows go to {folder.path}")
    for number, cell in enumerate(todo, 1):
        started = time.perf_counter()
        try:
            if source := reuse_cell(folder, cell, donors):
                say(f"[{number}/{len(todo)}] {cell.name}: the same cell as {source}, copied")
                continue
            record = run_cell(study, cell, folder, listener, device=device, keep_model=keep_models)
            words = f"training {record['train_seconds']:.0f} s, scoring {record['evaluate_seconds']:.0f} s"
            words += "" if record["failed"] == "[]" else f"; recordings left out: {record['failed']}"
        except Exception as error:  # whatever a cell does, the others must not wait for it
            failed, words = True, f"FAILED: {error}"
            if not isinstance(error, (TrainingError, ValueError, OSError)):
                say(traceback.format_exc())
        seconds.setdefault(cell.system.name, []).append(time.perf_counter() - started)
        left = remaining(todo[number:], seconds) / 60
        say(f"[{number}/{len(todo)}] {cell.name}: {words}; about {left:.0f} min left")
    return failed


def remaining(cells: Sequence[Cell], seconds: dict[str, list[float]]) -> float:
    """Seconds that `cells` will take, by what cells of the same system took, else by the mean of all."""
    every = [value for values in seconds.values() for value in values]
    means = {name: sum(values) / len(values) for name, values in seconds.items()}
    return sum(means.get(cell.system.name, sum(every) / len(every)) for cell in cells)
