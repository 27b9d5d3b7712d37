"""Do two tasks draw on different layers of the same audio? Distances of their alphas, tested, and set against noise.

Noise is of two kinds: how far alpha of one task goes between two utterances, and how far it goes between two runs that
differ in their seed alone (`--compare`, where such runs exist).
Shapes: `N` utterances, `L1` states, layer 0 before the first block.
"""

from itertools import combinations

import numpy as np
import pandas as pd

from harmonifuse_core.analysis.clustered import PermutationTest, rate, rate_comparison, swap_test
from harmonifuse_core.analysis.depth import centre_of_mass, wasserstein_depth, wasserstein_layers
from harmonifuse_core.analysis.registry import Analysis, Context
from harmonifuse_core.analysis.result import AnalysisResult, Table, Verdict, columns_of, read_rows
from harmonifuse_core.analysis.routed import collect_routing
from harmonifuse_core.bootstrap import holm
from harmonifuse_core.routing import RoutingError, entropy_bits, jensen_shannon, read_routing, weight_matrix
from harmonifuse_core.runs import RunError, RunFolder

NAME = "divergence"
QUESTION = "Do the tasks draw on different layers of the same audio?"
SIGNIFICANT = 0.05
# Bits. About 8 points of weight moved between two of five equal layers: what a reader sees in a heatmap at once.
VISIBLE = 0.01
NEEDED = ["utterance", "speaker", "task", "stage", "alpha", "bias"]
PAIRS = (
    "One row a stage and pair of tasks that both answered the same n utterances; alpha as `infer` gives it (text: "
    "mean over tokens). jsd: mean Jensen-Shannon divergence per utterance, bits, 0 to 1. bias_jsd: the same between "
    "softmax(b^tau) (encoder: w) alone, without the input's part. entropy_difference: bits, task_a minus task_b. "
    "centre_difference: centre of mass over depth, layers, task_a minus task_b. wasserstein_layers: mean "
    "Wasserstein-1 distance in layers; wasserstein_depth: in normalised depth, layer / L, 0 to 1. between_utterances: "
    "mean jsd of one task between two random utterances, the larger of both tasks: what the input alone moves. p: "
    "permutation test of the mean alphas' squared distance, task names swapped within the utterance for all of a "
    "speaker's utterances together; p_holm over the table; smallest_p: the least that so few speakers allow. "
    "Intervals: 95 % bootstrap by speaker."
)
SEEDS = (
    "One row a stage, pair of tasks and other run: task_jsd, mean divergence between the tasks in this run; seed_jsd, "
    "mean divergence of the same task on the same utterance between this run and the other, both tasks averaged; "
    "difference: task_jsd minus seed_jsd, paired by utterance. n: utterances that both runs answered."
)


def summarise(rows: pd.DataFrame, context: Context) -> AnalysisResult:
    """Raises ValueError where no utterance was answered for two tasks."""
    pairs, verdicts, seeds = [], [], []
    others, reasons = other_frames(context.others)
    for stage, frame in rows.groupby("stage", sort=True):
        tables = by_task(frame)
        for a, b in combinations(tables, 2):
            both = tables[a].index.intersection(tables[b].index)
            if len(both):
                pairs.append(_pair_row(stage, tables[a].loc[both], tables[b].loc[both], context))
                seeds += _seed_rows(stage, tables[a].loc[both], tables[b].loc[both], others, reasons, context)
    if not pairs:
        raise ValueError("no utterance was answered for two tasks: divergence needs a model of at least two tasks")
    for row, adjusted in zip(pairs, holm([row["p"] for row in pairs]), strict=True):
        row["p_holm"] = adjusted
        verdicts.append(verdict_of(row))
    verdicts += _seed_verdicts(pairs, seeds, reasons)
    tables = (Table("pairs", PAIRS, tuple(pairs)), Table("seeds", SEEDS, tuple(seeds)))
    return AnalysisResult(
        NAME, QUESTION, tables, tuple(verdicts), rows["utterance"].nunique(), rows["speaker"].nunique()
    )


def by_task(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """{task: rows of one stage by utterance}; of several prompts the first row counts."""
    return {t: g.drop_duplicates("utterance").set_index("utterance") for t, g in frame.groupby("task", sort=True)}


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def between_utterances(alpha: np.ndarray, seed: int) -> float:
    """Mean JSD (bits) between (N, L1) alphas of utterances paired at random, none with itself; 0 for one utterance."""
    order = np.random.default_rng(seed).permutation(len(alpha))
    return float(jensen_shannon(alpha[order], alpha[np.roll(order, 1)]).mean())


def _pair_row(stage: str, one: pd.DataFrame, two: pd.DataFrame, context: Context) -> dict:
    a, b = weight_matrix(one), weight_matrix(two)
    speakers, how = one["speaker"].tolist(), {"resamples": context.resamples, "seed": context.seed}
    test = swap_test(a, b, speakers, permutations=context.resamples, seed=context.seed)
    row = {"stage": stage, "task_a": one["task"].iloc[0], "task_b": two["task"].iloc[0]}
    measures = {
        "jsd": jensen_shannon(a, b),
        "entropy_difference": entropy_bits(a) - entropy_bits(b),
        "centre_difference": centre_of_mass(a) - centre_of_mass(b),
        "wasserstein_layers": wasserstein_layers(a, b),
        "wasserstein_depth": wasserstein_depth(a, b),
        "bias_jsd": jensen_shannon(*(softmax(weight_matrix(frame, "bias")) for frame in (one, two))),
    }
    for name, values in measures.items():
        row |= columns_of(name, rate(values, speakers, **how))
    row["between_utterances"] = max(between_utterances(x, context.seed) for x in (a, b))
    return row | _test_columns(test) | {"n": len(one), "speakers": len(set(speakers))}


def _test_columns(test: PermutationTest) -> dict:
    return {"p": test.p_value, "smallest_p": test.smallest, "permutations": test.permutations}


def verdict_of(row: dict) -> Verdict:
    """Of one stage and pair of tasks."""
    about = f"{row['stage']} / {row['task_a']} - {row['task_b']}"
    if row["smallest_p"] >= SIGNIFICANT:
        words = "undecided: too few speakers for the test"
    elif row["p_holm"] >= SIGNIFICANT:
        words = "no provable difference"
    else:
        words = "tasks draw on different layers" if row["jsd"] >= VISIBLE else "different, but hardly"
    low = "" if row["jsd_low"] is None else f" [{row['jsd_low']:.4f}, {row['jsd_high']:.4f}]"
    evidence = (
        f"JSD {row['jsd']:.4f}{low} bits (between utterances of one task {row['between_utterances']:.4f}; "
        f"{VISIBLE:g} is visible), centre of mass {row['centre_difference']:+.2f} layers, "
        f"p = {row['p']:.4f}, Holm {row['p_holm']:.4f}, n = {row['n']}, {row['speakers']} speakers."
    )
    return Verdict(about, words, evidence)


# --- against other seeds ---


def other_frames(others: tuple[RunFolder, ...]) -> tuple[dict[str, pd.DataFrame], dict[str, str]]:
    """{run name: its rows} from its own divergence analysis or else its routing files, and {run name: why not}."""
    frames, reasons = {}, {}
    for run in others:
        try:
            frames[run.name] = read_rows(run, NAME, NEEDED)
            continue
        except RunError:
            names = run.names("routing", ".parquet")
        try:
            parts = [read_routing(run.part("routing", name), NEEDED) for name in names]
        except RoutingError as error:
            reasons[run.name] = str(error)
            continue
        if parts:
            frames[run.name] = pd.concat(parts, ignore_index=True)
        else:
            reasons[run.name] = (
                "it has neither a divergence analysis nor routing: run `analyse --only divergence` on it"
            )
    return frames, reasons


def _seed_rows(stage, one, two, others, reasons, context: Context) -> list[dict]:
    rows = []
    for name, frame in others.items():
        theirs = by_task(frame[frame["stage"] == stage])
        a, b = one["task"].iloc[0], two["task"].iloc[0]
        if a not in theirs or b not in theirs:
            reasons[name] = f"it has no {stage} alpha of both {a} and {b}"
            continue
        shared = one.index.intersection(theirs[a].index).intersection(theirs[b].index)
        if not len(shared):
            reasons[name] = "it answered none of these utterances"
            continue
        mine = [weight_matrix(x.loc[shared]) for x in (one, two)]
        other = [weight_matrix(theirs[task].loc[shared]) for task in (a, b)]
        if mine[0].shape != other[0].shape:
            reasons[name] = f"its {stage} has {other[0].shape[1]} states, this run's {mine[0].shape[1]}"
            continue
        between = jensen_shannon(*mine)
        seed = np.mean([jensen_shannon(m, o) for m, o in zip(mine, other, strict=True)], 0)
        speakers, how = one.loc[shared, "speaker"].tolist(), {"resamples": context.resamples, "seed": context.seed}
        compared = rate_comparison("jsd", between - seed, speakers, **how)
        row = {"stage": stage, "task_a": a, "task_b": b, "other": name}
        row |= columns_of("task_jsd", rate(between, speakers, **how)) | columns_of(
            "seed_jsd", rate(seed, speakers, **how)
        )
        row |= columns_of("difference", compared.difference) | {"p": compared.p_value}
        rows.append(row | {"n": len(shared), "speakers": len(set(speakers))})
    return rows


def _seed_verdicts(pairs: list[dict], seeds: list[dict], reasons: dict[str, str]) -> list[Verdict]:
    verdicts = []
    for row in seeds:
        beyond = row["difference_low"] is not None and row["difference_low"] > 0
        evidence = (
            f"between tasks {row['task_jsd']:.4f}, between the runs {row['seed_jsd']:.4f} bits; difference "
            f"{row['difference']:+.4f}, n = {row['n']}."
        )
        about = f"{row['stage']} / {row['task_a']} - {row['task_b']} / against {row['other']}"
        verdicts.append(Verdict(about, "beyond the seed" if beyond else "not beyond the seed", evidence))
    verdicts += [Verdict(f"against {name}", "not available", f"{why}.") for name, why in reasons.items()]
    if not seeds and not reasons:
        why = "no other run was named: name runs of other seeds with `--compare RUN`."
        verdicts.append(Verdict("against other seeds", "not available", why))
    return verdicts


ANALYSIS = Analysis(name=NAME, question=QUESTION, collect=collect_routing, summarise=summarise)
