"""One cell: train a system with one seed, score it, keep the rows, and the weights and the log where asked to."""

import json
import shutil
import time
from datetime import UTC, datetime

import torch

from harmonifuse_core.model.harmonifuse import HarmoniFuse, build_model
from harmonifuse_core.runs import RunFolder, StudyFolder, save_model, write_text
from harmonifuse_core.studies.plan import Cell, Study
from harmonifuse_core.studies.rows import write_cell
from harmonifuse_core.studies.scoring import Listener, score_model
from harmonifuse_core.training.loop import Trainer


def run_cell(
    study: Study, cell: Cell, folder: StudyFolder, listener: Listener, *, device: str = "cpu", keep_model: bool = False
) -> dict:
    """Train and score one cell and write its rows; returns its record. What an earlier, killed try left is forgotten.

    The same cell gives the same rows again on one machine with the same number of threads. Raises TrainingError,
    ValueError or OSError.
    """
    scratch = RunFolder(folder.scratch(cell.name))
    shutil.rmtree(scratch.path, ignore_errors=True)
    scratch.path.mkdir(parents=True)
    try:
        model, record = _train(cell, scratch, device)
        started = time.perf_counter()
        scored = score_model(model, study.evaluations, listener)
        record |= {
            "evaluate_seconds": round(time.perf_counter() - started, 2), "failed": json.dumps(scored.failed),
            "threads": torch.get_num_threads(), "date": datetime.now(UTC).isoformat(timespec="seconds"),
        }  # fmt: skip
        if keep_model:
            kept = folder.model(cell.name)
            save_model(model, kept, cell.config)
            write_text(kept.metrics_file, scratch.metrics_file.read_text())
        write_cell(folder, record, scored.utterances, scored.alphas)
    finally:
        shutil.rmtree(scratch.path, ignore_errors=True)
    return record


def _train(cell: Cell, scratch: RunFolder, device: str) -> tuple[HarmoniFuse, dict]:
    started, cpu = time.perf_counter(), time.process_time()
    torch.manual_seed(cell.seed)  # of the new modules' initial weights, as in `harmonifuse_core.train`
    model = build_model(cell.config.model)
    trainer = Trainer(cell.config, model, scratch, device)
    model = trainer.run()
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return model, {
        "cell": cell.name, "system": cell.system.name, "seed": cell.seed, "config_hash": cell.key,
        "tasks": ",".join(task.name for task in cell.config.model.tasks), "steps": cell.config.training.steps,
        "parameters": sum(n for n, _ in sizes), "trainable": sum(n for n, learns in sizes if learns),
        "train_seconds": round(time.perf_counter() - started, 2),
        "train_cpu_seconds": round(time.process_time() - cpu, 2),
        "speech_seconds": round(heard_seconds(trainer), 1),
        "losses": json.dumps(last_losses(scratch.metrics())),
    }  # fmt: skip


def heard_seconds(trainer: Trainer) -> float:
    """Seconds of speech in all training steps, by the manifests' durations."""
    steps = (trainer.batches.examples(step) for step in range(trainer.settings.steps))
    return sum(e.utterance.duration for examples in steps for rows in examples.values() for e in rows)


def last_losses(rows: list[dict]) -> dict[str, float]:
    """{task: mean loss over the last tenth of the logged steps}."""
    tail = rows[-max(1, len(rows) // 10) :]
    tasks = sorted({task for row in tail for task in row.get("tasks", {})})
    values = {task: [row["tasks"][task]["loss"] for row in tail if task in row["tasks"]] for task in tasks}
    return {task: round(sum(found) / len(found), 4) for task, found in values.items()}
