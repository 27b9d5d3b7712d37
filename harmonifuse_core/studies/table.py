"""The table of a study: scores, comparisons, alphas and costs from its rows, and a verdict for each claim.

Everything here comes from the rows on disk and the study file: no model, no audio, no randomness but the bootstrap's.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from harmonifuse_core.analysis.result import AnalysisResult, Table, Verdict
from harmonifuse_core.studies.plan import Contrast, Study
from harmonifuse_core.studies.rows import StudyRows
from harmonifuse_core.studies.statistics import Range, difference, score
from harmonifuse_core.studies.verdicts import Tested, claim_verdict, corrected, evidence, shift_of

DEFINITIONS = {
    "scores": (
        "value: mean over seeds of the corpus-level score, as a fraction (wer: word errors / reference words after "
        "Whisper's English normaliser; ua: macro recall over the classes present; wa: accuracy). value_low, "
        "value_high: 95 % percentile bootstrap over speakers, for these seeds. seeds_low, seeds_high: 95 % by "
        "Student's t over seeds, for these speakers; seed_sd: standard deviation over seeds."
    ),
    "comparisons": (
        "benefit: what the system improves on its baseline (positive is better, for wer too), paired by seed and "
        "utterance. benefit_low, benefit_high and p: over speakers and seeds together (variance of the bootstrap over "
        "speakers plus that of the mean over seeds, t with Satterthwaite's degrees of freedom); p is two-sided against "
        "a benefit of 0 (expect: better) or of minus the margin (expect: not worse). p_holm: p corrected over all "
        "comparisons of the study (Holm). speakers_low, speakers_high and p_speakers: bootstrap over speakers alone, "
        "for these seeds; seeds_low, seeds_high: t over seeds alone, for these speakers."
    ),
    "claims": (
        "A comparison is supported here where p_holm < 0.05 on the claimed side, not supported here where it is on the "
        "other side (or, with a margin, where the gain is surely smaller than that), else undecided at this size. A "
        "claim is supported where all of its comparisons are, and not supported where one is not."
    ),
    "alphas": (
        "alpha: weight of a layer (0: before the first block), mean over the utterances of an evaluation and over "
        "seeds; alpha_sd: standard deviation over seeds; share: alpha times the state's length, normalised. stage lm: "
        "of the answering position, for text the mean over its tokens."
    ),
    "costs": (
        "Means over seeds. train_cpu_seconds: of the training process, building the model included; train_seconds: on "
        "the wall; speech_seconds: speech heard in training; trainable: parameters that learn."
    ),
    "missing": "Cells without rows; --table-only makes a table without them.",
}


def study_result(study: Study, stored: StudyRows, *, resamples: int = 2000, seed: int = 0) -> AnalysisResult:
    """Tables and verdicts from the rows that fit the study, finished or not. Raises ValueError where there is none."""
    keys = {cell.name: cell.key for cell in study.cells()}
    rows = stored.of(keys)
    if not len(rows.cells):
        raise ValueError(f"study {study.name} has no finished cell for this study file: run it first")
    frames = _frames(rows.utterances)
    options = {"resamples": resamples, "seed": seed}
    tested = corrected([_test(c.name, study.resolved(x), frames, options) for c in study.claims for x in c.comparisons])
    claims = _claims(study, tested)
    tables = {
        "scores": _scores(study, frames, options), "comparisons": [_comparison(t) for t in tested], "claims": claims,
        "alphas": _alphas(study, rows.alphas), "costs": _costs(study, rows.cells), "missing": _missing(study, stored),
    }  # fmt: skip
    utterances = rows.utterances.drop_duplicates(["evaluation", "utterance"])
    return AnalysisResult(
        study.name, study.question, tuple(Table(name, DEFINITIONS[name], tuple(t)) for name, t in tables.items()),
        tuple(Verdict(row["text"], row["verdict"], row["evidence"]) for row in claims), len(utterances),
        int(rows.utterances["speaker"].nunique()),
    )  # fmt: skip


def missing_cells(study: Study, stored: StudyRows) -> list[str]:
    """Names of the study's cells without rows of their config."""
    return [f"{row['system']}.seed-{row['seed']}" for row in _missing(study, stored)]


def _frames(utterances: pd.DataFrame) -> dict[tuple[str, str, str], pd.DataFrame]:
    """{(system, evaluation, task): rows of all seeds}."""
    return dict(iter(utterances.groupby(["system", "evaluation", "task"], sort=False)))


def _range(name: str, found: Range) -> dict:
    return {f"{name}_low": found.low, f"{name}_high": found.high}


def _scores(study: Study, frames, options) -> list[dict]:
    table = []
    for evaluation in study.evaluations:
        for task in evaluation.tasks:
            for system in study.systems:
                if (frame := frames.get((system.name, evaluation.name, task))) is None:
                    continue
                for metric in ("wer",) if frame["words"].notna().all() else ("ua", "wa"):
                    found = score(frame, metric, **options)
                    table.append(
                        {"system": system.name, "note": system.note, "evaluation": evaluation.name, "task": task,
                         "metric": metric, "value": found.value, **_range("value", found.speakers),
                         **_range("seeds", found.seeds), "seed_sd": found.sd, "per_seed": list(found.per_seed.values()),
                         "seeds": len(found.per_seed), "n": found.utterances, "speakers": found.clusters}
                    )  # fmt: skip
    return table


def _test(claim: str, contrast: Contrast, frames, options) -> Tested:
    pair = [frames.get((name, contrast.evaluation, contrast.task)) for name in (contrast.system, contrast.baseline)]
    if any(frame is None for frame in pair) or not set(pair[0]["seed"]) & set(pair[1]["seed"]):
        return Tested(claim, contrast, None)
    return Tested(claim, contrast, difference(*pair, contrast.metric, shift=shift_of(contrast), **options))


def _comparison(tested: Tested) -> dict:
    contrast, found = tested.contrast, tested.difference
    row = {
        "claim": tested.claim, "system": contrast.system, "baseline": contrast.baseline,
        "evaluation": contrast.evaluation, "task": contrast.task, "metric": contrast.metric, "expect": contrast.expect,
        "margin": contrast.margin,
    }  # fmt: skip
    numbers = {
        "value": None, "baseline_value": None, "benefit": None, **_range("benefit", Range()),
        **_range("speakers", Range()), **_range("seeds", Range()), "per_seed": [], "p_speakers": None, "p": None,
    }  # fmt: skip
    if found is not None:
        numbers = {
            "value": found.value, "baseline_value": found.baseline, "benefit": found.benefit,
            **_range("benefit", found.both), **_range("speakers", found.speakers), **_range("seeds", found.seeds),
            "per_seed": list(found.per_seed.values()), "p_speakers": found.p_speakers, "p": found.p_value,
        }  # fmt: skip
    size = {"seeds": 0, "n": 0, "speakers": 0}
    if found is not None:
        size = {"seeds": len(found.per_seed), "n": found.utterances, "speakers": found.clusters}
    return row | numbers | {"p_holm": tested.p_holm, "verdict": tested.verdict} | size


def _claims(study: Study, tested: Sequence[Tested]) -> list[dict]:
    rows = []
    for claim in study.claims:
        own = [t for t in tested if t.claim == claim.name]
        verdict = claim_verdict([t.verdict for t in own])
        rows.append(
            {"claim": claim.name, "text": claim.text, "source": claim.source, "verdict": verdict,
             "evidence": evidence(own), "n": max(t.difference.utterances if t.difference else 0 for t in own)}
        )  # fmt: skip
    return rows


def _alphas(study: Study, alphas: pd.DataFrame) -> list[dict]:
    place = {system.name: i for i, system in enumerate(study.systems)}
    keys = ["system", "evaluation", "task", "stage"]
    ordered = alphas.sort_values("system", key=lambda column: column.map(place), kind="stable")
    rows = []
    for key, group in ordered.groupby(keys, sort=False):
        alpha, share = (np.stack(list(group[name])).astype(np.float64) for name in ("alpha", "share"))  # (S, L1)
        spread = alpha.std(0, ddof=1) if len(group) > 1 else [None] * alpha.shape[1]
        size = {"seeds": len(group), "n": int(group["utterances"].max())}
        rows += [
            dict(zip(keys, key, strict=True))
            | {"layer": layer, "alpha": float(alpha[:, layer].mean()), "alpha_sd": spread[layer]}
            | {"share": float(share[:, layer].mean())}
            | size
            for layer in range(alpha.shape[1])
        ]
    return rows


def _costs(study: Study, cells: pd.DataFrame) -> list[dict]:
    rows = []
    for system in study.systems:
        own = cells[cells["system"] == system.name]
        if len(own):
            row = {"system": system.name, "seeds": len(own), "tasks": own["tasks"].iloc[0]}
            row |= {name: int(own[name].iloc[0]) for name in ("steps", "trainable", "parameters")}
            names = ("train_cpu_seconds", "train_seconds", "speech_seconds", "evaluate_seconds")
            rows.append(row | {name: float(own[name].mean()) for name in names})
    return rows


def _missing(study: Study, stored: StudyRows) -> list[dict]:
    known = dict(zip(stored.cells["cell"], stored.cells["config_hash"], strict=True))
    rows = []
    for cell in study.cells():
        if known.get(cell.name) != cell.key:
            reason = "not run yet" if cell.name not in known else "its rows belong to another config"
            rows.append({"system": cell.system.name, "seed": cell.seed, "reason": reason})
    return rows
