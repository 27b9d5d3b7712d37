"""Does the input matter to alpha? alpha(x) replaced by weights that know less of x: what it costs, and what moves the
logits of alpha, the task's bias or the FFN.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from harmonifuse_core.analysis import replacements
from harmonifuse_core.analysis.faithfulness import movement
from harmonifuse_core.analysis.logits import logit_variance
from harmonifuse_core.analysis.paired import DEFINITION, counts, paired_change
from harmonifuse_core.analysis.registry import Analysis, Context
from harmonifuse_core.analysis.result import AnalysisResult, Table, Verdict, columns_of

QUESTION = "Does it matter that alpha depends on the input, or would weights that do not know it serve as well?"
SMALL = 0.01  # of the intact loss: a change whose interval stays inside makes no difference
REPLACEMENTS = (
    "alpha of one fusion (stage) is replaced, the other stays the model's own. task_mean: mean alpha of the task over "
    "a sample of at most 64 utterances, those of the utterance's own speaker left out; other_utterance: of another "
    "utterance of the batch (of text, its mean over tokens), of another speaker where there is one; task:NAME: of "
    "task NAME on the same speech under NAME's prompt (of the LM, at its first answer position); uniform: 1 / L1; "
    "one_hot_best: 1 for the layer which alone gives the least mean loss on the sample, the utterance's own speaker "
    "left out (with one speaker in the sample: the utterance itself); own_mean (LM, text): its own mean over the "
    "reference's tokens. against: what it is compared with, the model's own alpha or own_mean, which separates what "
    "the utterance tells from what its tokens do."
)
LOGITS = (
    "Mean square of alpha's logits over layers and utterances, after the mean over layers is taken off (softmax does "
    "not see it), split exactly: bias (the task's learned scalars), constant_score (the FFN's mean over utterances), "
    "twice their covariance, between_utterances (variance of the FFN's score; of text, of its mean over tokens), "
    "between_tokens (variance within a text, LM only). share_X: part of the sum; moving: between_utterances and "
    "between_tokens together, with a 95 % percentile bootstrap interval over speakers."
)


def summarise(rows: pd.DataFrame, context: Context) -> AnalysisResult:
    """Raises ValueError where no utterance has a label of any task."""
    if rows.empty:
        raise ValueError(
            "no utterance has a label of one of the model's tasks: choose another --manifest, or --label-map"
        )
    options = {"resamples": context.resamples, "seed": context.seed}
    tables, verdicts = {"replacements": [], "by_dataset": [], "logits": []}, []
    for (task, stage), part in rows.groupby(["task", "stage"], sort=True):
        where = {"task": task, "stage": stage}
        changes = [where | row for row in replacement_rows(part, **options)]
        own = part[part["replacement"] == "own"]
        tables["replacements"] += changes
        tables["logits"].append(logits := where | logit_row(own, **options))
        verdicts += verdicts_of(f"{stage} / {task}", own, changes, logits)
        datasets = sorted(own["dataset"].dropna().unique())
        for dataset in datasets if len(datasets) > 1 else ():
            some = replacement_rows(part[part["dataset"] == dataset], **options)
            tables["by_dataset"] += [{"dataset": dataset} | where | row for row in some]
    definitions = {
        "replacements": f"{REPLACEMENTS} {DEFINITION}",
        "by_dataset": f"The same for each corpus apart. {REPLACEMENTS} {DEFINITION}",
        "logits": LOGITS,
    }
    return AnalysisResult(
        ANALYSIS.name, QUESTION, tuple(Table(n, definitions[n], tuple(r)) for n, r in tables.items() if r),
        tuple(verdicts), rows["utterance"].nunique(), rows["speaker"].nunique(),
    )  # fmt: skip


def replacement_rows(part: pd.DataFrame, **options) -> Iterator[dict]:
    """One row for each replacement of one task and stage, against the model's own alpha and against own_mean."""
    frames = {name: rows.set_index("utterance") for name, rows in part.groupby("replacement", sort=False)}
    for against in ("own", replacements.OWN_MEAN):
        for name, changed in frames.items():
            if against not in frames or name in ("own", against):
                continue
            row = {"replacement": name, "against": against}
            row |= paired_change(changed, frames[against].loc[changed.index], **options)
            chosen = changed["layer"].dropna().astype(int).value_counts()
            yield row | {"layers_chosen": {str(layer): int(count) for layer, count in chosen.items()} or None}


def logit_row(own: pd.DataFrame, **options) -> dict:
    bias, score = (np.stack(own[name].to_list()).astype(float) for name in ("bias", "score"))
    found = logit_variance(bias[0], score, own["speaker"].tolist(), own["score_spread"].to_numpy(float), **options)
    row = dict(found.values) | {f"share_{name}": value for name, value in found.shares.items()}
    return row | columns_of("moving", found.moving) | counts(own)


def verdicts_of(about: str, own: pd.DataFrame, changes: list[dict], logits: dict) -> Iterator[Verdict]:
    alpha = np.stack(own["alpha"].to_list()).astype(float)
    verdict, evidence = movement(alpha)
    still = verdict.startswith("constant") and not logits["between_tokens"] > 0
    if logits["moving"] is not None and np.isfinite(logits["moving"]):
        evidence += f" Of the logits' mean square {logits['moving']:.1%} moves with the input."
    tested = {row["replacement"]: row for row in changes if row["against"] == "own"}
    row = tested.get(replacements.TASK_MEAN) or tested.get(replacements.OTHER)
    if row is None:
        yield Verdict(about, verdict if still else "undecided", f"{evidence} One utterance: nothing to replace it by.")
        return
    yield Verdict(about, verdict if still else judged(row), f"{evidence} {_told(row, changes)}")


def _told(row: dict, changes: list[dict]) -> str:
    """What the replacements do, in a sentence or three."""
    loss = f"With {row['replacement']} the loss changes by {_text(row, 'loss_change')} nats of {row['loss']:.3f}"
    metric = ""
    if row["metric"]:
        metric = f", {row['metric']} by {_text(row, 'metric_change')} of {row['metric_intact']:.3f}"
    sentences = [f"{loss}{metric}; {row['n']} utterances, {row['speakers']} speakers."]
    left = [r for r in changes if r["against"] == "own" and r["replacement"] != row["replacement"]]
    listed = ", ".join(f"{other['replacement']} {_text(other, 'loss_change')}" for other in left)
    sentences.append(f"The others: {listed}.")
    for other in changes:
        if other["against"] == replacements.OWN_MEAN and other["replacement"] == replacements.TASK_MEAN:
            change = _text(other, "loss_change")
            sentences.append(
                f"Of task_mean {change} is the utterance's part; the rest is alpha's way from token to token."
            )
    return " ".join(sentences)


def judged(row: dict) -> str:
    """By the interval of the loss change: above 0, below 0, inside of 1 % of the intact loss, or none of these."""
    low, high = row["loss_change_low"], row["loss_change_high"]
    if low is None:
        return "undecided"
    if max(abs(low), abs(high)) <= SMALL * abs(row["loss"]):
        return "the input makes no difference"
    if low > 0:
        return "the input matters"
    return "the input misleads" if high < 0 else "undecided"


def _text(row: dict, column: str) -> str:
    value, low, high = (row[name] for name in (column, f"{column}_low", f"{column}_high"))
    return f"{value:+.4f}" + ("" if low is None else f" [{low:+.4f}, {high:+.4f}]")


ANALYSIS = Analysis("input_dependence", QUESTION, replacements.measure, summarise, replacements.survey)
