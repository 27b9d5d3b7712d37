"""Outcomes to the tables of a result: layers, the set of best layers, baselines, targets, and verdicts.

Shapes: `M` layers.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harmonifuse_core.analysis.result import Table, Verdict, columns_of
from harmonifuse_core.bootstrap import Comparison, holm
from probes.probing import Material, Outcome, Representation
from probes.tally import Tally

SIGNIFICANT = 0.05
SCORES = (
    "score: of answers to utterances of speakers the probe has not learnt from (target speaker: texts or utterances "
    "it has not learnt from). Metrics: ua = mean over classes of the share found right; word_ua = the same for spoken "
    "/ not spoken, mean over words; r2 = 1 - squared error / squared error of the training part's mean. Probes read "
    "mean and standard deviation over time of the layer's states, standardised on the training part; linear = "
    "logistic regression, or ridge for numbers; mlp = one hidden layer of 32 units on the first 128 principal "
    "components. Answers are argmax(log p - log prior). Penalty (mlp: steps) chosen on inner folds of the training "
    "speakers. Intervals: 95 % percentile bootstrap over speakers."
)
LAYERS = (
    "control: score on a control task (Hewitt & Liang 2019), labels permuted over utterances, or over speakers where "
    "the label is the speaker's; selectivity = score - control; memorised = the control probe's score on utterances "
    "it has learnt from. behind_best: best layer's score minus this one's, paired by speaker; p_holm: of that "
    "difference, two-sided, Holm over the layers; in_best_set: the best layer, and those with p_holm of 0.05 or more. "
    "mdl_bits_per_utterance, compression (uniform / online code; above 1 the layer holds the label), "
    "control_compression: online code (Voita & Titov 2020) by linear probes, speakers in random order. accuracy: "
    "plain share right. Layer 0 is the state before the first block. lm: states at the positions that answer under "
    "the task's default prompt (of a transcription those that write the model's own greedy transcript)."
)
BEST = (
    "layers: the set not distinguishable from the best, see `layers`; over_X: the best layer's score minus baseline "
    "X's, paired by speaker (random: the same layer of the encoder with fresh weights; best_layer is chosen on these "
    "scores, so over_X is a little too high). verdict: held = above majority, log-mel and random encoder with the "
    "whole interval; not more than the input = above majority only; not found = not above majority."
)
BASELINES = (
    "The same probes on less: majority = most frequent class, or mean, of the training part; duration = the "
    "recording's length alone; log-mel = mean and deviation over time of 80 log-mel bands; random encoder = the same "
    "architecture with fresh weights, each layer."
)


@dataclass(frozen=True, eq=False)
class Baseline:
    """features: its name. tally: of M layers, or of one."""

    features: str
    probe: str | None
    tally: Tally
    accuracy: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class BestSet:
    """best: layer. members: of the set. behind (M): comparisons best - layer, None at the best. p (M): Holm."""

    best: int
    members: tuple[int, ...]
    behind: tuple[Comparison | None, ...]
    p: tuple[float | None, ...]


def best_set(tally: Tally) -> BestSet:
    """Layers not distinguishable from the best: paired bootstrap by speaker, Holm over the layers.

    Where there is no interval (one utterance) nothing can be told apart, and all layers are in the set.
    """
    best = int(np.nanargmax(tally.scores))
    behind = [None if m == best else tally.against(best, tally, m) for m in range(tally.layers)]
    tested = [m for m, c in enumerate(behind) if c is not None and c.p_value is not None]
    adjusted = dict(zip(tested, holm([behind[m].p_value for m in tested]), strict=True)) if tested else {}
    p = tuple(adjusted.get(m) for m in range(tally.layers))
    members = tuple(m for m in range(tally.layers) if p[m] is None or p[m] >= SIGNIFICANT)
    return BestSet(best, members, tuple(behind), p)


def target_rows(material: Material) -> Iterator[dict]:
    for target in material.targets:
        folds, known = material.folds[target.name], target.known
        speakers = len({s for s, k in zip(material.speakers, known, strict=True) if k})
        yield {
            "target": target.name, "kind": target.kind, "metric": target.metric, "source": target.source,
            "definition": target.definition, "unit": target.unit, "classes": list(target.classes),
            "counts": target.counts, "chance": target.chance, "n": int(known.sum()), "speakers": speakers,
            "grouped_by": folds.grouped_by, "folds": folds.count, "left_out": dict(target.left_out),
            "caution": target.caution,
        }  # fmt: skip


def layer_rows(material: Material, representation: Representation, outcome: Outcome) -> Iterator[dict]:
    tally, found = outcome.tally, best_set(outcome.tally)
    accuracy = outcome.accuracy
    for layer in range(tally.layers):
        behind = found.behind[layer]
        row = head(representation) | {"layer": layer, "target": outcome.target.name, "probe": outcome.probe}
        row |= {"metric": tally.metric} | columns_of("score", tally.interval(layer))
        row |= {"accuracy": None if accuracy is None else float(accuracy[layer])}
        row |= {"control": outcome.control.scores[layer]}
        row |= columns_of("selectivity", tally.against(layer, outcome.control, layer).difference)
        row |= {"memorised": outcome.memorised.scores[layer], "in_best_set": layer in found.members}
        row |= (
            columns_of("behind", behind.difference)
            if behind
            else {"behind": 0.0, "behind_low": None, "behind_high": None}
        )
        row["behind_best"] = row.pop("behind")
        row |= {"p_holm": found.p[layer]} | code_columns(outcome, layer)
        row |= {"regularisation": outcome.answers.chosen[layer]}
        yield row | counts(material, outcome)


def code_columns(outcome: Outcome, layer: int) -> dict:
    code, control = outcome.code, outcome.control_code
    if code is None:
        return dict.fromkeys(("mdl_bits_per_utterance", "compression", "control_compression"))
    return {
        "mdl_bits_per_utterance": code.bits[layer] / max(1, code.n) * outcome.target.problems,
        "compression": code.compression[layer],
        "control_compression": control.compression[layer],
    }


def head(representation: Representation) -> dict:
    return {"stage": representation.stage, "task": representation.task}


def counts(material: Material, outcome: Outcome) -> dict:
    known = outcome.target.known
    return {"n": int(known.sum()), "speakers": len({s for s, k in zip(material.speakers, known, strict=True) if k})}


def best_row(
    material: Material, representation: Representation, outcome: Outcome, baselines: Mapping[str, Baseline]
) -> dict:
    """baselines: majority, duration, logmel, and of the encoder's layers random, as far as they were computed."""
    tally, found = outcome.tally, best_set(outcome.tally)
    row = head(representation) | {"target": outcome.target.name, "probe": outcome.probe, "metric": tally.metric}
    row |= {"best_layer": found.best, "layers": list(found.members)} | columns_of("score", tally.interval(found.best))
    over = {}
    for name in ("majority", "duration", "logmel", "random"):
        columns = {f"over_{name}": None, f"over_{name}_low": None, f"over_{name}_high": None}
        if (baseline := baselines.get(name)) is not None:
            layer = found.best if name == "random" else 0
            over[name] = tally.against(found.best, baseline.tally, layer).difference
            columns = columns_of(f"over_{name}", over[name])
        row |= columns
    above = {name for name, interval in over.items() if interval.low is not None and interval.low > 0}
    if "majority" not in above:
        verdict = "not found"
    else:
        verdict = "held" if {"logmel", "random"} & set(over) <= above else "not more than the input"
    return row | {"verdict": verdict} | counts(material, outcome)


def baseline_rows(material: Material, outcome: Outcome, baseline: Baseline) -> Iterator[dict]:
    for layer in range(baseline.tally.layers):
        row = {"features": baseline.features, "layer": layer if baseline.features == "random encoder" else None}
        row |= {"target": outcome.target.name, "probe": baseline.probe, "metric": baseline.tally.metric}
        row |= columns_of("score", baseline.tally.interval(layer))
        row |= {"accuracy": None if baseline.accuracy is None else float(baseline.accuracy[layer])}
        yield row | counts(material, outcome)


def verdict_of(row: Mapping, layers: int) -> Verdict:
    """Of a row of `best`."""
    stage = row["stage"] if row["task"] is None else f"{row['stage']} {row['task']}"
    others = ", ".join(
        f"{label} {text(row, f'over_{name}')}"
        for name, label in (
            ("majority", "majority"),
            ("logmel", "log-mel"),
            ("duration", "duration"),
            ("random", "the random encoder"),
        )
        if row[f"over_{name}"] is not None
    )
    shown = ", ".join(map(str, row["layers"]))
    evidence = (
        f"Best at layer {row['best_layer']} of 0 to {layers - 1}: {row['metric']} {text(row, 'score')}; not "
        f"distinguishable from it: layers {shown}. Over {others}. {row['n']} utterances, {row['speakers']} speakers."
    )
    return Verdict(f"{stage} / {row['target']}", row["verdict"], evidence)


def text(row: Mapping, name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    interval = "(no interval)" if low is None else f"({low:.3f} to {high:.3f})"
    return f"{row[name]:.3f} {interval}"


def tables_of(parts: Mapping[str, Sequence[dict]]) -> tuple[Table, ...]:
    definitions = {
        "targets": "What was asked. counts: utterances a class, of words those with it; left_out: labels with too "
        "few speakers or utterances to be learnt, chosen on and tested on different speakers.",
        "layers": f"{SCORES} {LAYERS}",
        "best": f"{BEST} {SCORES}",
        "baselines": f"{BASELINES} {SCORES}",
    }
    return tuple(Table(name, definitions[name], tuple(rows)) for name, rows in parts.items() if rows)
