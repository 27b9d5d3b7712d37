"""Fit class temperatures on dev: `python -m harmonifuse_core.calibrate --run RUN --manifest M.jsonl --split dev`.

`--manifest` with its selectors may be repeated for several corpora. Each classification head's temperature is fitted to
the least log loss over all of them, an utterance against the classes that its corpus has (as in training), and stored
with the run's weights; `evaluation/calibration.json` keeps what changed. The predicted classes stay as they are.
Exit code: 0, 1 where nothing could be fitted, 2 for wrong arguments.
"""

import argparse
import json
import shlex
import sys
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import torch
from scipy.special import softmax
from tqdm import tqdm

from harmonifuse_core.calibration import TEMPERATURE_BOUNDS, expected_calibration_error, fit_temperature, log_loss
from harmonifuse_core.inference.evaluation import check_label_map, task_label
from harmonifuse_core.inference.predict import PredictOptions
from harmonifuse_core.inference.selection import Selection, add_selection_arguments, selections_of
from harmonifuse_core.inference.sources import answer_sources
from harmonifuse_core.model.harmonifuse import HarmoniFuse
from harmonifuse_core.runs import RunFolder, load, save_model, write_json

ABSENT = -1e9  # logit of a class that a corpus lacks; finite, as the fit demands
SMALLEST = 1e-30  # a probability that float32 rounded to 0


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m harmonifuse_core.calibrate", description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True, help="run folder, whose weights get the temperatures")
    add_selection_arguments(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--progress", action="store_true", help="a progress bar on stderr")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        run, selections = RunFolder(options.run), selections_of(options)
        chosen = [selection.sources() for selection in selections]
        config, model = run.config(), load(run, options.device)
        heads = [task for task in model.config.tasks if not task.writes_text]
        if not heads:
            raise ValueError(f"{run.path} has no classification task: there is nothing to calibrate")
        for selection in selections:
            check_label_map(selection.label_map, heads)
    except (ValueError, OSError) as error:
        print(f"calibrate: {error}", file=sys.stderr)
        return 2
    gathered = {task.name: Logits() for task in heads}
    failed = []
    with tqdm(total=sum(map(len, chosen)), unit="file", disable=not options.progress, file=sys.stderr) as bar:
        for selection, sources in zip(selections, chosen, strict=True):
            failed += gather(model, sources, selection, gathered, bar.update)
    results = {
        name: calibrated(logits, float(model.heads[name].temperature))
        for name, logits in gathered.items()
        if logits.rows
    }
    if not results:
        print("calibrate: no utterance has a label that the model knows; see --label-map", file=sys.stderr)
        return 1
    for name, result in results.items():
        model.heads[name].temperature.fill_(result["temperature"])
    save_model(model, run, config)
    words = sys.argv[1:] if arguments is None else arguments
    record = {
        "tasks": results, "corpora": [s.as_dict() for s in selections], "failed": failed,
        "command": shlex.join(["python", "-m", "harmonifuse_core.calibrate", *words]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip
    write_json(run.part("evaluation", "calibration.json"), record)
    print(json.dumps(record, ensure_ascii=False) if options.json else table(results, failed))
    return 0


@dataclass
class Logits:
    """What one head says about labelled utterances: `rows` of C logits, classes that a corpus lacks at ABSENT."""

    rows: list[np.ndarray] = field(default_factory=list)
    references: list[int] = field(default_factory=list)
    speakers: set[str] = field(default_factory=set)
    left_out: Counter = field(default_factory=Counter)
    classes: set[str] = field(default_factory=set)


def gather(model: HarmoniFuse, sources, selection: Selection, gathered: dict[str, Logits], on_answer) -> list[dict]:
    """Add the logits of one corpus to `gathered`; returns its failures.

    The output has calibrated probabilities p only, which is enough: logits = temperature * log p, up to a constant.
    Recordings that were cut into segments carry a mean of probabilities, which has no logits, and are left out.
    """
    failed, corpus = [], {name: [] for name in gathered}
    for item in answer_sources(model, sources, PredictOptions(tasks=tuple(gathered))):
        on_answer()
        utterance = item.source.utterance
        if item.answers is None:
            failed.append({"id": utterance.id, "path": item.source.path, "error": item.error})
            continue
        for name, answer in item.answers.items():
            task = model.config.task(name)
            if (raw := utterance.field(task.field)) is None:
                continue
            label = task_label(raw, task, selection.label_map)
            if label is None or item.seconds > model.config.max_seconds:
                gathered[name].left_out[raw if label is None else "(longer than a segment)"] += 1
                continue
            p = np.array([answer.probabilities[x] for x in task.labels])
            logits = np.log(np.maximum(p, SMALLEST)) * float(model.heads[name].temperature)
            corpus[name].append((logits, task.labels.index(label), utterance.speaker or utterance.id))
    for name, rows in corpus.items():
        present = {reference for _, reference, _ in rows}
        labels = model.config.task(name).labels
        absent = [i for i in range(len(labels)) if i not in present]
        for logits, reference, speaker in rows:
            logits[absent] = ABSENT
            gathered[name].rows.append(logits)
            gathered[name].references.append(reference)
            gathered[name].speakers.add(speaker)
        gathered[name].classes |= {labels[i] for i in present}
    return failed


def calibrated(logits: Logits, before: float) -> dict:
    """The fit of one head, with log loss (nats) and expected calibration error before and after it."""
    rows, references = np.stack(logits.rows), np.array(logits.references)
    fitted, note = fit_temperature(rows, references), ""
    if fitted in TEMPERATURE_BOUNDS:
        note = f"no optimum between {TEMPERATURE_BOUNDS[0]:g} and {TEMPERATURE_BOUNDS[1]:g}: the temperature stays"
        fitted = before
    fitted = float(np.float16(fitted))  # as the weights store it, so that the numbers hold for what is loaded
    result = {"temperature_before": before, "temperature": fitted}
    for when, temperature in (("before", before), ("after", fitted)):
        p = softmax(rows / temperature, axis=1)
        result |= {f"nll_{when}": log_loss(references, p), f"ece_{when}": expected_calibration_error(references, p)}
    return result | {
        "utterances": len(rows), "speakers": len(logits.speakers), "classes": sorted(logits.classes),
        "left_out": dict(logits.left_out), "note": note,
    }  # fmt: skip


def table(results: dict, failed: list) -> str:
    lines = []
    for name, r in results.items():
        for key, words in (("temperature", "temperature"), ("nll", "log loss"), ("ece", "ECE")):
            after = r["temperature"] if key == "temperature" else r[f"{key}_after"]
            lines.append(f"{name}  {words} {r[f'{key}_before']:.4f} -> {after:.4f}")
        lines.append(f"{name}  {r['utterances']} utterances, {r['speakers']} speakers, {len(r['classes'])} classes")
        lines += [f"{name}  {r['note']}"] if r["note"] else []
    lines += [f"failed: {failure['id']}: {failure['error']}" for failure in failed]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
