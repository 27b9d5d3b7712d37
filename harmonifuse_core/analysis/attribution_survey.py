"""Attribution over a corpus: what answers need of layers, frames and prompt tokens; do the frames found matter?

One utterance at a time, every task that it has a label for (all tasks where it has none).
"""

import numpy as np
import pandas as pd

from harmonifuse_core.analysis.attribution import attribute
from harmonifuse_core.analysis.clustered import rate
from harmonifuse_core.analysis.deletion import deletion_check
from harmonifuse_core.analysis.explained_answer import explain_answer
from harmonifuse_core.analysis.material import SpeechBatch
from harmonifuse_core.analysis.registry import Analysis, AnalysisOptions, Context
from harmonifuse_core.analysis.result import AnalysisResult, Table, Verdict, columns_of
from harmonifuse_core.model.harmonifuse import HarmoniFuse
from harmonifuse_core.randomness import generator

NAME = "attribution"
QUESTION = "Which layers, frames and prompt tokens does an answer need?"
SURVEYED = ("layer_ablation", "frame_integrated_gradients", "token_ablation")
CHECKED = "frame_integrated_gradients"
ORDERS, POINTS, STEPS = 10, 5, 16  # coarser than for one utterance on a page: there are many here
SCORES = (
    "Mean over n utterances of the change of the target (class: logit of the model's own answer; text: mean log "
    "probability, nats, of the tokens of its own transcript) when one {part} is replaced by its baseline ({baseline}); "
    "positive: it supports the answer. top: share of utterances where it has the largest score. {note}Intervals: 95 % "
    "bootstrap by speaker."
)
LAYERS = SCORES.format(
    part="term alpha_l * norm(h_l) of the gated encoder fusion", baseline="zero, the other terms as they are",
    note="Layer 0 is the state before the first block. ",
)  # fmt: skip
TOKENS = SCORES.format(part="prompt token's input embedding", baseline="the vocabulary's mean embedding", note="")
DELETION = (
    "Frames scored by integrated gradients (fused speech, baseline the utterance's mean frame), gathered to windows of "
    f"0.1 s and removed in order of score: area under the target's curve, against {ORDERS} random orders an utterance. "
    "gap: random area minus own, in the target's unit, positive: the frames found matter more. better: share of "
    "utterances whose gap lies above 0 for the middle 95 % of random orders. delta: mean absolute convergence delta of "
    "integrated gradients. Intervals: 95 % bootstrap by speaker."
)


def collect(model: HarmoniFuse, batch: SpeechBatch, options: AnalysisOptions) -> list[dict]:
    """One row an utterance, task and method: `scores` by part, `names` of the parts; a deletion check of frames."""
    rows = []
    for i, item in enumerate(batch.items):
        states = batch.rows([i]).states
        for spec in model.config.tasks:
            if item.targets and spec.name not in item.targets:
                continue
            if spec.is_transcription and not options.words:
                continue  # its target is the model's own transcript
            answer = explain_answer(model, states, spec.name)
            for method in SURVEYED:
                found = attribute(model, states, spec.name, method, answer=answer, steps=STEPS)
                row = {"utterance": item.id, "speaker": item.speaker, "task": spec.name, "method": method}
                row |= {"answer": found.label, "value": found.value, "baseline_value": found.baseline_value}
                row |= {"scores": found.scores.tolist(), "names": list(found.names), "delta": found.convergence_delta}
                row |= {"gap": None, "gap_low": None, "gap_high": None}
                if method == CHECKED and len(found.scores) > 3 * 5:
                    seed = int(generator(options.seed, "deletion", item.id).integers(2**31))
                    check = deletion_check(found, ORDERS, POINTS, seed)
                    row |= {"gap": check.gap, "gap_low": check.low, "gap_high": check.high}
                rows.append(row)
    return rows


def summarise(rows: pd.DataFrame, context: Context) -> AnalysisResult:
    """Raises ValueError without rows."""
    if rows.empty:
        raise ValueError("0 rows: attribution of text needs decoding, so leave --no-words out")
    layers = _score_rows(rows[rows["method"] == "layer_ablation"], "layer", context)
    tokens = _score_rows(rows[rows["method"] == "token_ablation"], "token", context)
    deletion = _deletion_rows(rows[rows["method"] == CHECKED], context)
    tables = (
        Table("layers", LAYERS, tuple(layers)),
        Table("tokens", TOKENS, tuple(tokens)),
        Table("deletion", DELETION, tuple(deletion)),
    )
    verdicts = [_layer_verdict([r for r in layers if r["task"] == t]) for t in dict.fromkeys(r["task"] for r in layers)]
    verdicts += [_deletion_verdict(row) for row in deletion]
    return AnalysisResult(
        NAME, QUESTION, tables, tuple(verdicts), rows["utterance"].nunique(), rows["speaker"].nunique()
    )


def _how(context: Context) -> dict:
    return {"resamples": context.resamples, "seed": context.seed}


def _score_rows(rows: pd.DataFrame, part: str, context: Context) -> list[dict]:
    found = []
    for task, frame in rows.groupby("task", sort=False):
        scores = np.stack(list(frame["scores"])).astype(np.float64)  # (N, F): the same layers, the same prompt
        speakers, top = frame["speaker"].tolist(), scores.argmax(1)
        for index, name in enumerate(frame["names"].iloc[0]):
            row = {"task": task, part: index, "name": name, "top": float((top == index).mean())}
            row |= columns_of("score", rate(scores[:, index], speakers, **_how(context)))
            found.append(row | {"n": len(frame), "speakers": len(set(speakers))})
    return found


def _deletion_rows(rows: pd.DataFrame, context: Context) -> list[dict]:
    found = []
    for task, frame in rows[rows["gap"].notna()].groupby("task", sort=False):
        speakers = frame["speaker"].tolist()
        row = {"task": task, "method": CHECKED} | columns_of("gap", rate(frame["gap"], speakers, **_how(context)))
        row |= columns_of("better", rate((frame["gap_low"] > 0).astype(float), speakers, **_how(context)))
        row |= {"delta": float(frame["delta"].abs().mean())}
        found.append(row | {"n": len(frame), "speakers": len(set(speakers))})
    return found


def _layer_verdict(rows: list[dict]) -> Verdict:
    """The layer whose removal costs most, and those that cannot be told from it by their intervals."""
    best = max(rows, key=lambda r: r["score"])
    low = best["score"] if best["score_low"] is None else best["score_low"]
    alike = [r["layer"] for r in rows if (r["score"] if r["score_high"] is None else r["score_high"]) >= low]
    scores = ", ".join(f"{r['layer']}: {r['score']:+.3f}" for r in rows)
    words = f"needs layer {best['layer']} most" if len(alike) == 1 else f"layers {', '.join(map(str, alike))} lead"
    return Verdict(f"encoder / {best['task']}", words, f"Change of the target by layer: {scores} (n = {best['n']}).")


def _deletion_verdict(row: dict) -> Verdict:
    above = row["gap_low"] is not None and row["gap_low"] > 0
    words = "frames found matter more than random ones" if above else "frames found matter no more than random ones"
    limits = "" if row["gap_low"] is None else f" [{row['gap_low']:+.3f}, {row['gap_high']:+.3f}]"
    evidence = f"gap {row['gap']:+.3f}{limits}, better in {row['better']:.0%} of {row['n']} utterances."
    return Verdict(f"frames / {row['task']}", words, evidence)


ANALYSIS = Analysis(name=NAME, question=QUESTION, collect=collect, summarise=summarise)
