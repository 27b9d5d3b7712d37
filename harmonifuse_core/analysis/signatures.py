"""Failure signatures: what goes wrong in such models, looked for in the routing table, with evidence and what to try.

    signatures_of(read_routing(run.part("routing", "test.parquet")), run.config().model)

It needs no model and takes milliseconds, so that a page can ask for every run. What the table cannot tell (ignored
prompts, imbalance against single-task baselines) comes from the prompt crossing and a study, or is "not available".
Shapes: `N` utterances, `L1` states.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from harmonifuse_core.analysis.prompt_conditions import FOREIGN
from harmonifuse_core.analysis.prompt_tables import ALPHA_STILL
from harmonifuse_core.analysis.prompt_tables import NAME as PROMPTS
from harmonifuse_core.analysis.registry import Analysis, Context
from harmonifuse_core.analysis.result import AnalysisResult, Table, Verdict, plain, read_result
from harmonifuse_core.analysis.routed import collect_routing
from harmonifuse_core.analysis.signature import (
    COLLAPSE_EXCESS,
    COLLAPSE_SHARE,
    COLLAPSED_WEIGHT,
    CONSTANT_BITS,
    DROWNED_SHARE,
    FEWEST_ANSWERS,
    FEWEST_UTTERANCES,
    FOUND,
    UNIFORM_BITS,
    AgainstBaseline,
    Signature,
    judged,
    unknown,
)
from harmonifuse_core.config import ModelConfig
from harmonifuse_core.routing import entropy_bits, weight_matrix
from harmonifuse_core.runs import RunError, RunFolder

NAME = "signatures"
QUESTION = "Does the run show one of the known failures?"
DEFINITION = (
    "One row a signature, stage and task. uniform alpha: log2(L + 1) minus mean entropy of alpha, bits. collapsed "
    "alpha: largest mean weight of one layer. constant alpha: entropy of the mean alpha minus mean entropy, bits "
    "(Jensen-Shannon divergence of the utterances among themselves). drowned bias, drowned FFN: standard deviation "
    "over layers of b^tau (or w) resp. of the FFN part, root mean square over utterances, over the sum of both. "
    "ignored prompt: largest same_text_jsd under prompts that do not ask for the task (analysis `prompts`). "
    "imbalance: how much worse than its single-task baseline the worst task is, lower end of the interval, while "
    "another task is not. class collapse: share of answers in the two most frequent classes minus that of the "
    "references (0 where it is below 90 %). found: value beyond the threshold in the stated direction; by_design: the "
    "configuration asks for it."
)


IGNORED_ADVICE = (
    "Gate, b^tau and head tell the task already, so nothing makes the model read its prompt. If it should: gate.mode: "
    "shared with lm.fusion: input leaves the prompt as the only task signal before the head; raise training.lm_rate."
)


def signatures_of(
    frame: pd.DataFrame, config: ModelConfig | None = None, *, prompts: AnalysisResult | None = None,
    baselines: Sequence[AgainstBaseline] = (),
) -> list[Signature]:  # fmt: skip
    """All signatures of a run from its routing rows (several corpora may stand in one frame), found ones first.

    config: tells what is so by design. prompts: result of the prompt crossing. baselines: of a study.
    """
    found = []
    for (stage, task), rows in frame.groupby(["stage", "task"], sort=True):
        about = f"{stage} / {task}"
        design = designs(config, stage)
        found += weight_signatures(about, rows, design)
    for task, rows in frame[frame["stage"] == "lm"].groupby("task", sort=True):
        found.append(ignored_prompt(task, rows, prompts))
        if is_classification(task, rows, config):
            found.append(class_collapse(task, rows))
    found.append(imbalance(baselines))
    order = {FOUND: 0, "not found": 1}
    return sorted(found, key=lambda s: (order.get(s.status, 2), s.by_design))


def designs(config: ModelConfig | None, stage: str) -> dict[str, str]:
    """{signature: why the config makes it so}, for one stage."""
    if config is None:
        return {}
    if stage == "encoder":
        mode, moves, field = config.gate.mode, config.gate.input_score, "gate.mode"
        why = {} if moves else {"constant alpha": "this gate does not read the input (gate.input_score is off)"}
        why |= {} if moves else {"drowned FFN": "the gate has no input part (gate.input_score is off)"}
    else:
        mode, field = config.lm.fusion, "lm.fusion"
        why = {"constant alpha": f"{field} is {mode}"} if mode not in ("adaptive", "input") else {}
        why |= {"drowned FFN": f"{field} is {mode}"} if mode == "bias" else {}
        why |= {"drowned bias": f"{field} is {mode}"} if mode == "input" else {}
    if mode == "uniform":
        why |= {"uniform alpha": f"{field} is uniform", "constant alpha": f"{field} is uniform"}
    if mode == "last" or mode.startswith("fixed:"):
        why |= {name: f"{field} is {mode}" for name in ("collapsed alpha", "constant alpha")}
    return why


def weight_signatures(about: str, rows: pd.DataFrame, design: Mapping[str, str] | None = None) -> list[Signature]:
    """Uniform, collapsed, constant alpha and drowned parts of one stage and task."""
    design, alpha = design or {}, weight_matrix(rows)
    count, layers = alpha.shape
    mean, entropy = alpha.mean(0), float(entropy_bits(alpha).mean())
    short, top = np.log2(layers) - entropy, int(mean.argmax())
    found = [
        judged(
            "uniform alpha", about, short, "<=", UNIFORM_BITS,
            f"Entropy {entropy:.3f} of {np.log2(layers):.3f} bits; weights {mean.min():.3f} to {mean.max():.3f}.",
            "Raise training.gate_rate, train longer, lower training.entropy_weight; look at whether the tasks need "
            "different layers at all (probes).", count, design.get("uniform alpha", ""),
        ),
        judged(
            "collapsed alpha", about, mean[top], ">=", COLLAPSED_WEIGHT,
            f"Layer {top} has {mean[top]:.3f} of the weight, mean of {count} utterances.",
            "Start the gate less steep (gate.last_logit, lm.last_logit), set training.entropy_weight, lower "
            "training.gate_rate; a fixed layer would do the same.", count, design.get("collapsed alpha", ""),
        ),
    ]  # fmt: skip
    if rows["utterance"].nunique() < FEWEST_UTTERANCES:
        found.append(unknown("constant alpha", about, "<=", CONSTANT_BITS, "One utterance has nothing to vary.", count))
    else:
        spread, largest = max(0.0, float(entropy_bits(mean)) - entropy), float(alpha.std(0).max())
        found.append(
            judged(
                "constant alpha", about, spread, "<=", CONSTANT_BITS,
                f"Largest standard deviation of a weight over {count} utterances {largest:.4f}; {spread:.1e} bits.",
                "Use lm.fusion: adaptive (encoder: gate.input_score), give the FFN a higher rate, check that its "
                "scores leave 0 (`score` in the routing).", count, design.get("constant alpha", ""),
            )
        )  # fmt: skip
    return found + drowned_parts(about, rows, design)


def drowned_parts(about: str, rows: pd.DataFrame, design: Mapping[str, str]) -> list[Signature]:
    """Does one of the logits' two parts decide alone? Compared after centring: a softmax ignores a constant."""
    spread = {name: float(np.sqrt(weight_matrix(rows, name).var(1).mean())) for name in ("bias", "score")}
    total, found = sum(spread.values()), []
    named = (
        ("drowned bias", "bias", "The FFN part decides alone: task and prompt bias are idle. Raise training.gate_rate, "
         "start b^tau apart (last_logit_tasks), weaken the FFN (lm.ffn_width, weight decay)."),
        ("drowned FFN", "score", "The bias decides alone: alpha hardly moves with the input. Raise the FFN's rate, "
         "lower training.gate_rate."),
    )  # fmt: skip
    for name, part, advice in named:
        if total < 1e-6:
            found.append(unknown(name, about, "<=", DROWNED_SHARE, "Both parts are 0: see uniform alpha.", len(rows)))
            continue
        evidence = f"Spread over layers: bias {spread['bias']:.3f}, FFN {spread['score']:.3f} (logits)."
        share = spread[part] / total
        found.append(judged(name, about, share, "<=", DROWNED_SHARE, evidence, advice, len(rows), design.get(name, "")))
    return found


def ignored_prompt(task: str, rows: pd.DataFrame, prompts: AnalysisResult | None) -> Signature:
    """From the prompt crossing: its verdict, so that there is one definition of an ignored prompt."""
    about, name = f"lm / {task}", "ignored prompt"
    verdict = next((v for v in prompts.verdicts if v.about == about), None) if prompts else None
    if verdict is None:
        why = "It takes the prompt crossing: run `python -m harmonifuse_core.analyse --only prompts`."
        return unknown(name, about, "<=", ALPHA_STILL, why, len(rows))
    foreign = [r for r in prompts.table("crossing").rows if r["task"] == task and r["kind"] in FOREIGN]
    value = max(r["same_text_jsd"] for r in foreign)
    found = "ignored" in verdict.verdict
    advice = IGNORED_ADVICE if found else ""
    status = FOUND if found else "not found"
    return Signature(
        name, about, status, value, "<=", ALPHA_STILL, verdict.evidence, advice, False, int(foreign[0]["n"])
    )


def is_classification(task: str, rows: pd.DataFrame, config: ModelConfig | None) -> bool:
    """By the config, else by the table: word counts mark text, and text rarely repeats."""
    if config is not None:
        return not config.task(task).writes_text
    if "errors" in rows and rows["errors"].notna().any():
        return False
    return rows["prediction"].nunique() <= max(2, min(40, len(rows) // 3))


def top_two(names: pd.Series) -> float:
    return float(names.value_counts(normalize=True).head(2).sum())


def class_collapse(task: str, rows: pd.DataFrame) -> Signature:
    """A classifier that names one or two classes whatever it hears (for emotion: SER collapse)."""
    name, about = ("SER collapse" if task == "ser" else "class collapse"), f"answers / {task}"
    known = rows[rows["reference"].notna()] if "reference" in rows else rows[:0]
    labelled = len(known) >= FEWEST_ANSWERS
    rows = known if labelled else rows
    if len(rows) < FEWEST_ANSWERS:
        why = f"{len(rows)} answers; at least {FEWEST_ANSWERS} are needed."
        return unknown(name, about, ">=", COLLAPSE_EXCESS, why, len(rows))
    share = top_two(rows["prediction"])
    expected = top_two(known["reference"]) if labelled else 0.0
    named = ", ".join(f"{k} {v:.0%}" for k, v in rows["prediction"].value_counts(normalize=True).head(2).items())
    compared = f"two classes hold {expected:.0%} of the references." if labelled else "no references to compare with."
    evidence = f"{named} of {len(rows)} answers; {compared}"
    advice = (
        "Check the labels (pseudo-labels above all), balance the classes or their loss weights, lower label smoothing, "
        "look at calibration and at corpora that lack classes (absent_weight)."
    )
    value = share - expected if share >= COLLAPSE_SHARE else 0.0
    return judged(name, about, value, ">=", COLLAPSE_EXCESS, evidence, advice, len(rows))


def imbalance(baselines: Sequence[AgainstBaseline]) -> Signature:
    """One task keeps its single-task score while another pays for it."""
    name, about = "imbalance", "all tasks"
    if len(baselines) < 2:
        why = "It takes single-task baselines of at least two tasks: run a study with single-task systems."
        return unknown(name, about, ">=", 0.0, why)
    worst, best = max(baselines, key=lambda b: b.low), min(baselines, key=lambda b: b.low)
    evidence = "; ".join(
        f"{b.task} {b.metric} worse than its baseline by {b.worse_by:+.3f} [{b.low:+.3f}, {b.high:+.3f}]"
        for b in (worst, best)
    )
    advice = (
        "Change the interleaving ratio and loss weights in favour of the task that lost; look at gradient conflict."
    )
    value = worst.low if best.low <= 0 else 0.0  # all worse: interference, but no imbalance
    status = FOUND if value > 0 else "not found"
    return Signature(name, about, status, value, ">", 0.0, f"{evidence}.", advice)


# --- as an analysis ---


def summarise(rows: pd.DataFrame, context: Context) -> AnalysisResult:
    """Raises ValueError without rows."""
    if rows.empty:
        raise ValueError("0 rows of routing: check the manifest")
    found = signatures_of(rows, context.model.config, prompts=prompt_result(context.run))
    speakers = rows["speaker"].nunique()
    table = Table("signatures", DEFINITION, tuple(plain(vars(s)) | {"speakers": speakers} for s in found))
    verdicts = [Verdict(f"{s.name} / {s.about}", words_of(s), f"{s.evidence} {s.advice}".strip()) for s in found]
    return AnalysisResult(NAME, QUESTION, (table,), tuple(verdicts), rows["utterance"].nunique(), speakers)


def words_of(signature: Signature) -> str:
    return f"{signature.status}, by design" if signature.by_design else signature.status


def prompt_result(run: RunFolder | None) -> AnalysisResult | None:
    """The run's prompt crossing, None where it has none (or a damaged one, which the prompts' own page reports)."""
    try:
        return None if run is None else read_result(run, PROMPTS)
    except RunError:
        return None


ANALYSIS = Analysis(name=NAME, question=QUESTION, collect=collect_routing, summarise=summarise)
