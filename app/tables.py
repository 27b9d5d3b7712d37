"""Answers and run files as data frames: what a figure shows, in rows that can be read and exported. Pure."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from harmonifuse_core.model.harmonifuse import HarmoniFuseOutput, LayerWeights

PARTS = ("alpha", "share", "bias", "score")
STAGES = {"encoder": "Encoder", "lm": "Language model"}


def layer_names(count: int) -> list[str]:
    """Layer 0 is the state before the first block."""
    return ["input", *(str(layer) for layer in range(1, count))]


def weights_of(answer: HarmoniFuseOutput, stage: str) -> LayerWeights:
    return answer.encoder if stage == "encoder" else answer.lm


def weights_table(answers: Mapping[str, HarmoniFuseOutput]) -> pd.DataFrame:
    """One row a task, stage and layer: alpha, effective share, bias (w or b) and input score (FFN)."""
    rows = []
    for task, answer in answers.items():
        for stage in STAGES:
            weights = weights_of(answer, stage)
            for layer, name in enumerate(layer_names(len(weights.alpha))):
                values = {part: float(getattr(weights, part)[layer]) for part in PARTS}
                rows.append({"task": task, "stage": stage, "layer": layer, "state": name, **values})
    return pd.DataFrame(rows)


def weights_grid(answers: Mapping[str, HarmoniFuseOutput], stage: str, part: str) -> np.ndarray:
    """(K, L1) of one part of the weights, rows in the order of `answers`."""
    return np.stack([getattr(weights_of(answer, stage), part) for answer in answers.values()])


def token_table(answer: HarmoniFuseOutput) -> pd.DataFrame:
    """One row a token: text, probability, LM alpha of every layer."""
    alpha = answer.token_weights.alpha[: len(answer.tokens)]
    table = pd.DataFrame(
        {
            "position": range(len(answer.tokens)),
            "token": list(answer.tokens),
            "probability": np.exp(answer.token_logprobs),
        }
    )
    for layer, name in enumerate(layer_names(alpha.shape[1])):
        table[f"alpha {name}"] = alpha[:, layer]
    return table


def probability_table(answers: Mapping[str, HarmoniFuseOutput]) -> pd.DataFrame:
    """One row a task and class."""
    rows = [(task, name, p) for task, answer in answers.items() for name, p in (answer.probabilities or {}).items()]
    return pd.DataFrame(rows, columns=["task", "class", "probability"])


def mel_table(mel: np.ndarray, seconds: float) -> pd.DataFrame:
    """The drawn spectrogram: a row a column of the picture, dB below the loudest cell of each mel band."""
    table = pd.DataFrame(mel.T, columns=[f"band {band}" for band in range(len(mel))])
    table.insert(0, "seconds", np.linspace(0, seconds, mel.shape[1]))
    return table


def change_table(stage: str, before: LayerWeights, after: LayerWeights) -> pd.DataFrame:
    """Default and edited alpha, and their difference, a row a layer."""
    table = pd.DataFrame({"stage": stage, "state": layer_names(len(before.alpha))})
    table["default"], table["edited"] = np.asarray(before.alpha, float), np.asarray(after.alpha, float)
    table["difference"] = table["edited"] - table["default"]
    return table


def number(value, digits: int = 3) -> str:
    """A number for reading; what is missing says so."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return "not available"
    return f"{value:.{digits}f}"


def percent(value, digits: int = 1) -> str:
    return "not available" if number(value) == "not available" else f"{100 * value:.{digits}f} %"


def interval(pair, digits: int = 1) -> str:
    """`95 % interval 8.1 to 12.4 %` of a (low, high) pair, or why there is none."""
    if not isinstance(pair, (list, tuple)) or len(pair) != 2 or "not available" in (number(pair[0]), number(pair[1])):
        return "no interval available"
    return f"{100 * pair[0]:.{digits}f} to {100 * pair[1]:.{digits}f} %"


MEASURES = (
    ("asr", "wer", "Word error rate (WER)", "utterances"), ("asr", "cer", "Character error rate (CER)", "utterances"),
    ("ser", "ua", "Unweighted accuracy (UA)", "utterances"), ("ser", "wa", "Weighted accuracy (WA)", "utterances"),
    ("ser", "macro_f1", "Macro F1", "utterances"), ("ser", "ece", "Calibration error (ECE)", "utterances"),
)  # fmt: skip


def results_table(evaluations: Mapping[str, dict]) -> pd.DataFrame:
    """One row an evaluation file and measure: value, interval, utterances, speakers, how the interval was made."""
    rows = []
    for name, result in evaluations.items():
        for task, scores in result.items():
            if not isinstance(scores, dict):
                continue
            for key, title in measures_of(scores):
                low, high = _pair(scores.get(f"{key}_ci"))
                rows.append({
                    "evaluation": name, "task": task, "measure": title, "key": key, "value": _number(scores.get(key)),
                    "low": low, "high": high, "utterances": _number(scores.get("utterances")),
                    "speakers": _number(scores.get("speakers")),
                    "interval": str(scores.get("ci_method", "not recorded")) if math.isfinite(low) else "none computed",
                })  # fmt: skip
    columns = ["evaluation", "task", "measure", "key", "value", "low", "high", "utterances", "speakers", "interval"]
    return pd.DataFrame(rows, columns=columns)


def measures_of(scores: Mapping) -> list[tuple[str, str]]:
    """The known measures that are there, in their order."""
    titles = {key: title for _, key, title, _ in MEASURES}
    return [(key, title) for key, title in titles.items() if key in scores]


def _number(value) -> float:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan


def _pair(pair) -> tuple[float, float]:
    if isinstance(pair, (list, tuple)) and len(pair) == 2:
        return _number(pair[0]), _number(pair[1])
    return math.nan, math.nan


def training_table(rows: Sequence[Mapping]) -> pd.DataFrame:
    """metrics.jsonl in long form: step, series (`loss asr`, `dev asr.wer`, `gradient norm`, `learning rate`), value."""
    found = []
    for row in rows:
        step = row.get("step")
        if not isinstance(step, (int, float)):
            continue
        tasks, dev = (row.get(name) if isinstance(row.get(name), dict) else {} for name in ("tasks", "dev"))
        found += [(step, "loss", t, e.get("loss")) for t, e in tasks.items() if isinstance(e, dict)]
        found += [(step, "dev", name, value) for name, value in dev.items()]
        found += [
            (step, "gradient norm", "all", row.get("gradient_norm")),
            (step, "learning rate", "all", row.get("lr")),
        ]
    table = pd.DataFrame(found, columns=["step", "kind", "series", "value"])
    table["value"] = pd.to_numeric(table["value"], errors="coerce")
    return table.dropna(subset=["value"])


def alpha_over_training(rows: Sequence[Mapping], task: str, stage: str) -> tuple[list[int], np.ndarray]:
    """Steps (N,) and the batch's mean alpha (N, L1) of one task and stage; rows of another width are left out."""
    steps, values = [], []
    for row in rows:
        entry = (row.get("tasks") or {}).get(task) if isinstance(row.get("tasks"), dict) else None
        alpha = entry.get(f"{stage}_alpha") if isinstance(entry, dict) else None
        if not isinstance(alpha, list) or not alpha or (values and len(alpha) != len(values[0])):
            continue
        if all(isinstance(v, (int, float)) and math.isfinite(v) for v in alpha):
            steps.append(int(row.get("step", len(steps))))
            values.append(alpha)
    return steps, np.array(values, np.float64).reshape(len(steps), len(values[0]) if values else 0)


def tasks_logged(rows: Sequence[Mapping]) -> list[str]:
    """Names of the tasks in metrics.jsonl, in their order."""
    found = [row["tasks"] for row in rows if isinstance(row.get("tasks"), dict)]
    return list(dict.fromkeys(str(task) for tasks in found for task in tasks))


def thinned(count: int, most: int) -> np.ndarray:
    """Indices of at most `most` of `count` items, ends included, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)) if count else np.zeros(0, int)
