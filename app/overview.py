"""All runs at a glance: what each is, its main numbers, its health, and what to look at first. Pure."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from app import tables
from app.checks import BAD, CARE, Check, checks, last_step
from app.main_scores import KEYS, main_scores
from harmonifuse_core.analysis.result import AnalysisResult
from harmonifuse_core.analysis.signature import FOUND
from harmonifuse_core.config import Config

COMPLETE, RUNNING, UNTRAINED, DAMAGED = "complete", "part-trained", "untrained", "damaged"
SCORED = "scored, no log"  # of a study's cell, say: it was trained, and its log is not kept


@dataclass(frozen=True)
class Advice:
    """why: a sentence. page: the view that shows it, or empty; command: what to run, or empty."""

    why: str
    page: str = ""
    command: str = ""


@dataclass(frozen=True, eq=False)
class Summary:
    """One run. what, title: from the config, text from outside. state: one of those above.

    scores: first rows of `main_scores`, one a measure. alpha: {"asr encoder": last logged (L1,)}. signatures: failure
    signatures found, None where nobody looked. checks: see `checks.checks`. first: what to look at, dearest first.
    """

    name: str
    title: str
    what: str
    state: str
    steps: int
    scores: pd.DataFrame
    alpha: Mapping[str, np.ndarray]
    checks: tuple[Check, ...]
    signatures: tuple[str, ...] | None
    first: tuple[Advice, ...]

    @property
    def health(self) -> str:
        """A word for the table; the details name each."""
        levels = [check.level for check in self.checks]
        if self.state == DAMAGED:
            return "damaged"
        found = levels.count(CARE) + len(self.signatures or ())
        if BAD in levels:
            return f"{levels.count(BAD)} missing, {found} to mind"
        return f"{found} to mind" if found else "good"


def summarise(
    name: str, config: Config | None, what: str, metrics: Sequence[Mapping], evaluations: Mapping[str, dict],
    has_routing: bool, signatures: AnalysisResult | None = None, damaged: Sequence[str] = (),
) -> Summary:  # fmt: skip
    """damaged: a sentence for each file that could not be read. what: one line of facts from the config."""
    found = checks(config, metrics, evaluations)
    done, planned = last_step(metrics), config.training.steps if config else 0
    kind = COMPLETE if done and done >= planned else RUNNING if done else SCORED if evaluations else UNTRAINED
    scores = main_scores(config, evaluations).drop_duplicates("key")
    alpha = {}
    for task in tables.tasks_logged(metrics):
        for stage in tables.STAGES:
            _, rows = tables.alpha_over_training(metrics, task, stage)
            if len(rows):
                alpha[f"{task} {stage}"] = rows[-1]
    shown = None if signatures is None else tuple(_found(signatures))
    state = DAMAGED if config is None else kind
    advice = _advice(name, state, bool(evaluations), has_routing, shown, damaged)
    title = (config.title if config else "") or name
    return Summary(name, title, what, state, done, scores, alpha, tuple(found), shown, advice)


def _found(result: AnalysisResult) -> list[str]:
    """Signatures that were found and not asked for by the config, as sentences."""
    rows = [row for table in result.tables if table.name == "signatures" for row in table.rows]
    return [
        f"{row.get('name')} ({row.get('about')}): {row.get('evidence')}" for row in rows
        if row.get("status") == FOUND and not row.get("by_design")
    ]  # fmt: skip


def _advice(
    name: str, state: str, scored: bool, routed: bool, signatures, damaged: Sequence[str]
) -> tuple[Advice, ...]:
    path, found = shlex.quote(f"runs/{name}"), []
    evaluate = f"python -m harmonifuse_core.evaluate --run {path} --manifest M.jsonl --split test --save test"
    train = f"python -m harmonifuse_core.train --config {path}/config.yaml --run {path}"
    if state == DAMAGED:
        found.append(Advice("Its config cannot be read: nothing else can be trusted before that is mended.", "run"))
    found += [Advice(sentence, "run") for sentence in damaged]
    if state == UNTRAINED:
        found.append(Advice("It is untrained. Train it:", command=train))
    elif state == SCORED:
        found.append(Advice("Its training log is not kept here: read its numbers with the config beside them.", "run"))
    elif state == RUNNING:
        why = "Training has not reached its last step: see the curves; if nothing runs, go on with:"
        found.append(Advice(why, "run", f"{train} --resume"))
    if state not in (UNTRAINED, DAMAGED) and not (scored and routed):
        lacking = "score" if not scored else "routing"
        found.append(Advice(f"No {lacking} is saved. Evaluate it:", command=evaluate))
    if signatures:
        found.append(Advice("Failure signatures were found: see which layers the tasks draw on.", "layer_weights"))
    elif signatures is None and scored and state != DAMAGED:
        found.append(Advice("Nobody has looked for failure signatures yet:",
                            command=f"python -m harmonifuse_core.analyse --run {path} --manifest M.jsonl --split test "
                                    "--only signatures"))  # fmt: skip
    if routed:
        found.append(Advice("See which layers each task draws on.", "layer_weights"))
        found.append(Advice("See which utterances are routed alike.", "explorer"))
    return tuple(found)


def table_of(summaries: Sequence[Summary]) -> pd.DataFrame:
    """One row a run: state, main scores with interval, health; the alpha of each task and stage as a list."""
    rows = []
    for summary in summaries:
        row = {"run": summary.name, "state": summary.state, "health": summary.health}
        scores = {key: summary.scores[summary.scores["key"] == key] for key in KEYS}
        for key, mine in scores.items():
            row[key.upper()] = mine.iloc[0]["value"] if len(mine) else None
            row[f"{key.upper()} 95 %"] = tables.interval(tuple(mine.iloc[0][["low", "high"]])) if len(mine) else ""
        row |= {f"alpha {place}": values.tolist() for place, values in summary.alpha.items()}
        row |= {f"{key.upper()} on": mine.iloc[0]["evaluation"] if len(mine) else "" for key, mine in scores.items()}
        row |= {"what": summary.title, "steps": summary.steps}
        rows.append(row)
    return pd.DataFrame(rows)


def matching(summaries: Sequence[Summary], text: str) -> list[Summary]:
    """Those whose name, title, facts or state hold every word of `text`."""
    words = text.lower().split()
    return [
        s for s in summaries if all(w in f"{s.name} {s.title} {s.what} {s.state} {s.health}".lower() for w in words)
    ]
