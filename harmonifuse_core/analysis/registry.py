"""Which analyses there are, and what one is: a function that collects raw rows, and one that sums them up.

A new analysis is a module with `ANALYSIS = Analysis(...)` and a line in `MODULES`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module

import pandas as pd

from harmonifuse_core.analysis.material import SpeechBatch
from harmonifuse_core.analysis.result import AnalysisResult
from harmonifuse_core.model.harmonifuse import HarmoniFuse
from harmonifuse_core.runs import RunFolder

MODULES = {
    "faithfulness": "harmonifuse_core.analysis.faithfulness",
    "input_dependence": "harmonifuse_core.analysis.input_dependence",
    "prompts": "harmonifuse_core.analysis.prompts",
    "divergence": "harmonifuse_core.analysis.divergence",
    "attribution": "harmonifuse_core.analysis.attribution_survey",
    "signatures": "harmonifuse_core.analysis.signatures",  # last: it reads the result of `prompts`
}


@dataclass(frozen=True)
class AnalysisOptions:
    """What a user asks for.

    seed: of every random draw. words: decode text too (WER); without it only losses of text. prompts: the user's own,
    to be tried beside the model's. survey: rows that the analysis' own `survey` gave (empty without one).
    """

    seed: int = 0
    words: bool = True
    prompts: tuple[str, ...] = ()
    survey: pd.DataFrame = field(default_factory=pd.DataFrame)


@dataclass(frozen=True)
class Context:
    """What `summarise` may know beside the rows. run: the folder analysed (None in memory); others: runs to compare
    with, e.g. other seeds. resamples, seed: of bootstrap and permutations."""

    model: HarmoniFuse
    run: RunFolder | None = None
    others: tuple[RunFolder, ...] = ()
    resamples: int = 2000
    seed: int = 0
    options: AnalysisOptions = AnalysisOptions()


@dataclass(frozen=True)
class Analysis:
    """collect: raw rows of one encoded batch, a dict each, `utterance` and `speaker` among its keys. It is called
    under `torch.inference_mode` with the model in eval mode; rows must not depend on how batches are spread over
    processes. Values: text, numbers, bools, None, lists of numbers.

    summarise: all rows of all batches to the result. Raises ValueError where they do not suffice, with the remedy.
    survey: optional; like `collect`, over a fixed sample of at most `SURVEY` utterances before everything else, for
    what the conditions need to know about the corpus (mean alpha, say); comes back in `options.survey`.
    """

    name: str
    question: str
    collect: Callable[[HarmoniFuse, SpeechBatch, AnalysisOptions], list[dict]]
    summarise: Callable[[pd.DataFrame, Context], AnalysisResult]
    survey: Callable[[HarmoniFuse, SpeechBatch, AnalysisOptions], list[dict]] | None = None


def analyses(names: Sequence[str] = ()) -> list[Analysis]:
    """By name, all when empty. Raises ValueError for an unknown one."""
    for name in names:
        if name not in MODULES:
            raise ValueError(f"analysis {name!r} is unknown; there are {', '.join(MODULES)}")
    return [import_module(MODULES[name]).ANALYSIS for name in names or MODULES]
