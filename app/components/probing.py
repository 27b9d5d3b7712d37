"""Parts of the page Probes: what each layer holds, against baselines; sets of layers, confusion, erasure."""

import numpy as np
import pandas as pd
import streamlit as st

from app import state, tables
from app.components import chart, finding, plain, start
from app.components.views import STAGE_WORDS
from app.figures import classes
from app.figures.panels import LEVEL, Panel, Series, panels
from app.findings import Finding, curve, estimates, only, value_of, values
from app.services import result_files
from harmonifuse_core.runs import RunError, RunFolder

WHY = (
    "Probes ask what every layer of encoder and LM holds: emotion, speaker, gender, intensity, pitch, energy, length, "
    "words. Each is compared with chance, length, log-mel and a random encoder."
)
LAYERS_HOW = """
- A probe is a small classifier (or regression) on one layer's frozen states, tested on speakers that it did not learn
  from. Its score says what *can be read out*, not what the model uses: for that, see *Joined* and *Erasure*.
- **Selectivity**: score minus that on a control task with shuffled labels. High score and low selectivity: the probe
  learns by heart, the layer does not tell.
- **Compression** (description length): how much shorter the labels are with the layer than without it. Above 1 it
  helps; it counts how *easily* the property is read, not only whether.
- Dashed levels: baselines. What log-mel or a random encoder of the same shape gives was not learned by the model.
- Bands: 95 % intervals over speakers.
"""
SETS_HOW = """
- **In the best set**: layers that cannot be told from the best one (Holm's correction over the layers). A single "best
  layer" is rarely a finding; the set is.
- *Over ...*: best layer minus a baseline, paired by speaker. Above 0 with its interval: the layer holds more than that.
"""
ERASURE_HOW = """
- **LEACE** takes away exactly what a linear probe could read of a concept at one layer; *random* takes away a random
  subspace of the same rank. **Beyond random**: what is due to the concept itself.
- The task suffers beyond random: it uses the concept there. It does not: the concept is there, but is not used, or is
  read elsewhere too.
"""
SCORES = {"ua": "UA (mean recall of classes)", "r2": "R2 (share of variance)", "word_ua": "UA of word presence"}


def place_of(row) -> str:
    """`Encoder`, or the LM under a task's prompt."""
    stage, task = STAGE_WORDS.get(row["stage"], str(row["stage"])), row.get("task")
    return f"{stage} ({task.upper()} prompt)" if isinstance(task, str) else stage


def choose(run: RunFolder) -> tuple[str, Finding] | None:
    """One of the run's probe results, or None after saying how to make the first."""
    names = result_files.probe_names(run)
    if not names:
        plain.empty("No probe was run on this run", WHY)
        start.probes(run)
        return None
    name = finding.picked("Probe result", names, "probe-result", state.link().result)
    state.set_link(result=name)
    found, _ = finding.read("probe", result_files.probes, run, name)
    if found is None:
        start.probes(run)
        return None
    return name, found


def overview(best: pd.DataFrame) -> pd.DataFrame:
    """A row a target, a column a place: verdict, layers that cannot be told from the best one, score of the best."""
    cells: dict[str, dict[str, str]] = {}
    for row in best.to_dict("records"):
        layers = str(row.get("layers") or row["best_layer"]).strip("[]")  # a list is text in a finding's frame
        named = f"layer{'s' if ',' in layers else ''} {layers}"
        text = f"{row['verdict']} · {named} · {row['metric']} {row['score']:.2f}"
        cells.setdefault(str(row["target"]), {})[place_of(row)] = text
    return pd.DataFrame.from_dict(cells, orient="index").rename_axis("target").reset_index()


def verdict(found: Finding, stem: str) -> None:
    best, figures = only(found.frame("best"), probe="linear"), {}
    if len(best):
        st.dataframe(overview(best), hide_index=True)
        with st.expander("The numbers behind it"):
            plain.lines("probe-evidence", [f"{v.about}: {v.verdict}. {v.evidence}" for v in found.verdicts])
    else:
        finding.verdicts("probes", found.verdicts)
    finding.basis("probes", found)
    for metric in values(best, "metric"):
        rows = only(best, metric=metric)
        drawn = estimates(rows, "score", lambda row: f"{row['target']} · {place_of(row)}, layer {row['best_layer']}",
                          place_of)  # fmt: skip
        title = f"Best layer of each target: {SCORES.get(metric, metric)}"
        finding.forest_section(f"best-{metric}", title, drawn, SCORES.get(metric, metric), figures, reference=None,
                               signed=False)  # fmt: skip
    finding.table("best", f"{stem}-best", found.frame("best"), found.definition("best"), figures)
    finding.table("targets", f"{stem}-targets", found.frame("targets"), found.definition("targets"))
    finding.how_to_read(SETS_HOW)


def target_and_place(table: pd.DataFrame, key: str) -> tuple[str | None, pd.DataFrame]:
    """The chosen target, and its rows at the chosen stage (the LM once for each task's prompt)."""
    with st.container(horizontal=True, gap="medium"):
        target = finding.picked("Target", values(table, "target"), "probe-target")
        rows = only(table, target=target)
        places = list(dict.fromkeys(place_of(row) for row in rows.to_dict("records")))
        place = finding.picked("Where", places, f"{key}-place")
    return target, rows[[place_of(row) == place for row in rows.to_dict("records")]]


def layers(found: Finding, stem: str) -> None:
    target, rows = target_and_place(found.frame("layers"), "probe")
    if rows.empty:
        st.caption("This result has no rows for this choice.")
        return
    metric, probes = rows["metric"].iloc[0], values(rows, "probe")
    last = int(rows["layer"].max())
    lines = [curve(only(rows, probe=p), "score", f"{p} probe") for p in probes]
    lines += [curve(only(rows, probe=p), "control", f"{p}, shuffled labels", band=False) for p in probes]
    drawn = [Panel(SCORES.get(metric, metric), (*lines, *levels(found, target, last)))]
    if "selectivity" in rows and rows["selectivity"].notna().any():
        picked = tuple(curve(only(rows, probe=p), "selectivity", f"{p} probe") for p in probes)
        drawn.append(Panel("selectivity: score minus control", picked))
    if "compression" in rows and rows["compression"].notna().any():
        lines = [curve(only(rows, probe="linear"), "compression", "linear probe")]
        if "control_compression" in rows:
            lines.append(curve(only(rows, probe="linear"), "control_compression", "linear, shuffled labels"))
        drawn.append(Panel("compression of the labels (description length)", tuple(lines)))
    figure = panels(drawn, state.theme(), layers=last + 1, height=190)
    chart.show(figure, "probe-layers", f"Probe scores of {target} by layer; the table has the numbers")
    finding.table("layers", f"{stem}-{target}-layers", rows, found.definition("layers"), {"Layers": figure})
    baselines = only(found.frame("baselines"), target=target)
    finding.table("baselines", f"{stem}-{target}-baselines", baselines, found.definition("baselines"))
    finding.how_to_read(LAYERS_HOW)


def levels(found: Finding, target: str, last: int) -> list[Series]:
    """Baselines of the linear probe: one level each, the random encoder layer by layer."""
    rows, drawn = only(found.frame("baselines"), target=target), []
    if "probe" in rows and (rows["probe"] == "linear").any():
        rows = rows[rows["probe"].isna() | (rows["probe"] == "linear")]
    for name in values(rows, "features"):
        some = only(rows, features=name)
        if some["layer"].notna().any():
            drawn.append(curve(some.dropna(subset=["layer"]), "score", name, band=False))
        elif (value := value_of(some.iloc[0], "score")) is not None:
            drawn.append(Series(name, (-0.5, last + 0.5), (value, value), kind=LEVEL))
    return drawn


def sets(found: Finding, stem: str) -> None:
    """Which layers cannot be told from the best, and what the best has over each baseline."""
    table = found.frame("layers")
    target, rows = target_and_place(table, "sets")
    probe = finding.picked("Probe", values(rows, "probe"), "sets-probe")
    rows, figures = only(rows, probe=probe), {}
    names = tables.layer_names(int(table["layer"].max()) + 1) if len(table) else []
    drawn = estimates(
        rows.assign(behind_best_low=rows.get("behind_low"), behind_best_high=rows.get("behind_high")), "behind_best",
        lambda row: f"layer {names[int(row['layer'])]}",
        lambda row: "in the best set" if row["in_best_set"] else "behind it",
    )  # fmt: skip
    finding.forest_section("sets", "How far each layer lies behind the best", drawn, "score of the best minus this one",
                           figures)  # fmt: skip
    finding.table("sets", f"{stem}-{target}-sets", rows, found.definition("layers"), figures)
    best = only(found.frame("best"), target=target, probe=probe)
    for column in ("majority", "duration", "logmel", "random"):
        if f"over_{column}" in best:
            some = estimates(best, f"over_{column}", lambda row: f"{place_of(row)}, layer {row['best_layer']}")
            if some:
                title = f"Best layer over {'log-mel' if column == 'logmel' else column}"
                finding.forest_section(f"over-{column}", title, some, "difference of scores", figures)
    finding.table("over", f"{stem}-{target}-best", best, found.definition("best"), figures)
    finding.how_to_read(SETS_HOW)


def confusion(run: RunFolder, name: str, found: Finding, stem: str) -> None:
    """Which classes the probe takes for which, at one layer: counted from every utterance's out-of-fold answer."""
    targets = only(found.frame("targets"), kind="classes")
    target = finding.picked("Target", values(targets, "target"), "confusion-target")
    if target is None:
        st.caption("No target of this result has classes.")
        return
    try:
        rows = result_files.probe_answers(run, name, target)
    except RunError as error:
        plain.problem("confusion", "The answers cannot be read.", str(error))
        return
    rows = rows.dropna(subset=["layer"])
    if rows.empty:
        st.caption("The answers of every utterance are not stored for this target.")
        return
    places = rows.apply(place_of, axis=1) if len(rows) else rows["stage"]
    place = finding.picked("Where", list(dict.fromkeys(places)), "confusion-place")
    rows = rows[places == place]
    layer = st.select_slider("Layer", sorted(rows["layer"].astype(int).unique().tolist()), key="confusion-layer")
    rows = rows[rows["layer"] == layer]
    labels = sorted({*rows["label"].astype(str), *rows["predicted"].astype(str)})
    counts = pd.crosstab(rows["label"].astype(str), rows["predicted"].astype(str)).reindex(
        index=labels, columns=labels, fill_value=0
    )
    figure = classes.confusion(counts.to_numpy(), labels, state.theme())
    chart.show(figure, "probe-confusion", f"Confusion of {target} at layer {layer}; the table has the counts",
               190 + 42 * len(labels))  # fmt: skip
    st.caption(f"{len(rows)} utterances, {np.trace(counts.to_numpy())} right. Rows: label, columns: answer.")
    table = counts.rename_axis("label").reset_index()
    definition = "Counts of utterances: rows the label, columns the linear probe's answer on speakers it did not see."
    finding.table("confusion", f"{stem}-{target}-confusion-{layer}", table, definition, {"Confusion": figure})


def erasure(found: Finding, stem: str) -> None:
    table = found.frame("erasure")
    if table.empty:
        st.caption("Erasure was not measured in this result.")
        return
    concept = finding.picked("Concept", values(table, "concept"), "erasure-concept")
    rows, figures = only(table, concept=concept), {}
    for task in values(rows, "task"):
        some = only(rows, task=task)
        leace = only(some, method="leace")
        drawn = estimates(leace, "beyond_random", erased)
        metric = next(iter(values(some, "metric")), "metric").upper()
        finding.forest_section(f"erasure-{task}", f"{task.upper()} without {concept}: beyond a random subspace", drawn,
                               f"change of {metric}", figures)  # fmt: skip
        drawn = estimates(some[some["method"] != "intact"], "change", lambda row: f"{row['method']} · {erased(row)}",
                          lambda row: row["method"])  # fmt: skip
        finding.forest_section(f"erasure-change-{task}", f"{task.upper()}: change against intact", drawn,
                               f"change of {metric}", figures)  # fmt: skip
    finding.table("erasure", f"{stem}-{concept}-erasure", rows, found.definition("erasure"), figures)
    finding.how_to_read(ERASURE_HOW)


def erased(row) -> str:
    layer = value_of(row, "layer")
    return "every layer at once" if layer is None else f"layer {'input' if layer == 0 else int(layer)}"
