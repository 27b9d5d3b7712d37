"""The rows of one logged utterance, and those that analyses saved of it, as what a page shows. Pure."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from app import tables
from harmonifuse_core.model.harmonifuse import HarmoniFuseOutput
from harmonifuse_core.neighbours import Fusion

FACTS = ("dataset", "split", "speaker", "gender", "age", "language", "intensity")
SPAN = re.compile(r"(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?) s")


@dataclass(frozen=True)
class OverTime:
    """spans (F, 2) in seconds, scores (F,). answer: what was explained; method: by which method."""

    spans: np.ndarray
    scores: np.ndarray
    answer: str
    method: str


def facts(row: pd.Series) -> str:
    """Where it comes from, in one line."""
    parts = [f"{name} {row[name]}" for name in FACTS if name in row and pd.notna(row[name])]
    if "duration" in row and pd.notna(row["duration"]):
        parts.append(f"{row['duration']:.1f} s")
    return " · ".join(parts)


def grid(rows: pd.DataFrame, stage: str, part: str) -> tuple[list[str], np.ndarray]:
    """Task names and (K, L1) weights of one stage; rows of another number of layers are left out."""
    chosen = [(str(r.task), np.asarray(getattr(r, part), float)) for r in rows.itertuples() if r.stage == stage]
    chosen = [(task, row) for task, row in chosen if row.ndim == 1 and len(row) == len(chosen[0][1])]
    return [task for task, _ in chosen], np.stack([row for _, row in chosen]) if chosen else np.zeros((0, 0))


def weights_table(rows: pd.DataFrame) -> pd.DataFrame:
    """A row a task, stage and layer with whatever of alpha, share, bias and score is logged."""
    parts = [part for part in tables.PARTS if part in rows.columns]
    found = []
    for row in rows.itertuples():
        for layer, name in enumerate(tables.layer_names(len(row.alpha))):
            values = {part: float(getattr(row, part)[layer]) for part in parts}
            found.append({"task": row.task, "stage": row.stage, "layer": layer, "state": name, **values})
    return pd.DataFrame(found)


def route_of(rows: pd.DataFrame) -> dict[Fusion, np.ndarray]:
    """{(task, stage): alpha (L1,)}; of several prompts the first row counts."""
    found: dict[Fusion, np.ndarray] = {}
    for row in rows.itertuples():
        found.setdefault((str(row.task), str(row.stage)), np.asarray(row.alpha, float))
    return found


def route_of_answers(answers: Mapping[str, HarmoniFuseOutput]) -> dict[Fusion, np.ndarray]:
    """The same of answers that were just given."""
    return {
        (task, stage): np.asarray(tables.weights_of(answer, stage).alpha, float)
        for task, answer in answers.items()
        for stage in tables.STAGES
    }


def fusions_of(fusions: Iterable[Fusion]) -> str:
    """`asr, ser: encoder + lm` in words."""
    by_stages: dict[str, list[str]] = {}
    for task in dict.fromkeys(task for task, _ in fusions):
        stages = " + ".join(stage for other, stage in fusions if other == task)
        by_stages.setdefault(stages, []).append(task)
    return "; ".join(f"{', '.join(tasks)}: {stages}" for stages, tasks in by_stages.items())


def saved_damage(rows: pd.DataFrame) -> pd.DataFrame:
    """From rows of the analysis `faithfulness`: task, stage, layer, alpha, damage (rise of the loss in nats against the
    reference when the layer's weight becomes 0 and the others are scaled up). Empty where they are not there."""
    columns = ["task", "stage", "layer", "state", "alpha", "damage"]
    if not {"task", "stage", "condition", "weights", "layer", "loss", "alpha"} <= set(rows.columns):
        return pd.DataFrame(columns=columns)
    found = []
    for (task, stage), part in rows.groupby(["task", "stage"], sort=True):
        intact = part[part["condition"] == "intact"]
        removed = part[(part["condition"] == "zero") & (part["weights"] == "renormalised")]
        if intact.empty:
            continue
        alpha, loss = intact.iloc[0]["alpha"], float(intact.iloc[0]["loss"])
        for row in removed.sort_values("layer").itertuples():
            layer = int(row.layer)
            known = isinstance(alpha, (list, np.ndarray)) and layer < len(alpha)
            weight, name = float(alpha[layer]) if known else np.nan, "input" if layer == 0 else str(layer)
            found.append((task, stage, layer, name, weight, float(row.loss) - loss))
    return pd.DataFrame(found, columns=columns)


def saved_attribution(rows: pd.DataFrame, task: str) -> OverTime | None:
    """From rows of the analysis `attribution`: the frames' scores of one task's answer; None where there are none."""
    if not {"task", "method", "scores", "names", "answer"} <= set(rows.columns):
        return None
    mine = rows[(rows["task"] == task) & rows["method"].astype(str).str.startswith("frame_")]
    if mine.empty:
        return None
    row = mine.iloc[0]
    matches = [SPAN.fullmatch(str(name)) for name in row["names"]]
    if not matches or not all(matches) or len(matches) != len(row["scores"]):
        return None
    spans = np.array([[float(m[1]), float(m[2])] for m in matches])
    return OverTime(spans, np.asarray(row["scores"], float), str(row["answer"]), str(row["method"]))
