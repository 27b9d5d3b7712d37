"""What a failure signature is, and the thresholds of all of them with their reasons."""

from dataclasses import dataclass

FOUND, CLEAR, UNKNOWN = "found", "not found", "not available"

# Entropy below that of uniform weights, bits. At 0.02 bits weights differ from 1 / (L + 1) by about a sixth of it (root
# mean square, any L): less than a heatmap shows.
UNIFORM_BITS = 0.02
# Mean weight of one layer. Above it all other layers together have a twentieth: the fusion is a choice of one layer.
COLLAPSED_WEIGHT = 0.95
# Divergence of the utterances' weights among themselves, bits: with five equal layers a standard deviation of 0.002 of
# a weight, which two printed decimals do not show. Padding and rounding stay below 1e-8.
CONSTANT_BITS = 1e-4
# Share of one part in the spread of the logits over layers. Below it, removing that part changes weights by at most a
# few hundredths of themselves.
DROWNED_SHARE = 0.05
# Share of answers in the two most frequent classes, and by how much this must exceed the references' own share: a
# corpus of two classes is no collapse.
COLLAPSE_SHARE, COLLAPSE_EXCESS = 0.9, 0.2
# Fewer answers say nothing of their distribution: 20 draws from 8 equal classes never give two classes 90 %.
FEWEST_ANSWERS = 20
FEWEST_UTTERANCES = 2


@dataclass(frozen=True)
class Signature:
    """One failure, looked for in one place.

    name: `uniform alpha`, ... about: e.g. "encoder / asr". status: `found`, `not found` or `not available`. value: what
    was measured, None where not available; it is found where value `relation` threshold. evidence: a sentence with the
    numbers, or why it is not available. advice: what to try, where found. by_design: found, since the config asks for
    it. n: utterances.
    """

    name: str
    about: str
    status: str
    value: float | None
    relation: str
    threshold: float
    evidence: str
    advice: str
    by_design: bool = False
    n: int = 0


@dataclass(frozen=True)
class AgainstBaseline:
    """Multi-task minus single-task score of one task, so turned that positive is worse; `low`, `high` its interval."""

    task: str
    metric: str
    worse_by: float
    low: float
    high: float


def judged(
    name: str, about: str, value: float, relation: str, threshold: float, evidence: str, advice: str, n: int,
    design: str = "",
) -> Signature:  # fmt: skip
    """`found` where `value` `relation` (`<=` or `>=`) `threshold`; `design`: why it must be so, if it must."""
    found = value <= threshold if relation == "<=" else value >= threshold
    if found and design:
        evidence, advice = f"{evidence} By design: {design}.", "Nothing, if that is what you want."
    advice = advice if found else ""
    status = FOUND if found else CLEAR
    return Signature(
        name, about, status, float(value), relation, threshold, evidence, advice, found and bool(design), n
    )


def unknown(name: str, about: str, relation: str, threshold: float, why: str, n: int = 0) -> Signature:
    return Signature(name, about, UNKNOWN, None, relation, threshold, why, "", False, n)
