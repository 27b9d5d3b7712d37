"""Which of a run's evaluations its main numbers come from, by one rule for all runs. Pure."""

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath

import pandas as pd

from app import tables
from harmonifuse_core.config import Config

KEYS = ("wer", "ua")
RULE = (
    "One evaluation a measure: held-out ones before those of training and dev splits, then the corpus that training "
    "drew most from for the task, then the largest. All evaluations are on the page Run."
)
_CHOSEN_ON = re.compile(r"(?:^|[-_.])(?:dev|valid|validation|train)(?:$|[-_.])")


def main_scores(config: Config | None, evaluations: Mapping[str, dict], keys: Sequence[str] = KEYS) -> pd.DataFrame:
    """Rows of `tables.results_table` for these measures, by RULE: the first of each measure, then the second of each.

    Without a readable config, or for corpora that it does not train on, size decides alone.
    """
    table = tables.results_table(evaluations)
    rows = table[table["key"].isin(keys)]
    order = rows.assign(
        chosen_on=[
            bool(_CHOSEN_ON.search(f"{name}.{_text(evaluations, name, 'split')}")) for name in rows["evaluation"]
        ],
        share=[_share(config, evaluations, *pair) for pair in zip(rows["evaluation"], rows["task"], strict=True)],
        measure_order=[list(keys).index(key) for key in rows["key"]],
    )
    order = order.sort_values(
        ["chosen_on", "share", "utterances", "speakers"], ascending=[True, False, False, False], kind="stable"
    )  # fmt: skip
    order["turn"] = order.groupby("key").cumcount()
    return rows.loc[order.sort_values(["turn", "measure_order"], kind="stable").index]


def _share(config: Config | None, evaluations: Mapping[str, dict], evaluation: str, task: str) -> float:
    """How much of the task's training was drawn from the evaluated corpus: its weights as the config has them."""
    corpora = [corpus for corpus in config.data.train if corpus.task == task] if config else []
    stems = {PurePath(corpus.manifest).stem for corpus in corpora}
    mine = PurePath(_text(evaluations, evaluation, "manifest")).stem
    if not mine:  # older files do not say it; their names begin with the corpus
        mine = max((stem for stem in stems if evaluation.startswith(stem)), key=len, default="")
    return sum(corpus.weight for corpus in corpora if PurePath(corpus.manifest).stem == mine)


def _text(evaluations: Mapping[str, dict], evaluation: str, name: str) -> str:
    value = evaluations[evaluation].get(name)
    return value if isinstance(value, str) else ""
