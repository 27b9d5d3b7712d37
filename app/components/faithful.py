"""Parts of the page Faithfulness, each from one or two tables of a result."""

import streamlit as st

from app import state, tables
from app.components import chart, finding
from app.components.views import STAGE_WORDS, task_and_stage
from app.figures.panels import BAR, Panel, panels
from app.findings import Finding, curve, estimates, only, values

RANKINGS = {"alpha": "alpha", "share": "effective share", "norm": "norm only", "raw_norm": "norm before the fusion",
            "random": "permuted or uniform"}  # fmt: skip
WAYS = {"renormalised": "weights scaled up", "held": "weights held"}
VERDICT_HOW = """
- **Faithful**: the layers that alpha favours are the ones whose removal hurts, and alpha tells it better than the
  length of the states alone. **Not faithful**: alpha ranks nothing, or ranks against the damage. **Undecided**: the
  interval allows both; more utterances and speakers narrow it.
- A second line for each fusion says whether alpha moves at all, over layers and from utterance to utterance.
- Faithful alpha says which layers matter *in this model*; it does not say that another model needs them.
"""
CURVES_HOW = """
- **Deletion**: the first layers of a ranking are taken away. A ranking that knows what matters makes the loss rise
  early, so its curve lies *above* the reference.
- **Insertion**: the first layers alone are kept. A good ranking needs few of them, so its curve lies *below*.
- References: *permuted or uniform* is the mean over random orders, which is what permuted alpha and uniform alpha give;
  *norm only* ranks layers by the length of their states. Where alpha does no better than these, it tells nothing more.
- Bands are 95 % intervals over speakers. Areas sum a curve up; *over random* and *over norm* are better above 0.
"""
AGREEMENT_HOW = """
- One point is Spearman's correlation of a ranking with the damage, over the layers of an utterance, mean over
  utterances: 1 means the same order, 0 none, -1 the reverse.
- Ways of removing: *zero* takes a layer's weight, *mean* and *other* put another state in its place. *Scaled up* gives
  its weight to the others. A finding that holds in one way only is a finding about that way.
- *Effective share* is alpha times the length of the state: where it agrees better than alpha, the length of the states
  carries what alpha alone does not say.
"""
REPLACED_HOW = """
- Above 0: the replaced weights make the answer worse, so what they lack mattered. An interval across 0: no difference
  was found. *task_mean* lacks the utterance; *uniform* lacks everything; *task:NAME* is another task's weighting.
- *Against own_mean* (text): the utterance's own mean over its tokens is the measure, so the tokens' part is left out.
- The logits' parts say where alpha comes from: the task's bias, a constant of the FFN, or what moves with the input.
"""
APART_HOW = """
- **JSD** 0: both tasks weigh the layers alike; 1: they share none. About 0.01 is what one sees in a heatmap.
- *between utterances* is what the input alone moves within one task; *bias* what the learned scalars alone would give.
- Against another seed: tasks that lie no farther apart than two trainings of the same task show no difference that a
  reader should build on.
"""


def named(row) -> str:
    return f"{STAGE_WORDS.get(row['stage'], row['stage'])} / {str(row['task']).upper()}"


def ranking(row) -> str:
    return RANKINGS.get(row["ranking"], row["ranking"])


def replacement(row) -> str:
    return f"{row['replacement']}, {against(row)}"


def against(row) -> str:
    return f"against {row['against']}"


def pair(row) -> str:
    return f"{tables.STAGES.get(row['stage'], row['stage'])} · {row['task_a']} - {row['task_b']}"


def verdict(found: Finding, stem: str) -> None:
    main = [v for v in found.verdicts if not v.about.endswith("/ alpha")]
    finding.verdicts("faithful", main)
    finding.basis("faithfulness", found)
    figures: dict = {}
    rows = only(found.frame("correlation"), removal="zero", weights="renormalised", measure="loss")
    rows = rows[rows["ranking"].isin(["alpha", "share", "norm"])] if len(rows) else rows
    found_rows = estimates(rows, "rho", lambda row: f"{named(row)} · {ranking(row)}", ranking)
    title = "Does the ranking of the layers agree with the damage?"
    finding.forest_section("rho", title, found_rows, "Spearman's rho", figures, digits=2, span=(-1.05, 1.05))
    finding.table("rho", f"{stem}-faithfulness", rows, found.definition("correlation"), figures)
    if rest := [v for v in found.verdicts if v.about.endswith("/ alpha")]:
        st.subheader("Does alpha move at all?", anchor=False)
        finding.verdicts("moves", rest)
    finding.how_to_read(VERDICT_HOW)


def curves(found: Finding, stem: str) -> None:
    table = found.frame("curves")
    task, stage = task_and_stage("curves", values(table, "task"))
    mine, figures = only(table, task=task, stage=stage), {}
    for column, name in zip(st.columns(2, gap="medium"), ("deletion", "insertion"), strict=True):
        rows = only(mine, curve=name)
        drawn = [
            curve(only(rows, ranking=r), "loss_change", RANKINGS[r], "layers", band=r in ("alpha", "random"))
            for r in values(rows, "ranking") if r in RANKINGS and r != "raw_norm"
        ]  # fmt: skip
        with column:
            st.subheader(name.capitalize(), anchor=False)
            if not drawn:
                st.caption("Not in this result.")
                continue
            panel = Panel("rise of the loss, nats", tuple(drawn))
            axis, few = "layers " + AXES[name], bool(rows["layers"].max() <= 12)
            figures[name] = figure = panels([panel], state.theme(), x_title=axis, height=260, whole=few)
            chart.show(figure, f"curve-{name}", f"{name} curves of {task} {stage}; the table has the numbers")
    finding.table("curves", f"{stem}-curves", mine, found.definition("curves"), figures)
    areas = only(found.frame("areas"), task=task, stage=stage)
    for column, title in (("over_random", "Area over permuted or uniform alpha"), ("over_norm", "Area over norm only")):
        rows = areas[areas["ranking"].isin(["alpha", "share"])] if len(areas) else areas
        drawn = estimates(rows, column, lambda row: f"{row['curve']} · {ranking(row)}", ranking)
        finding.forest_section(f"area-{column}", title, drawn, "nats, above 0 is better", figures)
    finding.table("areas", f"{stem}-areas", areas, found.definition("areas"), figures)
    finding.how_to_read(CURVES_HOW)


AXES = {"deletion": "taken away", "insertion": "kept"}
COLUMNS = {
    "rho": "rank agreement in an utterance (rho)", "minus_norm": "rho minus that of the norm",
    "minus_others": "rho minus that of other utterances' alpha", "profile": "rho of the means (profile)",
    "across": "from utterance to utterance (across)",
}  # fmt: skip


def agreement(found: Finding, stem: str) -> None:
    table = found.frame("correlation")
    task, stage = task_and_stage("agreement", values(table, "task"))
    mine, figures = only(table, task=task, stage=stage), {}
    if mine.empty:
        st.caption("Not measured: a rank correlation needs at least 3 layers.")
        return
    with st.container(horizontal=True, gap="medium"):
        measure = finding.picked("Damage by", values(mine, "measure"), "agreement-measure")
        column = finding.picked("Show", list(COLUMNS), "agreement-column", shown=COLUMNS.get)
    rows = only(mine, measure=measure)
    shown = rows[rows["ranking"].isin(["alpha", "share"])]
    drawn = estimates(shown, column, lambda row: f"{row['removal']}, {WAYS[row['weights']]} · {ranking(row)}", ranking)
    finding.forest_section("agreement", "Alpha and effective share against the damage", drawn, COLUMNS[column], figures,
                           digits=2)  # fmt: skip
    finding.table("agreement", f"{stem}-agreement", rows, found.definition("correlation"), figures)
    by_dataset = only(found.frame("by_dataset"), task=task, stage=stage, measure=measure)
    if len(by_dataset):
        some = by_dataset[by_dataset["ranking"].isin(["alpha", "share"])]
        drawn = estimates(some, "rho", lambda row: f"{row['dataset']} · {ranking(row)}", ranking)
        finding.forest_section("by-dataset", "Each corpus apart", drawn, COLUMNS["rho"], figures, digits=2)
        finding.table("by-dataset", f"{stem}-by-dataset", by_dataset, found.definition("by_dataset"))
    finding.how_to_read(AGREEMENT_HOW)


def layers(found: Finding, stem: str) -> None:
    table = found.frame("layers")
    task, stage = task_and_stage("layers", values(table, "task"))
    mine = only(table, task=task, stage=stage)
    ways = list(dict.fromkeys(f"{row['removal']}, {row['weights']}" for row in mine.to_dict("records")))
    way = finding.picked("How a layer is removed", ways, "layers-way")
    if way is None:
        st.caption("Not in this result.")
        return
    rows = only(mine, **dict(zip(("removal", "weights"), way.split(", "), strict=True)))
    weights = tuple(curve(rows, n, RANKINGS[n]) for n in ("alpha", "share", "norm") if n in rows)
    drawn = [Panel("weight of each layer", weights)]
    drawn.append(Panel("rise of the loss without it, nats", (curve(rows, "loss_change", "damage", kind=BAR),)))
    if rows["metric_change"].notna().any():
        metric = next(iter(values(rows, "metric")), "metric")
        drawn.append(
            Panel(f"change of {metric} without it", (curve(rows, "metric_change", f"{metric} change", kind=BAR),))
        )
    figure = panels(drawn, state.theme(), layers=int(rows["layer"].max()) + 1)
    chart.show(figure, "layers", f"Weights and damage of each layer, {task} {stage}; the table has the numbers")
    finding.table("layers", f"{stem}-layers", rows, found.definition("layers"), {"Layers": figure})
    finding.how_to_read(AGREEMENT_HOW)


def replaced(found: Finding, stem: str) -> None:
    finding.verdicts("input", found.verdicts)
    finding.basis("input", found)
    table = found.frame("replacements")
    task, stage = task_and_stage("replaced", values(table, "task"))
    mine, figures = only(table, task=task, stage=stage), {}
    title, axis = "What the loss does with replaced weights", "change of the loss, nats"
    finding.forest_section("replaced", title, estimates(mine, "loss_change", replacement, against), axis, figures)
    metric = estimates(mine, "metric_change", replacement, against)
    if metric:
        name = next(iter(values(mine, "metric")), "metric")
        finding.forest_section("replaced-metric", f"What {name} does", metric, f"change of {name}", figures)
    finding.table("replaced", f"{stem}-replacements", mine, found.definition("replacements"), figures)
    st.subheader("Where do the logits of alpha come from?", anchor=False)
    logits = found.frame("logits")
    drawn = estimates(logits, "moving", named)
    finding.forest_section(
        "moving", "", drawn, "share that moves with the input", figures, signed=False, span=(-0.03, 1.03)
    )
    finding.table("logits", f"{stem}-logits", logits, found.definition("logits"))
    finding.how_to_read(REPLACED_HOW)


def apart(found: Finding, stem: str) -> None:
    finding.verdicts("apart", found.verdicts)
    finding.basis("apart", found)
    pairs, figures = found.frame("pairs"), {}
    for column, title, options in (
        ("jsd", "How far the tasks' alphas lie apart (JSD, bits)", {"signed": False}),
        ("bias_jsd", "The learned scalars alone (JSD, bits)", {"signed": False}),
        ("centre_difference", "Centre of mass over depth: first task minus second, layers", {"digits": 2}),
    ):
        finding.forest_section(f"apart-{column}", title, estimates(pairs, column, pair), title, figures, **options)
    finding.table("apart", f"{stem}-divergence", pairs, found.definition("pairs"), figures)
    seeds = found.frame("seeds")
    if len(seeds):
        drawn = estimates(seeds, "difference", lambda row: f"{pair(row)} · against {row['other']}")
        axis = "JSD between tasks minus JSD between seeds, bits"
        finding.forest_section("seeds", "Beyond what another seed moves?", drawn, axis, figures)
        finding.table("seeds", f"{stem}-seeds", seeds, found.definition("seeds"))
    finding.how_to_read(APART_HOW)


def signatures(found: Finding, stem: str) -> None:
    table = found.frame("signatures")
    finding.basis("signatures", found)
    for status, title in (("found", "Found"), ("not found", "Not found"), ("not available", "Could not be looked for")):
        some = [v for v in found.verdicts if v.verdict == status or v.verdict.startswith(f"{status},")]
        if some:
            st.subheader(f"{title}: {len(some)}", anchor=False)
            finding.verdicts(f"signature-{status.replace(' ', '-')}", some)
    finding.table("signatures", f"{stem}-signatures", table, found.definition("signatures"))
