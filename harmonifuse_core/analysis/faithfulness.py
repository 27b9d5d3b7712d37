"""Are the layers that a fusion favours the layers that matter? alpha, effective share and norm against the damage that
removal does: correlations, deletion and insertion curves, and a verdict an encoder / LM fusion and task.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from harmonifuse_core.analysis import conditions
from harmonifuse_core.analysis.agreement import STILL, Agreement, agreement, area
from harmonifuse_core.analysis.paired import DEFINITION, counts, has, mean_columns, paired_change
from harmonifuse_core.analysis.registry import Analysis, Context
from harmonifuse_core.analysis.result import AnalysisResult, Table, Verdict, columns_of

QUESTION = "Do the layers that the fusions favour matter more to the answer than the layers that they do not favour?"
REMOVALS = tuple((c, w) for c in ("zero", "mean", "other") for w in ("renormalised", "held"))
MAIN = ("zero", "renormalised")
WAYS = (
    "Ways of removing layer k: zero = its weight becomes 0, and the other weights are scaled up to the former sum "
    "(renormalised; of a lone layer nothing is left) or stay (held); mean = its state is replaced by the mean over "
    "all frames (LM: answer positions) of the batch's other utterances; other = by another utterance's state, of "
    "another speaker where the batch has one, stretched in time; with these two the weights are those of the intact "
    "input (held) or the model weighs the changed states anew (renormalised). An LM layer is taken out of the fusion, "
    "not out of the LM's own computation. Layer 0 is the state before the first block."
)
CORRELATION = (
    "Damage of a layer is the rise of the measure (loss, or errors: 0 / 1 of the class, word errors by reference "
    "words) when it is removed. rho: Spearman's correlation of ranking and damage over the L1 layers of one "
    "utterance, mean over utterances; neighbours closer than 1 % of the utterance's largest value are ties, and where "
    "all tie, as with uniform alpha, rho is 0: nothing is ranked. profile: the same of mean ranking and mean damage, "
    "L1 points. order_p: share of the orders of the layers (all up to 6 layers, one order for all utterances) whose "
    "rho is as high; with few layers it cannot be small, whatever n. Permuted alpha has rho 0 on average. minus_norm: "
    "rho minus that of the norm of the states as they are weighed. minus_others: rho minus that of the other "
    "utterances' ranking on the same damage. across: does more alpha than usual go with more damage than usual: "
    "Spearman over utterances for each layer, mean over the layers that move. Rankings: alpha; share = alpha * norm; "
    "norm; raw_norm = norm as the state leaves its layer. constant: share of utterances whose layers all tie. For "
    "text, LM weights are means over the reference's tokens. Intervals: 95 % percentile bootstrap over speakers. "
    "verdict: faithful where rho and minus_norm are both above 0 with their intervals; not faithful where nothing is "
    "ranked, where minus_norm is below 0 with its interval, or where the interval of rho reaches 0 or below and stays "
    "below 0.5; else undecided."
)
CURVES = (
    "Mean rise of the loss (nats) when the first `layers` layers of a ranking are taken away (deletion) or alone are "
    "kept (insertion), the weights left scaled up to the former sum; ties are ordered at random. random: the mean "
    "over random orders, which is what permuted alpha and uniform alpha give (all subsets up to 6 layers, else 4 "
    "orders an utterance)."
)
AREAS = (
    "Trapezoidal area under the curve between its first and its last point, over the share of that way: a mean rise "
    "of the loss in nats. A good ranking has a large area in deletion and a small one in insertion. over_random, "
    "over_norm: how much better than random orders (permuted or uniform alpha) and than the norm ranking, positive is "
    "better, paired by utterance. Intervals: 95 % percentile bootstrap over speakers."
)


@dataclass(frozen=True)
class Measured:
    """One task and stage: `intact` has a row for each of N utterances. loss (N,). `rankings`: (N, L1) by name."""

    task: str
    stage: str
    rows: pd.DataFrame
    intact: pd.DataFrame

    @property
    def rankings(self) -> dict[str, np.ndarray]:
        return {name: np.stack(self.intact[name].to_list()).astype(float) for name in conditions.RANKINGS}

    @property
    def layers(self) -> int:
        return len(self.intact["alpha"].iloc[0])

    @cached_property
    def removed(self) -> dict[tuple[str, str], list[pd.DataFrame]]:
        """By way of removing: a frame for each layer, in the order of `intact`, of the utterances that have it."""
        found = {}
        for way, rows in self.rows.dropna(subset="weights").groupby(["condition", "weights"]):
            by_layer = [part.set_index("utterance") for _, part in rows.groupby("layer", sort=True)]
            known = self.intact.index[self.intact.index.isin(by_layer[0].index)]
            found[way] = [frame.loc[known] for frame in by_layer]
        return found

    def damage(self, condition: str, weights: str, measure: str) -> tuple[pd.Index, np.ndarray] | None:
        """The utterances and (N, L1) rises of `loss` or `errors`; None where it was not measured."""
        column, frames = {"loss": "loss", "errors": "error"}[measure], self.removed.get((condition, weights))
        if frames is None or not all(has(f, column) for f in (*frames, self.intact)):
            return None
        known = frames[0].index
        rises = np.stack([f[column].to_numpy(float) for f in frames], 1)
        rises -= self.intact.loc[known, column].to_numpy(float)[:, None]
        if measure == "errors":
            rises /= self.intact.loc[known, "words"].clip(lower=1).to_numpy(float)[:, None]
        return known, rises


def summarise(rows: pd.DataFrame, context: Context) -> AnalysisResult:
    """Raises ValueError where no utterance has a label of any task."""
    if rows.empty:
        raise ValueError(
            "no utterance has a label of one of the model's tasks: choose another --manifest, or --label-map"
        )
    options = {"resamples": context.resamples, "seed": context.seed}
    tables = {name: [] for name in ("layers", "correlation", "by_dataset", "curves", "areas")}
    verdicts = []
    for measured in parts(rows):
        tables["layers"] += layer_rows(measured, **options)
        found = list(correlation_rows(measured, **options))
        tables["correlation"] += [row for row, _ in found]
        curves, areas = curve_rows(measured, **options)
        tables["curves"] += curves
        tables["areas"] += areas
        verdicts += verdicts_of(measured, found, areas)
        datasets = measured.intact["dataset"].dropna().unique()
        for dataset in sorted(datasets) if len(datasets) > 1 else ():
            part = Measured(
                measured.task, measured.stage, measured.rows[measured.rows["dataset"] == dataset],
                measured.intact[measured.intact["dataset"] == dataset],
            )  # fmt: skip
            some = correlation_rows(part, (MAIN,), **options)
            tables["by_dataset"] += [{"dataset": dataset, **row} for row, _ in some]
    definitions = {
        "layers": f"Means of alpha, share and norm (sum 1) and what removing the layer does. {WAYS} {DEFINITION}",
        "correlation": f"{CORRELATION} {WAYS}",
        "by_dataset": f"The same for each corpus apart. {CORRELATION} {WAYS}",
        "curves": f"{CURVES} Intervals: 95 % percentile bootstrap over speakers.",
        "areas": f"{AREAS} {CURVES}",
    }
    return AnalysisResult(
        ANALYSIS.name, QUESTION, tuple(Table(n, definitions[n], tuple(r)) for n, r in tables.items() if r),
        tuple(verdicts), rows["utterance"].nunique(), rows["speaker"].nunique(),
    )  # fmt: skip


def parts(rows: pd.DataFrame) -> Iterator[Measured]:
    for (task, stage), part in rows.groupby(["task", "stage"], sort=True):
        intact = part[part["condition"] == "intact"].set_index("utterance")
        yield Measured(task, stage, part, intact)


def layer_rows(measured: Measured, **options) -> Iterator[dict]:
    rankings, speakers = measured.rankings, measured.intact["speaker"].tolist()
    for layer in range(measured.layers):
        weights = {}
        for name in conditions.RANKINGS:
            weights |= mean_columns(name, rankings[name][:, layer], speakers, **options)
        for condition, how in REMOVALS:
            if frames := measured.removed.get((condition, how)):
                removed = frames[layer]
                where = {"task": measured.task, "stage": measured.stage, "layer": layer}
                change = paired_change(removed, measured.intact.loc[removed.index], **options)
                yield where | {"removal": condition, "weights": how} | weights | change


def correlation_rows(measured: Measured, removals=REMOVALS, **options) -> Iterator[tuple[dict, Agreement]]:
    """A table's row and what is behind it, for each way of removing, measure and ranking."""
    for condition, how in removals:
        for measure in ("loss", "errors"):
            if measured.layers < 3 or (found := measured.damage(condition, how, measure)) is None:
                continue
            known, damage = found
            places = measured.intact.index.get_indexer(known)
            speakers = measured.intact["speaker"].iloc[places].tolist()
            rankings = {name: values[places] for name, values in measured.rankings.items()}
            for name, ranking in rankings.items():
                result = agreement(ranking, damage, speakers, rankings["norm"], **options)
                row = {"task": measured.task, "stage": measured.stage, "removal": condition, "weights": how}
                row |= {"measure": measure, "ranking": name} | columns_of("rho", result.within)
                row |= columns_of("profile", result.profile) | {"order_p": result.order_p}
                row |= columns_of("minus_norm", result.minus_norm.difference)
                for column, part in (("minus_others", result.minus_others), ("across", result.across)):
                    interval = getattr(part, "difference", part)
                    none = {column: None, f"{column}_low": None, f"{column}_high": None}
                    row |= none if interval is None else columns_of(column, interval)
                row |= {"constant": result.constant, "L1": result.layers}
                row |= {"verdict": result.verdict if name in ("alpha", "share") else None}
                yield row | {"n": result.utterances, "speakers": result.speakers}, result


def curve_rows(measured: Measured, **options) -> tuple[list[dict], list[dict]]:
    """Rows of the tables `curves` and `areas`."""
    curves, areas = [], []
    speakers, base = measured.intact["speaker"].tolist(), measured.intact["loss"].to_numpy()
    for curve in ("deletion", "insertion"):
        rows = measured.rows[measured.rows["condition"] == curve]
        found, where = {}, {"task": measured.task, "stage": measured.stage, "curve": curve}
        for ranking in (*conditions.RANKINGS, conditions.RANDOM):
            table = rows[rows["ranking"] == ranking].pivot(index="utterance", columns="layers", values="loss")
            changes, points = table.loc[measured.intact.index].to_numpy() - base[:, None], table.columns.tolist()
            found[ranking] = area(changes, points)
            for place, count in enumerate(points):
                row = {"ranking": ranking, "layers": int(count), "share_of_layers": count / measured.layers}
                row |= mean_columns("loss_change", changes[:, place], speakers, **options)
                curves.append(where | row | counts(measured.intact))
        sign = 1 if curve == "deletion" else -1
        for ranking, values in found.items():
            row = {"ranking": ranking} | mean_columns("area", values, speakers, **options)
            for column, other in (("over_random", conditions.RANDOM), ("over_norm", "norm")):
                row |= mean_columns(column, sign * (values - found[other]), speakers, **options)
            areas.append(where | row | counts(measured.intact))
    return curves, areas


def verdicts_of(measured: Measured, found: list[tuple[dict, Agreement]], areas: list[dict]) -> Iterator[Verdict]:
    about, alpha = f"{measured.stage} / {measured.task}", measured.rankings["alpha"]
    ways = {(row["removal"], row["weights"]): (row, result) for row, result in found if _is_alpha_by_loss(row)}
    if MAIN in ways:
        (row, result), yes = ways[MAIN], sum(r["verdict"] == "faithful" for r, _ in ways.values())
        gain = {a["curve"]: _text(a, "over_random") for a in areas if a["ranking"] == "alpha"}
        sentences = (
            _favourites(alpha, measured.damage(*MAIN, "loss")[1]),
            f"Spearman of alpha and damage {_text(row, 'rho')}, minus that of the norm {_text(row, 'minus_norm')}; of "
            f"mean alpha and mean damage {_text(row, 'profile')}.",
            f"{row['order_p']:.1%} of all orders of the {row['L1']} layers agree as well.",
            f"Faithful in {yes} of {len(ways)} ways of removing.",
            f"Area over random orders: deletion {gain['deletion']}, insertion {gain['insertion']} nats.",
            f"From utterance to utterance alpha and damage go together by {_text(row, 'across')}.",
            f"{row['n']} utterances, {row['speakers']} speakers; {result.within.method}.",
        )
        yield Verdict(about, row["verdict"], " ".join(sentences))
    else:
        yield Verdict(about, "undecided", f"{measured.layers} layers are too few for a rank correlation: 3 at least.")
    yield Verdict(f"{about} / alpha", *movement(alpha))


def _is_alpha_by_loss(row: dict) -> bool:
    return row["ranking"] == "alpha" and row["measure"] == "loss"


def _favourites(alpha: np.ndarray, damage: np.ndarray) -> str:
    weight, harm = alpha.mean(0), damage.mean(0)
    first, worst = int(weight.argmax()), int(harm.argmax())
    there = "there" if worst == first else f"at layer {worst}"
    own = "" if worst == first else f", at layer {first} by {harm[first]:+.3f}"
    return (
        f"alpha favours layer {first} ({weight[first]:.2f}); removal hurts most {there} ({harm[worst]:+.3f} nats){own}."
    )


def movement(alpha: np.ndarray) -> tuple[str, str]:
    """Verdict and evidence on whether alpha (N, L1) differs between layers and between utterances."""
    layers, utterances = float(alpha.std(1).max()), float(alpha.std(0).max())
    evidence = (
        f"Largest standard deviation of alpha over the layers of an utterance {layers:.2g}, of a layer over the "
        f"{len(alpha)} utterances {utterances:.2g}; below {STILL:g} counts as constant."
    )
    if layers < STILL:
        return "constant: uniform over layers", evidence
    if len(alpha) > 1 and utterances < STILL:
        return "constant: the same for every utterance", evidence
    return "moves with the input" if len(alpha) > 1 else "undecided", evidence


def _text(row: dict, column: str) -> str:
    value, low, high = (row[name] for name in (column, f"{column}_low", f"{column}_high"))
    if value is None:
        return "not available (nothing moves)"
    return f"{value:.2f}" + ("" if low is None else f" [{low:.2f}, {high:.2f}]")


ANALYSIS = Analysis("faithfulness", QUESTION, conditions.measure, summarise)
