"""What a change does to loss and to the task's own measure, on the same utterances: differences with intervals.

Frames hold one row an utterance: `speaker`, `loss`, and where known `error` and `words` (text: word errors and
reference words; classes: 0 / 1 and 1), `predicted` and `label`.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from harmonifuse_core.analysis.clustered import rate, rate_comparison
from harmonifuse_core.analysis.result import columns_of
from harmonifuse_core.metrics import paired_accuracy_bootstrap

DEFINITION = (
    "loss_change is the mean over utterances of loss with the change minus loss without it (nats; text: mean over the "
    "reference's tokens, teacher-forced; classes: -log p of the reference class); metric_change is WER (fraction, "
    "greedy decoding, errors over reference words of all utterances) or UA (macro recall over the classes present) "
    "with the change minus without it on the same utterances. Intervals: 95 % percentile bootstrap over speakers, "
    "paired."
)


def paired_change(changed: pd.DataFrame, intact: pd.DataFrame, *, resamples: int = 2000, seed: int = 0) -> dict:
    """Columns of a table for two frames of the same utterances in the same order; None where a measure is missing."""
    options = {"resamples": resamples, "seed": seed}
    speakers = intact["speaker"].tolist()
    loss = rate_comparison("loss", changed["loss"].to_numpy() - intact["loss"].to_numpy(), speakers, **options)
    row = {"loss": float(intact["loss"].mean())} | columns_of("loss_change", loss.difference)
    row |= {"loss_p": loss.p_value} | metric_change(changed, intact, **options)
    return row | counts(intact)


def metric_change(changed: pd.DataFrame, intact: pd.DataFrame, *, resamples: int, seed: int) -> dict:
    """metric (`WER` or `UA`), its value without the change, and the difference with its interval and p value."""
    options, speakers = {"resamples": resamples, "seed": seed}, intact["speaker"].tolist()
    missing = {"metric": None, "metric_intact": None}
    missing |= {"metric_change": None, "metric_change_low": None, "metric_change_high": None, "metric_p": None}
    if not (has(changed, "error") and has(intact, "error")):
        return missing
    words = intact["words"].to_numpy(np.float64)
    if has(intact, "label"):
        names = sorted({*intact["label"], *intact["predicted"], *changed["predicted"]})
        index = {name: i for i, name in enumerate(names)}
        label, after, before = (
            column.map(index).to_numpy(int) for column in (intact["label"], changed["predicted"], intact["predicted"])
        )
        recalls = [float((before[label == c] == c).mean()) for c in np.unique(label)]
        found = paired_accuracy_bootstrap(label, after, before, speakers, metric="ua", **options)
        name, value = "UA", float(np.mean(recalls))
    elif words.sum() > 0:
        errors, name = (frame["error"].to_numpy(np.float64) for frame in (changed, intact)), "WER"
        errors = list(errors)
        value = float(errors[1].sum() / words.sum())
        found = rate_comparison(name, errors[0] - errors[1], speakers, words, **options)
    else:
        return missing
    return {"metric": name, "metric_intact": value, **columns_of("metric_change", found.difference)} | {
        "metric_p": found.p_value
    }


def has(frame: pd.DataFrame, column: str) -> bool:
    """Every row has a value."""
    return column in frame and bool(frame[column].notna().all())


def counts(frame: pd.DataFrame) -> dict:
    return {"n": len(frame), "speakers": int(frame["speaker"].nunique())}


def mean_columns(name: str, values: Sequence[float], speakers: Sequence[str], *, resamples: int, seed: int) -> dict:
    """`name`, `name_low`, `name_high` of a mean over utterances."""
    return columns_of(name, rate(values, speakers, resamples=resamples, seed=seed))
