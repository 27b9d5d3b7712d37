"""Prompts x task ids on one recording: which prompts are asked, and what each answer changed. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from app.tables import layer_names
from harmonifuse_core.analysis.prompt_conditions import OWN, prompt_conditions
from harmonifuse_core.config import ModelConfig
from harmonifuse_core.metrics import normalize_text
from harmonifuse_core.model.harmonifuse import HarmoniFuseOutput
from harmonifuse_core.model.tokenizer import TextTokenizer
from harmonifuse_core.routing import jensen_shannon

LEFT_OUT = "word left out"
KINDS = {
    "own": "own prompt", "paraphrase": "paraphrase", "other task": "another task's", "random": "nonsense",
    "empty": "no prompt", "user": "typed", LEFT_OUT: LEFT_OUT,
}  # fmt: skip
MOST_TYPED, MOST_WORDS = 12, 24
COLUMNS = ("task", "number", "kind", "prompt", "answer", "changed", "probability", "lm_jsd", "encoder_jsd")


@dataclass(frozen=True)
class Asked:
    """One prompt under the id of `task`; `number` from 0, the own prompt, counts within the task."""

    task: str
    number: int
    kind: str
    prompt: str

    @property
    def label(self) -> str:
        return f"{self.number}. {KINDS[self.kind]}"


def asked(
    config: ModelConfig, tokenizer: TextTokenizer, typed: Sequence[str] = (), leave_out: bool = False
) -> list[Asked]:
    """All prompts of every task: those of the batch crossing, typed ones, and the own prompt with one word missing."""
    found = []
    for task in config.tasks:
        mine = [(c.kind, c.text) for c in prompt_conditions(config, tokenizer, task.name, typed[:MOST_TYPED])]
        words = mine[0][1].split()[:MOST_WORDS] if leave_out else []
        if len(words) > 1:
            mine += [(LEFT_OUT, " ".join(words[:i] + words[i + 1 :])) for i in range(len(words))]
        found += [Asked(task.name, number, kind, text) for number, (kind, text) in enumerate(mine)]
    return found


def lines(text: str) -> list[str]:
    """Typed prompts, one a line; the same line counts once."""
    return list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))[:MOST_TYPED]


def crossing_table(answers: Mapping[Asked, HarmoniFuseOutput]) -> pd.DataFrame:
    """One row a prompt and task: answer, its probability, whether it changed, the weights' divergence from the own
    prompt's (bits), and LM alpha of every layer (`alpha input`, `alpha 1`, ...)."""
    own = {question.task: answer for question, answer in answers.items() if question.kind == OWN}
    rows = [_row(question, answer, own[question.task]) for question, answer in answers.items()]
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=list(COLUMNS))


def _row(question: Asked, answer: HarmoniFuseOutput, own: HarmoniFuseOutput) -> dict:
    text = answer.text is not None
    said = answer.text if text else answer.label
    before = own.text if text else own.label
    changed = normalize_text(said) != normalize_text(before) if text else said != before
    row = {"task": question.task, "number": question.number, "kind": KINDS[question.kind]}
    row |= {"prompt": question.prompt.strip(), "answer": said, "changed": bool(changed)}
    row |= {"probability": probability(answer)}
    row |= {f"{stage}_jsd": divergence(getattr(answer, stage).alpha, getattr(own, stage).alpha) for stage in
            ("lm", "encoder")}  # fmt: skip
    names = layer_names(len(answer.lm.alpha))
    return row | {f"alpha {name}": float(a) for name, a in zip(names, answer.lm.alpha, strict=True)}


def probability(answer: HarmoniFuseOutput) -> float | None:
    """Of the class; of a text the geometric mean of its tokens'."""
    if answer.text is None:
        return float(answer.probabilities[answer.label])
    return float(np.exp(answer.token_logprobs.mean())) if len(answer.token_logprobs) else None


def divergence(one: np.ndarray, two: np.ndarray) -> float:
    return float(jensen_shannon(np.asarray(one, np.float64), np.asarray(two, np.float64)))


def change_grid(table: pd.DataFrame) -> np.ndarray:
    """(P, L1) LM alpha of each prompt minus the own prompt's, rows of one task in their order."""
    columns = [name for name in table.columns if name.startswith("alpha ")]
    alpha = table[columns].dropna(axis="columns", how="all").to_numpy(float)
    return alpha - alpha[:1]
