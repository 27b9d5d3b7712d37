"""The prompt crossing summed up: what each prompt changes, whether prompt embeddings predict alpha, and verdicts."""

import numpy as np
import pandas as pd

from harmonifuse_core.analysis.clustered import cross_validated_r2, rate, rate_comparison
from harmonifuse_core.analysis.prompt_conditions import FOREIGN, KINDS, OWN, PARAPHRASE
from harmonifuse_core.analysis.prompt_embedding import prompt_embedding
from harmonifuse_core.analysis.registry import Context
from harmonifuse_core.analysis.result import AnalysisResult, Table, Verdict, columns_of
from harmonifuse_core.bootstrap import Comparison, holm
from harmonifuse_core.metrics import paired_accuracy_bootstrap
from harmonifuse_core.routing import weight_matrix

NAME = "prompts"
QUESTION = "Does the prompt decide anything: alpha, the answer, or its errors?"
# Bits. About 2.5 points of weight moved between two of five equal layers: invisible in a heatmap of two decimals.
ALPHA_STILL = 1e-3
# Share of answers. One in fifty: near ties between two tokens or classes turn at any disturbance, asked for or not.
ANSWERS_STILL = 0.02
# Where paraphrases turn more answers than that, no more than they do counts as near ties, up to one in ten: beyond that
# the model does listen to words, if not to their sense.
NEAR_TIES = 0.1
# WER or UA. Smaller differences than a point are below what any of these test sets can tell from chance.
SCORE_MATTERS = 0.01
SIGNIFICANT = 0.05
CROSSING = (
    "One row a task id and prompt, each against the task's own default prompt on the same utterances; b^tau, gate and "
    "head stay the task's. lm_jsd: mean Jensen-Shannon divergence (bits, 0 to 1) of LM alpha under this prompt from "
    "LM alpha under the own prompt, each averaged over the tokens of its own answer (classes: at the answer "
    "position). same_text_jsd: the same with the text held fixed to the own prompt's transcript (without decoding: to "
    "the reference). encoder_jsd is 0 by construction: the gate stands before the prompt. beyond_paraphrases: "
    "same_text_jsd minus the mean over the task's other paraphrases, paired. changed: share of answers that differ "
    "from the own prompt's after normalisation. invalid: share of empty (with words expected), looping or length- "
    "limited texts; 0 by construction for classes. score: corpus WER (greedy) or UA; change: score minus the own "
    "prompt's, paired. Intervals: 95 % bootstrap by speaker; p_holm: Holm's correction over all p values of this "
    "table. decides: score (p_holm below 0.05 and at least 0.01), answers (the interval of changed lies above 0.02, "
    "or above what the paraphrases change, at most 0.1), undecided (only the estimate does), alpha (same_text_jsd "
    "above 0.001), or nothing."
)
EMBEDDINGS = (
    "Do prompt embeddings predict alpha? One row a task. Predictor: mean input embedding of the prompt's tokens "
    "without special tokens (zeros for the empty prompt). Target: mean of same_text alpha over utterances, one row a "
    "prompt. r2: leave-one-prompt-out ridge regression, fixed penalty, all layers together, 1 at best, 0 as good as "
    "the mean of the other prompts; p: share of random pairings of prompts with alphas that reach it; largest_jsd: of "
    "any prompt's mean same_text_jsd."
)


def summarise(rows: pd.DataFrame, context: Context) -> AnalysisResult:
    """Raises ValueError without rows."""
    if rows.empty:
        raise ValueError("0 rows: no utterance counts for any task; check the manifest's labels")
    crossing = [row for task in context.model.config.tasks for row in _task_rows(rows, task.name, context)]
    _correct(crossing)
    embeddings = [
        row for task in context.model.config.tasks if (row := _embedding_row(rows, task.name, context)) is not None
    ]
    tables = (Table("crossing", CROSSING, tuple(crossing)), Table("prompt_embeddings", EMBEDDINGS, tuple(embeddings)))
    verdicts = [verdict_of([r for r in crossing if r["task"] == t]) for t in dict.fromkeys(r["task"] for r in crossing)]
    verdicts += [_embedding_verdict(row) for row in embeddings]
    return AnalysisResult(
        NAME, QUESTION, tables, tuple(verdicts), rows["utterance"].nunique(), rows["speaker"].nunique()
    )


def _task_rows(rows: pd.DataFrame, task: str, context: Context) -> list[dict]:
    mine = rows[rows["task"] == task]
    frames = {key: g.set_index("utterance") for key, g in mine.groupby(["kind", "prompt"], sort=False)}
    ordered = sorted(frames, key=lambda key: KINDS.index(key[0]))
    if not ordered:
        return []
    own = frames[ordered[0]]
    paraphrases = [frames[key]["same_text_jsd"].reindex(own.index) for key in ordered if key[0] == PARAPHRASE]
    reference = np.mean(paraphrases, axis=0) if paraphrases else None
    return [
        _prompt_row(task, key, frames[key].reindex(own.index), own, None if key[0] == OWN else reference, context)
        for key in ordered
    ]


def _prompt_row(task, key, frame, own, paraphrases, context: Context) -> dict:
    how = {"resamples": context.resamples, "seed": context.seed}
    speakers = own["speaker"].tolist()
    row = {"task": task, "kind": key[0], "prompt": key[1], "source": frame["source"].iloc[0], "encoder_jsd": 0.0}
    row |= columns_of("same_text_jsd", rate(frame["same_text_jsd"], speakers, **how))
    if paraphrases is not None and key[0] != PARAPHRASE:
        extra = rate_comparison("beyond", frame["same_text_jsd"].to_numpy() - paraphrases, speakers, **how)
        row |= columns_of("beyond_paraphrases", extra.difference) | {"beyond_p": extra.p_value}
    if "lm_jsd" in frame and frame["lm_jsd"].notna().all():
        row |= columns_of("lm_jsd", rate(frame["lm_jsd"], speakers, **how))
        row |= columns_of("changed", rate(frame["changed"].astype(float), speakers, **how))
        row |= columns_of("invalid", rate(frame["invalid"].astype(float), speakers, **how))
        row |= _score_columns(frame, own, context.model.config.task(task), how) or {}
    return row | {"n": len(own), "speakers": len(set(speakers))}


def _score_columns(frame, own, spec, how) -> dict | None:
    """score, change and p of the utterances with a reference; None where there is none."""
    known = (own["errors"].notna() & frame["errors"].notna()).to_numpy()
    frame, own = frame[known], own[known]
    speakers = own["speaker"].tolist()
    if spec.is_transcription:
        words = own["reference_words"].to_numpy(float)
        if not words.sum():
            return None
        score = rate(frame["errors"], speakers, words, **how)
        change = rate_comparison("wer", frame["errors"].to_numpy() - own["errors"].to_numpy(), speakers, words, **how)
        return _scored("WER", score.value, change, len(own))
    if not len(own):
        return None
    index = {label: i for i, label in enumerate(spec.labels)}
    reference, new, old = (
        [index[label] for label in labels] for labels in (own["reference"], frame["answer"], own["answer"])
    )
    recalls = pd.Series(np.equal(new, reference)).groupby(np.asarray(reference)).mean()
    change = paired_accuracy_bootstrap(reference, new, old, speakers, metric="ua", **how)
    return _scored("UA", float(recalls.mean()), change, len(own))


def _scored(metric: str, score: float, change: Comparison, count: int) -> dict:
    columns = {"metric": metric, "score": score, "scored_n": count, "change_p": change.p_value}
    return columns | columns_of("change", change.difference)


def _correct(rows: list[dict]):
    """Set `beyond_p_holm` and `change_p_holm` by one correction over the table, the own prompt's rows left out."""
    tested = [
        (row, name) for row in rows if row["kind"] != OWN for name in ("beyond_p", "change_p")
        if row.get(name) is not None
    ]  # fmt: skip
    adjusted = holm([row[name] for row, name in tested]) if tested else []
    for (row, name), value in zip(tested, adjusted, strict=True):
        row[f"{name}_holm"] = value
    for row in rows:
        if row["kind"] == OWN:  # compared with itself: no test
            row["beyond_p"] = row["change_p"] = None
        row["decides"] = decides(row, still_share([r for r in rows if r["task"] == row["task"]]))


def still_share(rows: list[dict]) -> float:
    """Share of changed answers that still means nothing, from one task's rows: what paraphrases do, within limits."""
    paraphrased = max((row.get("changed") or 0.0 for row in rows if row["kind"] == PARAPHRASE), default=0.0)
    return max(ANSWERS_STILL, min(paraphrased, NEAR_TIES))


def decides(row: dict, still: float = ANSWERS_STILL) -> str:
    """What this prompt decides against the own one: `score`, `answers`, `alpha` or `nothing`; `undecided` where answers
    changed, but too few to tell; empty for the own prompt."""
    if row["kind"] == OWN:
        return ""
    p = row.get("change_p_holm")
    if p is not None and p < SIGNIFICANT and abs(row["change"]) >= SCORE_MATTERS:
        return "score"
    changed = row.get("changed") or 0.0
    if changed > still:
        low = row.get("changed_low")
        return "answers" if low is None or low > still else "undecided"
    return "alpha" if row["same_text_jsd"] > ALPHA_STILL else "nothing"


WORDS = {
    "score": "prompt matters",
    "answers": "prompt matters: answers change, the score not provably",
    "undecided": "undecided: some answers change, too few to tell",
    "alpha": "prompt moves alpha, but decides no answer",
    "nothing": "prompt ignored",
}


def verdict_of(rows: list[dict]) -> Verdict:
    """Of one task, from the prompts that do not ask for it: another task's, random words, none."""
    foreign = [row for row in rows if row["kind"] in FOREIGN]
    found = {row["decides"] for row in foreign}
    words = WORDS[next(name for name in WORDS if name in found)]
    jsd = [row["same_text_jsd"] for row in foreign]
    evidence = f"{len(foreign)} prompts that do not ask for it: LM alpha moves by {min(jsd):.1e} to {max(jsd):.1e} bits"
    if "changed" in foreign[0]:
        evidence += f", {max(r['changed'] for r in foreign):.1%} of answers change at most"
        if alike := [row["changed"] for row in rows if row["kind"] == PARAPHRASE]:
            evidence += f" (under paraphrases {max(alike):.1%})"
    scored = [row for row in foreign if row.get("change") is not None]
    if scored:
        worst = max(scored, key=lambda row: abs(row["change"]))
        under = repr(worst["prompt"]) if worst["prompt"] else "no prompt"
        evidence += f", {worst['metric']} by {worst['change']:+.3f}{_range(worst)} under {under}"
    limits = f"ignored means at most {ALPHA_STILL:g} bits and {still_share(rows):.0%} of answers"
    return Verdict(f"lm / {rows[0]['task']}", words, f"{evidence} (n = {rows[0]['n']}; {limits}).")


def _range(row: dict) -> str:
    return "" if row["change_low"] is None else f" [{row['change_low']:+.3f}, {row['change_high']:+.3f}]"


# --- prompt embeddings ---


def _embedding_row(rows: pd.DataFrame, task: str, context: Context) -> dict | None:
    mine = rows[rows["task"] == task]
    groups = [(prompt, weight_matrix(g, "same_text_alpha").mean(0)) for prompt, g in mine.groupby("prompt", sort=False)]
    if not groups:
        return None
    predictors = np.stack([prompt_embedding(context.model, prompt) for prompt, _ in groups])
    found = cross_validated_r2(
        predictors, np.stack([a for _, a in groups]), permutations=context.resamples, seed=context.seed
    )
    row = {"task": task, "prompts": len(groups), "largest_jsd": max(mine.groupby("prompt")["same_text_jsd"].mean())}
    row |= {"n": mine["utterance"].nunique(), "speakers": mine["speaker"].nunique()}
    if found is None:
        return row | {"r2": None, "p": None}
    return row | {"r2": found.r2, "p": found.p_value}


def _embedding_verdict(row: dict) -> Verdict:
    about = f"prompt embedding / {row['task']}"
    if row["r2"] is None:
        why = f"{row['prompts']} prompts, or alpha the same under all of them: nothing to predict."
        return Verdict(about, "not available", why)
    predicts = row["p"] < SIGNIFICANT and row["r2"] > 0
    words = "predicts alpha" if predicts else "does not provably predict alpha"
    if predicts and row["largest_jsd"] <= ALPHA_STILL:
        words = "predicts the little by which alpha moves"
    moves = f"alpha moves by {row['largest_jsd']:.1e} bits at most"
    evidence = f"R2 {row['r2']:.2f} over {row['prompts']} prompts left out in turn, p = {row['p']:.3f}; {moves}."
    return Verdict(about, words, evidence)
