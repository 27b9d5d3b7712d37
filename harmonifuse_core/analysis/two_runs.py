"""Two runs side by side, paired by utterance over one evaluation: whose answers are better, and which weights moved.

    compare_runs(read_routing(a), read_routing(b), "test").table("scores").rows

Everything is B minus A. Shapes: `N` utterances that both runs answered, `L1` states, layer 0 before the first block.
"""

import re
from collections.abc import Iterator

import numpy as np
import pandas as pd
from safetensors import safe_open

from harmonifuse_core.analysis.clustered import rate, rate_comparison
from harmonifuse_core.analysis.result import AnalysisResult, Table, Verdict, columns_of
from harmonifuse_core.bootstrap import Comparison, holm
from harmonifuse_core.metrics import paired_accuracy_bootstrap
from harmonifuse_core.routing import STAGES, RoutingError, jensen_shannon, weight_matrix
from harmonifuse_core.runs import RunError, RunFolder

NAME = "two_runs"
QUESTION = "Which run answers better on the same utterances, and which weights moved?"
SIGNIFICANT = 0.05
RESAMPLES, MOST_DRAWS = 2000, 20_000_000  # fewer resamples where speakers are so many that draws would take minutes
COLUMNS = [
    "utterance", "speaker", "task", "stage", "alpha", "share", "reference", "prediction", "errors", "reference_words",
]  # fmt: skip
SCORES = (
    "One row a task and measure over the n utterances that both runs answered with the same reference. a, b: the "
    "measure of each run (WER: word errors over reference words, lower is better; UA: mean recall of the classes "
    "present, WA: share right, higher is better). difference: b minus a, paired by utterance, with a 95 % percentile "
    "bootstrap interval over speakers; p two-sided, p_holm: Holm's correction over the rows of this table. better: the "
    "run that wins with p_holm below 0.05. left_out: utterances that one run lacks, or that have other references."
)
ANSWERS = (
    "Shares of the n utterances: both right, only run A right, only run B right, none right (text: no word wrong); "
    "same: both gave the same answer."
)
ALPHA = (
    "Mean weight of each layer in both runs over the n utterances that both answered; difference: b minus a, paired "
    "by utterance, 95 % percentile bootstrap interval over speakers; share_a, share_b: mean effective share. Encoder "
    "weights are the gate's, LM weights those of the answer (text: mean over its tokens)."
)
DIVERGENCE = (
    "Mean Jensen-Shannon divergence (bits, 0 to 1) between the alpha of run A and of run B on the same utterance, with "
    "a 95 % percentile bootstrap interval over speakers. 0: the same weights."
)


def compare_runs(a: pd.DataFrame, b: pd.DataFrame, evaluation: str, *, seed: int = 0) -> AnalysisResult:
    """Routing rows of both runs (all stages and tasks) to scores, answers, alpha and divergence.

    Raises RoutingError where they have no task or no utterance in common.
    """
    scores, answers, alpha, divergence, missing, seen = [], [], [], [], [], {}
    for task in sorted(set(a["task"]) & set(b["task"])):
        for stage in STAGES:
            one, two, left_out = paired_rows(a, b, task, stage)
            if not len(one):
                continue
            how = {"resamples": resamples_for(one), "seed": seed}
            seen |= dict(zip(one.index, speakers_of(one), strict=True))
            if stage == STAGES[0]:
                scores += [row | {"left_out": left_out} for row in score_rows(task, one, two, **how)]
                answers += answer_rows(task, one, two)
            found = alpha_rows(task, stage, one, two, **how)
            alpha += found
            if found:
                divergence.append(divergence_row(task, stage, one, two, **how))
            else:
                counts = [len(frame["alpha"].iloc[0]) for frame in (one, two)]
                why = f"{counts[0]} states in A, {counts[1]} in B: layers do not compare."
                missing.append(Verdict(f"{stage} / {task}", "not available", why))
    if not seen:
        raise RoutingError("the runs answered no utterance and task in common: evaluate both on the same manifest")
    correct_for_many(scores)
    tables = {"scores": scores, "answers": answers, "alpha": alpha, "divergence": divergence}
    definitions = {"scores": SCORES, "answers": ANSWERS, "alpha": ALPHA, "divergence": DIVERGENCE}
    return AnalysisResult(
        NAME, QUESTION, tuple(Table(n, definitions[n], tuple(rows)) for n, rows in tables.items() if rows),
        (*map(verdict_of, scores), *missing), len(seen), len(set(seen.values())),
    )  # fmt: skip


def paired_rows(a: pd.DataFrame, b: pd.DataFrame, task: str, stage: str) -> tuple[pd.DataFrame, pd.DataFrame, int]:
    """Rows of both runs by utterance, in the same order, and how many utterances were left out.

    Of several prompts the first row counts. A reference that differs is another question, so its utterance goes.
    """
    frames = []
    for frame in (a, b):
        rows = frame[(frame["task"] == task) & (frame["stage"] == stage)]
        frames.append(rows.drop_duplicates("utterance").set_index("utterance"))
    both = frames[0].index.intersection(frames[1].index)
    one, two = (frame.loc[both] for frame in frames)
    same = (one["reference"].fillna("") == two["reference"].fillna("")).to_numpy()
    everything = len(frames[0].index.union(frames[1].index))
    return one[same], two[same], everything - int(same.sum())


def speakers_of(frame: pd.DataFrame) -> list[str]:
    """An utterance without a speaker is its own."""
    return [str(s) if isinstance(s, str) and s else str(u) for u, s in zip(frame.index, frame["speaker"], strict=True)]


def resamples_for(frame: pd.DataFrame) -> int:
    return int(min(RESAMPLES, max(100, MOST_DRAWS // max(1, len(set(speakers_of(frame)))))))


def score_rows(task: str, one: pd.DataFrame, two: pd.DataFrame, **how) -> Iterator[dict]:
    """WER where word counts are logged, UA and WA where classes are; nothing without references."""
    words = one["errors"].notna() & two["errors"].notna() & one["reference_words"].notna()
    known = one["reference"].notna()
    if words.any() and one.loc[words, "reference_words"].sum() > 0:
        x, y = one[words], two[words]
        count = x["reference_words"].to_numpy(float)
        errors = [frame["errors"].to_numpy(float) for frame in (x, y)]
        found = rate_comparison("wer", errors[1] - errors[0], speakers_of(x), count, **how)
        yield _score(task, "WER", errors[0].sum() / count.sum(), errors[1].sum() / count.sum(), found, x, how)
    elif known.any() and not words.any():
        x, y = one[known], two[known]
        names = sorted({*x["reference"], *x["prediction"], *y["prediction"]})
        place = {name: index for index, name in enumerate(names)}
        label, before, after = ([place[v] for v in c] for c in (x["reference"], x["prediction"], y["prediction"]))
        for metric in ("ua", "wa"):
            found = paired_accuracy_bootstrap(label, after, before, speakers_of(x), metric=metric, **how)
            values = [accuracy(label, guess, metric) for guess in (before, after)]
            yield _score(task, metric.upper(), *values, found, x, how)


def accuracy(label: list[int], guess: list[int], metric: str) -> float:
    right = pd.Series(np.equal(label, guess))
    return float(right.groupby(np.asarray(label)).mean().mean() if metric == "ua" else right.mean())


def _score(task: str, metric: str, a: float, b: float, found: Comparison, frame: pd.DataFrame, how: dict) -> dict:
    row = {"task": task, "metric": metric, "a": float(a), "b": float(b)} | columns_of("difference", found.difference)
    counted = {"n": len(frame), "speakers": len(set(speakers_of(frame))), "resamples": how["resamples"]}
    return row | {"p": found.p_value} | counted


def correct_for_many(rows: list[dict]) -> None:
    """Set `p_holm` and `better` (`A`, `B` or `neither`) by one correction over all rows."""
    tested = [row for row in rows if row["p"] is not None]
    for row, value in zip(tested, holm([row["p"] for row in tested]) if tested else [], strict=True):
        row["p_holm"] = value
    for row in rows:
        row.setdefault("p_holm", None)
        wins = row["p_holm"] is not None and row["p_holm"] < SIGNIFICANT and row["difference"] != 0
        improved = (row["difference"] < 0) == (row["metric"] == "WER")
        row["better"] = ("B" if improved else "A") if wins else "neither"


def answer_rows(task: str, one: pd.DataFrame, two: pd.DataFrame) -> list[dict]:
    known = one["reference"].notna()
    if not known.any():
        return []
    x, y = one[known], two[known]
    text = x["errors"].notna().any()
    right = [(f["errors"] == 0 if text else f["prediction"] == f["reference"]).to_numpy() for f in (x, y)]
    shares = {
        "both_right": right[0] & right[1], "only_a": right[0] & ~right[1], "only_b": ~right[0] & right[1],
        "none_right": ~right[0] & ~right[1], "same": (x["prediction"] == y["prediction"]).to_numpy(),
    }  # fmt: skip
    row = {"task": task} | {name: float(share.mean()) for name, share in shares.items()}
    return [row | {"n": len(x), "speakers": len(set(speakers_of(x)))}]


def alpha_rows(task: str, stage: str, one: pd.DataFrame, two: pd.DataFrame, **how) -> list[dict]:
    """One row a layer; none where the runs differ in their number of states."""
    if {len(w) for w in one["alpha"]} != {len(w) for w in two["alpha"]}:
        return []
    a, b = weight_matrix(one), weight_matrix(two)
    shares = [weight_matrix(f, "share").mean(0) if f["share"].notna().all() else None for f in (one, two)]
    speakers, rows = speakers_of(one), []
    for layer in range(a.shape[1]):
        found = rate_comparison("alpha", b[:, layer] - a[:, layer], speakers, **how)
        row = {"task": task, "stage": stage, "layer": layer, "a": float(a[:, layer].mean())}
        row |= {"b": float(b[:, layer].mean())} | columns_of("difference", found.difference)
        row |= {f"share_{n}": None if s is None else float(s[layer]) for n, s in zip("ab", shares, strict=True)}
        rows.append(row | {"n": len(one), "speakers": len(set(speakers))})
    return rows


def divergence_row(task: str, stage: str, one: pd.DataFrame, two: pd.DataFrame, **how) -> dict:
    speakers = speakers_of(one)
    found = rate(jensen_shannon(weight_matrix(one), weight_matrix(two)), speakers, **how)
    return {"task": task, "stage": stage} | columns_of("jsd", found) | {"n": len(one), "speakers": len(set(speakers))}


def verdict_of(row: dict) -> Verdict:
    words = {"A": "A is better", "B": "B is better", "neither": "no provable difference"}[row["better"]]
    low = row["difference_low"]
    limits = "" if low is None else f" [{low:+.3f}, {row['difference_high']:+.3f}]"
    p = "not available" if row["p_holm"] is None else f"{row['p_holm']:.3f}"
    evidence = (
        f"{row['metric']} {row['a']:.3f} in A, {row['b']:.3f} in B: B minus A {row['difference']:+.3f}{limits}, "
        f"p = {p} (Holm); {row['n']} utterances, {row['speakers']} speakers."
    )
    return Verdict(f"{row['task']} / {row['metric']}", words, evidence)


# --- parameters ---


def moved_weights(a: RunFolder, b: RunFolder) -> pd.DataFrame:
    """How far each group of parameters lies apart: one row a group, in the model's order.

    relative: length of B minus A over the length of A, all tensors of the group together; tensors, values: how many;
    farthest: the tensor of the group with the largest relative distance. Tensors of another shape are left out and
    counted in `unlike`. Raises RunError where a run has no readable weights.
    """
    first, second = _tensors(a), _tensors(b)
    groups: dict[str, dict] = {}
    for name, file in first.items():
        row = groups.setdefault(
            group_of(name), {"tensors": 0, "values": 0, "gap": 0.0, "length": 0.0, "far": (-1.0, "")}
        )
        row.setdefault("unlike", 0)
        x, y = _read(file, name), _read(second[name], name) if name in second else None
        if y is None or x.shape != y.shape:
            row["unlike"] += 1
            continue
        gap, length = float(np.square(y - x).sum()), float(np.square(x).sum())
        row["tensors"], row["values"] = row["tensors"] + 1, row["values"] + x.size
        row["gap"], row["length"] = row["gap"] + gap, row["length"] + length
        row["far"] = max(row["far"], (np.sqrt(gap / length) if length else float(gap > 0), name))
    return pd.DataFrame([
        {"group": name, "relative": np.sqrt(r["gap"] / r["length"]) if r["length"] else None, "tensors": r["tensors"],
         "values": r["values"], "farthest": r["far"][1] or None, "unlike": r["unlike"]}
        for name, r in groups.items()
    ])  # fmt: skip


def group_of(name: str) -> str:
    """`encoder layer 3`, `lm layer 1`, `encoder input`, `gate`, `fusion`, `heads.ser`: block k - 1 gives state k."""
    if found := re.match(r"(encoder|lm)\.body\.(?:encoder\.)?layers\.(\d+)\.", name):
        return f"{found[1]} layer {int(found[2]) + 1}"
    parts = name.split(".")
    if parts[:2] in (["encoder", "body"], ["lm", "body"]):
        return f"{parts[0]} input"
    return ".".join(parts[:2]) if parts[0] == "heads" else parts[0]


def _tensors(run: RunFolder) -> dict[str, str]:
    """Tensor name (or piece of one) -> file. Raises RunError."""
    files = sorted(run.model.glob("weights-*.safetensors"))
    found: dict[str, str] = {}
    try:
        for file in files:
            with safe_open(str(file), "np") as opened:
                found |= dict.fromkeys(opened.keys(), str(file))
    except Exception as error:  # safetensors raises its own, unlisted kinds
        raise RunError(f"{run.path}: {file.name} is damaged ({error}); export the run again") from error
    if not found:
        raise RunError(f"{run.path} has no weights to compare: train it")
    return found


def _read(file: str, name: str) -> np.ndarray:
    with safe_open(file, "np") as opened:
        return opened.get_tensor(name).astype(np.float64)
