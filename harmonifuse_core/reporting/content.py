"""What a run's report says, read from the run's own files. What is missing or damaged is named, with the command that
makes it; nothing is computed that the files do not hold.
"""

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from harmonifuse_core.config import Config
from harmonifuse_core.reporting import figures
from harmonifuse_core.reporting.page import Figure, Section, Table
from harmonifuse_core.routing import STAGES
from harmonifuse_core.runs import RunError, RunFolder

MEASURES = {"wer": "WER", "cer": "CER", "ua": "UA", "wa": "WA", "macro_f1": "macro F1", "ece": "ECE"}
DRAWN = {"Error rates, lower is better": ("wer", "cer"), "Accuracies, higher is better": ("ua", "wa")}
CALIBRATION = "calibration.json"  # temperatures, no scores
STAGE_TITLES = {"encoder": "encoder", "lm": "language model"}
MOST_ROWS = 40
READING = (
    "Layer 0 (input) is the state before the first block, layer k the output of block k.",
    "Alpha is the weight that a task gives to each layer's state; every row sums to 1. Effective share is alpha times "
    "the length of that state, scaled to sum 1: what the layer really brings to the sum.",
    "A weight says what was mixed in, not what would be missed: only the analyses that remove layers speak of that.",
    "Intervals are 95 % bootstrap intervals over speakers. With few speakers they are too narrow. They speak of other "
    "speakers of the same kind, not of another corpus.",
    "WER and CER are errors over reference words and characters of the whole corpus; UA is the mean recall over the "
    "classes, WA the share of right answers, ECE the mean distance of confidence and accuracy.",
)


def sections_of(run: RunFolder, config: Config) -> list[Section]:
    """All sections in their order."""
    return [
        about(run, config),
        results(run),
        layer_weights(run),
        training(run, config),
        *found(run, "analysis", "Analysis"),
        *found(run, "probes", "Probes"),
        Section("How to read this", READING),
    ]


def about(run: RunFolder, config: Config) -> Section:
    model, notes = config.model, []
    if not run.metrics() and not (set(run.names("evaluation", ".json")) - {CALIBRATION}):
        notes.append("This run is untrained: no training log, no evaluation. Its numbers mean nothing.")
    rows = [
        ("encoder", f"{Path(model.encoder.name).name} ({model.encoder.finetune})"),
        ("encoder gate", model.gate.mode + (", with an input score" if model.gate.input_score else "")),
        ("language model", f"{model.lm.kind}, fusion {model.lm.fusion}, FFN reads {model.lm.ffn_input}"),
        ("tasks", ", ".join(task.name for task in model.tasks)),
        ("seed", config.training.seed),
    ]
    rows += [(f"prompt of {task.name}", task.default_prompt) for task in model.tasks]
    corpora = tuple((Path(c.manifest).stem, c.task, c.split or "all", float(c.weight)) for c in config.data.train)
    tables = [Table("", ("what", "value"), tuple(rows))]
    if corpora:
        tables.append(Table("Training corpora", ("corpus", "task", "split", "weight"), corpora))
    paragraphs = tuple(part.strip() for part in config.description.split("\n\n") if part.strip())
    return Section("What this run is", paragraphs, tuple(notes), tables=tuple(tables))


# --- results ---


def results(run: RunFolder) -> Section:
    rows, notes = [], []
    for name, scores in _json_files(run, "evaluation", notes):
        for task, values in scores.items():
            if isinstance(values, dict):
                rows += _measures(name, task, values)
    if not rows:
        command = f"python -m harmonifuse_core.evaluate --run {_path(run)} --manifest M.jsonl --split test --save test"
        return Section("Results", ("No evaluation is saved in this run. Score it with:",), tuple(notes), (command,))
    drawn = []
    for title, keys in DRAWN.items():
        chosen = [row for row in rows if row[2] in {MEASURES[key] for key in keys}][:MOST_ROWS]
        if chosen:
            names = [f"{row[0]} · {row[1]} · {row[2]}" for row in chosen]
            columns = [[row[place] for row in chosen] for place in (3, 4, 5)]
            drawn.append(
                Figure(title, figures.intervals(names, *columns, "value, 95 % interval"), f"{title}; see table")
            )
    head = ("evaluation", "task", "measure", "value", "low", "high", "utterances", "speakers", "interval")
    return Section("Results", (), tuple(notes), figures=tuple(drawn), tables=(Table("", head, tuple(rows)),))


def _measures(name: str, task: str, values: Mapping) -> Iterator[tuple]:
    for key, title in MEASURES.items():
        value = _number(values.get(key))
        if value is None:
            continue
        pair = values.get(f"{key}_ci")
        low, high = map(_number, pair) if isinstance(pair, list) and len(pair) == 2 else (None, None)
        counts = [values.get(count) if isinstance(values.get(count), int) else None for count in COUNTS]
        how = str(values.get("ci_method", "not recorded")) if low is not None else "none computed"
        yield (name, task, title, value, low, high, *counts, how)


COUNTS = ("utterances", "speakers")


# --- weights ---


def layer_weights(run: RunFolder) -> Section:
    """Mean alpha and share of every logged file and task, both fusions on one scale."""
    notes: list[str] = []
    means = [row for name in run.names("routing", ".parquet") for row in _means(run, name, notes)][: 2 * MOST_ROWS]
    if not means:
        command = f"python -m harmonifuse_core.evaluate --run {_path(run)} --manifest M.jsonl --split test --save test"
        text = ("No routing is logged in this run. An evaluation with --save writes it:",)
        return Section("Which layers the tasks use", text, tuple(notes), (command,))
    drawn, rows = [], []
    maximum = figures.shared_maximum(
        [grid for *_, alpha, _, share in means for grid in (alpha, share) if grid is not None]
    )
    for stage in STAGES:
        mine = [row for row in means if row[1] == stage]
        width = len(mine[0][4]) if mine else 0
        mine = [row for row in mine if len(row[4]) == width]
        for part, place in (("alpha", 4), ("effective share", 6)):
            chosen = [row for row in mine if row[place] is not None]
            if chosen:
                names = [f"{row[0].upper()} · {row[2]} ({row[3]})" for row in chosen]
                grid = np.stack([row[place] for row in chosen])
                title = f"Mean {part}, {STAGE_TITLES[stage]}"
                spec = figures.heatmap(grid, names, figures.layer_names(width), maximum, "layer")
                drawn.append(Figure(title, spec, f"{title} by task and evaluation; the table has the numbers"))
    for task, stage, name, count, alpha, deviation, share in means:
        for layer in range(len(alpha)):
            brought = None if share is None else float(share[layer])
            rows.append((task, stage, name, count, layer, float(alpha[layer]), float(deviation[layer]), brought))
    head = ("task", "stage", "evaluation", "utterances", "layer", "mean alpha", "std alpha", "mean share")
    text = (f"Means over logged utterances; all maps share one colour scale, 0 to {maximum:g}.",)
    return Section(
        "Which layers the tasks use", text, tuple(notes), figures=tuple(drawn), tables=(Table("", head, tuple(rows)),)
    )


def _means(run: RunFolder, file: str, notes: list[str]) -> Iterator[tuple]:
    """(task, stage, evaluation, n, mean alpha (L1,), its standard deviation, mean share or None) of a routing file."""
    try:
        names = set(pq.read_schema(run.part("routing", file)).names)
        columns = [c for c in ("task", "stage", "alpha", "share") if c in names]
        table = pq.read_table(run.part("routing", file), columns=columns)
        tasks, stages = (np.array(table[name].to_pylist(), object) for name in ("task", "stage"))
    except (OSError, pa.ArrowException, KeyError) as error:
        notes.append(f"routing/{file} cannot be read ({' '.join(str(error).split())[:120]}): make it again")
        return
    for task, stage in sorted({(str(t), str(s)) for t, s in zip(tasks, stages, strict=True)}):
        places = pa.array(np.flatnonzero((tasks == task) & (stages == stage)))
        alpha = _matrix(table["alpha"].take(places))
        if alpha is None or stage not in STAGES:
            notes.append(f"routing/{file}: rows of {task} / {stage} differ in their number of layers: left out")
            continue
        share = _matrix(table["share"].take(places)) if "share" in columns else None
        mean = None if share is None else share.mean(0)
        yield task, stage, file.removesuffix(".parquet"), len(alpha), alpha.mean(0), alpha.std(0), mean


def _matrix(column: pa.ChunkedArray) -> np.ndarray | None:
    rows = column.combine_chunks()
    lengths = set(rows.value_lengths().to_pylist())
    if len(lengths) != 1 or None in lengths or 0 in lengths:
        return None
    return rows.flatten().to_numpy(zero_copy_only=False).astype(float).reshape(len(rows), lengths.pop())


# --- training ---


def training(run: RunFolder, config: Config) -> Section:
    rows = [row for row in run.metrics() if isinstance(row, dict) and _number(row.get("step")) is not None]
    if not rows:
        command = f"python -m harmonifuse_core.train --config {_path(run)}/config.yaml --run {_path(run)} --resume"
        return Section("Training", ("metrics.jsonl is empty or missing. Train, or go on:",), commands=(command,))
    drawn = []
    for title, kind in (("Loss of each task", "tasks"), ("Scores on the dev corpora", "dev")):
        if series := _series(rows, kind):
            drawn.append(Figure(title, figures.lines(series, "training step", title.split()[0].lower()), title))
    alphas = {
        (task.name, stage): found
        for task in config.model.tasks
        for stage in STAGES
        if (found := _alpha_over_steps(rows, task.name, stage)) is not None
    }
    maximum = figures.shared_maximum([alpha for _, alpha in alphas.values()])
    for (task, stage), (steps, alpha) in alphas.items():
        title = f"Alpha over training, {task.upper()}, {STAGE_TITLES[stage]}"
        drawn.append(Figure(title, figures.over_steps(steps, alpha, maximum), title))
    last = max(row["step"] for row in rows)
    return Section("Training", (f"{len(rows)} logged steps, the last one is {last:g}.",), figures=tuple(drawn))


def _series(rows: Sequence[Mapping], kind: str) -> dict[str, tuple[list, list]]:
    series: dict[str, tuple[list, list]] = {}
    for row in rows:
        entries = row.get(kind) if isinstance(row.get(kind), dict) else {}
        for name, entry in entries.items():
            value = _number(entry.get("loss") if isinstance(entry, dict) else entry)
            if value is not None:
                steps, values = series.setdefault(str(name), ([], []))
                steps.append(row["step"])
                values.append(value)
    return series


def _alpha_over_steps(rows: Sequence[Mapping], task: str, stage: str) -> tuple[list[int], np.ndarray] | None:
    steps, values = [], []
    for row in rows:
        entry = (row.get("tasks") or {}).get(task) if isinstance(row.get("tasks"), dict) else None
        alpha = entry.get(f"{stage}_alpha") if isinstance(entry, dict) else None
        usable = isinstance(alpha, list) and alpha and all(_number(v) is not None for v in alpha)
        if usable and (not values or len(alpha) == len(values[0])):
            steps.append(int(row["step"]))
            values.append(alpha)
    return (steps, np.array(values, float)) if values else None


# --- analyses and probes ---


def found(run: RunFolder, kind: str, title: str) -> Iterator[Section]:
    """A section for each saved result: its question, how many utterances, its verdicts; layer curves of probes."""
    notes: list[str] = []
    for name, stored in _json_files(run, kind, notes):
        verdicts = tuple(
            (str(v.get("about", "")), str(v.get("verdict", "")), str(v.get("evidence", "")))
            for v in _listed(stored, "verdicts")
        )
        question = str(stored.get("question", "")) or "No question is recorded."
        counted = f"{stored.get('utterances', 'unknown')} utterances, {stored.get('speakers', 'unknown')} speakers."
        caution = (str(stored["caution"]),) if stored.get("caution") else ()
        curves = tuple(probe_curves(stored)) if kind == "probes" else ()
        yield Section(f"{title}: {name}", (question, counted), caution, verdicts=verdicts, figures=curves)
    if notes:
        yield Section(f"{title}: damaged files", notes=tuple(notes))


def probe_curves(stored: Mapping) -> Iterator[Figure]:
    """Score by layer, a line a target and probe, for each stage and metric of a probe result's table `layers`."""
    tables = stored.get("tables") if isinstance(stored.get("tables"), dict) else {}
    panels: dict[tuple[str, str], dict[str, tuple[list, list]]] = {}
    for row in _listed(tables.get("layers"), "rows"):
        layer, score = _number(row.get("layer")), _number(row.get("score"))
        if layer is None or score is None:
            continue
        panel = panels.setdefault((str(row.get("stage", "")), str(row.get("metric", "score"))), {})
        name = " · ".join(str(row[key]) for key in ("task", "target", "probe") if row.get(key))
        x, y = panel.setdefault(name, ([], []))
        x.append(layer)
        y.append(score)
    for (stage, metric), series in panels.items():
        title = f"Score by layer, {STAGE_TITLES.get(stage, stage)}, {metric}"
        yield Figure(title, figures.lines(series, "layer", metric), title)


# --- reading ---


def _json_files(run: RunFolder, kind: str, notes: list[str]) -> Iterator[tuple[str, dict]]:
    for file in run.names(kind, ".json"):
        if file == CALIBRATION:
            continue
        try:
            stored = run.read_json(kind, file)
        except (RunError, OSError, UnicodeDecodeError):
            stored = None
        if isinstance(stored, dict):
            yield file.removesuffix(".json"), stored
        else:
            notes.append(f"{kind}/{file} is damaged: make it again")


def _listed(value, key: str) -> list[dict]:
    """The dictionaries of a list that stands under `key`; nothing where it does not."""
    rows = value.get(key) if isinstance(value, dict) else None
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _number(value) -> float | None:
    known = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if known else None


def _path(run: RunFolder) -> str:
    return shlex.quote(f"runs/{run.name}")
