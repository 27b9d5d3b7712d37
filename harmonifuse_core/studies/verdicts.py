"""From tested differences to verdicts: *supported here*, *not supported here*, *undecided at this size*.

A comparison that expects `better` tests that the benefit is 0, one that expects `not worse` that it is minus the
tolerated loss. All comparisons of a study are one family (Holm 1979).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from harmonifuse_core.bootstrap import holm
from harmonifuse_core.studies.plan import BETTER, Contrast
from harmonifuse_core.studies.statistics import Difference

SUPPORTED, NOT_SUPPORTED, UNDECIDED = "supported here", "not supported here", "undecided at this size"
ALPHA = 0.05


@dataclass(frozen=True)
class Tested:
    """One comparison and what came of it. difference: None without rows. p_holm: None where there is no p value."""

    claim: str
    contrast: Contrast
    difference: Difference | None
    p_holm: float | None = None
    verdict: str = UNDECIDED


def shift_of(contrast: Contrast) -> float:
    """The benefit of the null hypothesis."""
    return 0.0 if contrast.expect == BETTER else -contrast.margin


def corrected(tested: Sequence[Tested]) -> list[Tested]:
    """With Holm's p values over all that have one, and verdicts."""
    known = [i for i, t in enumerate(tested) if t.difference is not None and t.difference.p_value is not None]
    adjusted = dict(zip(known, holm([tested[i].difference.p_value for i in known]), strict=True)) if known else {}
    return [
        Tested(t.claim, t.contrast, t.difference, p, verdict_of(t.contrast, t.difference, p))
        for i, t in enumerate(tested)
        for p in [adjusted.get(i)]
    ]


def verdict_of(contrast: Contrast, difference: Difference | None, p_holm: float | None) -> str:
    """Of one comparison. A gain that is surely below a `better`'s margin is no support either."""
    if difference is None or p_holm is None:
        return UNDECIDED
    if p_holm < ALPHA:
        return SUPPORTED if difference.benefit > shift_of(contrast) else NOT_SUPPORTED
    if contrast.expect == BETTER and contrast.margin and difference.both.high < contrast.margin:
        return NOT_SUPPORTED
    return UNDECIDED


def claim_verdict(verdicts: Sequence[str]) -> str:
    """All comparisons supported, or one of them not supported, else undecided."""
    if NOT_SUPPORTED in verdicts:
        return NOT_SUPPORTED
    return SUPPORTED if all(verdict == SUPPORTED for verdict in verdicts) else UNDECIDED


def evidence(tested: Sequence[Tested]) -> str:
    """The numbers behind a claim's verdict, one sentence a comparison."""
    return " ".join(_sentence(t) for t in tested)


def points(value: float) -> str:
    """A difference of rates in percentage points, signed."""
    return f"{100 * value:+.1f}"


def _sentence(tested: Tested) -> str:
    contrast, found = tested.contrast, tested.difference
    names = f"{contrast.system} against {contrast.baseline} ({contrast.metric.upper()}, {contrast.evaluation})"
    if found is None:
        return f"{names}: no cells yet."
    text = f"{names}: {found.value:.1%} against {found.baseline:.1%}, benefit {points(found.benefit)} points"
    if found.both.low is not None:
        text += f" (95 % over speakers and seeds {points(found.both.low)} to {points(found.both.high)}"
        text += f", p {_p(tested.p_holm)} after Holm"
        text += f", tolerated loss {100 * contrast.margin:g})" if shift_of(contrast) else ")"
    else:
        text += " (no interval over speakers and seeds: at least 2 of each are needed)"
    return f"{text}, {len(found.per_seed)} seeds, {found.utterances} utterances, {found.clusters} speakers."


def _p(value: float | None) -> str:
    return "unknown" if value is None else "< 0.001" if value < 0.001 else f"= {value:.3f}"
