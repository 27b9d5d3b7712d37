"""Parts of the page Study: claims and their comparisons, scores of every system, weights, costs, what is missing."""

import streamlit as st

from app import jobs, state
from app.components import chart, finding, plain, start
from app.components.export import downloads
from app.components.views import task_and_stage
from app.figures.panels import Panel, panels
from app.findings import Finding, curve, estimates, only, values
from app.services import result_files
from harmonifuse_core.runs import RunError, StudyFolder

HOW_TO_READ = """
- One row a comparison: **benefit** is what the first system improves on the second, positive is better, for WER too.
- The interval is of other speakers *and* other seeds together; *speakers alone* holds for these very trainings, *seeds
  alone* for these very speakers.
- **Supported here**: the corrected p is below 0.05 on the claimed side. **Undecided at this size**: more seeds or
  speakers may tell. No claim is decided for larger models or other corpora.
- *expect: not worse* tests against a loss of `margin`, so that "no difference found" is not taken for "no difference".
"""
SCORES_HOW = """
- Mean over the seeds. WER: lower is better; UA, WA: higher is better. The interval is over speakers for these seeds, or
  over seeds for these speakers; neither holds for both.
- Compare systems by the claims: paired differences are sharper than two intervals side by side.
"""
INTERVALS = {"benefit": "speakers and seeds", "speakers": "speakers alone", "seeds": "seeds alone"}
SPREADS = {"value": "over speakers", "seeds": "over seeds"}
MOST_CURVES = 6


def choose(found: list[StudyFolder]) -> StudyFolder:
    names = [folder.name for folder in found]
    wanted = state.link().study
    if wanted is not None and wanted not in names:
        plain.notes("study", [f"the link names the study {state.shortened(wanted)}, which is not in the runs folder"])
    chosen = finding.picked("Study", names, "study-choice", wanted)
    state.set_link(study=chosen)
    return next(folder for folder in found if folder.name == chosen)


def progress(folder: StudyFolder, found: Finding | None) -> None:
    """How much of the study is there, and the commands that go on with it."""
    record = found.record if found is not None else {}
    done, expected = record.get("cells_done"), record.get("cells_expected")
    waiting = len(folder.part_names())
    path = result_files.shown_path(folder.study_file)
    words = (path, "--output", result_files.shown_path(folder.path))
    if found is not None and record.get("complete") is not False and not waiting:
        return
    if isinstance(done, int) and isinstance(expected, int) and expected > 0:
        st.progress(min(1.0, done / expected))
        st.caption(f"This table rests on {done} of {expected} cells (a cell is one system with one seed).")
    if waiting:
        st.caption(f"{waiting} finished cells wait beside the tables; the table below may not have all of them.")
    plain.empty(
        "This study is not whole yet", "Go on with it (hours: training; take a terminal), or make the table anew:",
        jobs.Command("study", words).shown,
    )  # fmt: skip
    start.command("study-table", jobs.Command("study", (*words, "--table-only")))


def claims(found: Finding, stem: str) -> None:
    table, claimed, figures = found.frame("comparisons"), found.frame("claims"), {}
    st.text(counted(values(claimed, "verdict"), list(claimed.get("verdict", [])), "claim"))
    st.text(counted(values(table, "verdict"), list(table.get("verdict", [])), "comparison"))
    stated = claimed.to_dict("records")
    finding.in_pairs(stated, _claim)
    limits = finding.picked("Interval of", list(INTERVALS), "study-limits", shown=INTERVALS.get)
    numbers = {claim.get("claim"): place for place, claim in enumerate(stated, 1)}
    drawn = estimates(table, "benefit", lambda row: f"{numbers.get(row['claim'], '?')}. {compared(row)}", limits=limits)
    title = "Every comparison, by the number of its claim"
    finding.forest_section("claims", title, drawn, "benefit (above 0 is better)", figures)  # one: each costs its time
    finding.table("claims", f"{stem}-claims", claimed, found.definition("claims"))
    finding.table("comparisons", f"{stem}-comparisons", table, found.definition("comparisons"), figures)
    finding.how_to_read(HOW_TO_READ)


def counted(kinds: list[str], verdicts: list, what: str) -> str:
    """`4 claims: 1 supported here, 3 undecided at this size`."""
    parts = ", ".join(f"{verdicts.count(kind)} {kind}" for kind in kinds)
    return f"{len(verdicts)} {what}{'' if len(verdicts) == 1 else 's'}: {parts or 'none'}"


def _claim(place: int, claim: dict) -> None:
    text, verdict, evidence, source = (str(claim.get(k) or "") for k in ("text", "verdict", "evidence", "source"))
    with st.container(key=f"plain-claim-{place}", border=True, gap="xsmall"):
        st.text(f"{place + 1}. {text}")
        finding.verdict_and_evidence(f"claim-{place}", verdict, evidence, source)


def compared(row) -> str:
    return (
        f"{row['system']} over {row['baseline']} · {row['evaluation']} {str(row['metric']).upper()} ({row['verdict']})"
    )


def scores(found: Finding, stem: str) -> None:
    table, figures = found.frame("scores"), {}
    limits = finding.picked("Interval", list(SPREADS), "study-spread", shown=SPREADS.get)
    for evaluation in values(table, "evaluation"):
        for metric in values(only(table, evaluation=evaluation), "metric"):
            rows = only(table, evaluation=evaluation, metric=metric)
            title = f"{metric.upper()} on {evaluation}"
            drawn = estimates(rows, "value", lambda row: f"{row['system']} ({row['seeds']} seeds)", limits=limits)
            with st.container(key=f"plain-title-{metric}-{len(figures)}"):
                st.text(title)
            finding.forest_section(
                f"score-{len(figures)}", "", drawn, f"{title}", figures, reference=None, signed=False
            )
    finding.table("scores", f"{stem}-scores", table, found.definition("scores"), figures)
    finding.how_to_read(SCORES_HOW)


def weights(found: Finding, stem: str) -> None:
    """Alpha of every layer by system, with the spread over seeds as a band."""
    table = found.frame("alphas")
    evaluation = finding.picked("Evaluation", values(table, "evaluation"), "study-evaluation")
    mine = only(table, evaluation=evaluation)
    task, stage = task_and_stage("study", values(mine, "task"), values(mine, "stage"))
    rows = only(mine, task=task, stage=stage)
    if rows.empty:
        st.caption("No weights are stored for this choice.")
        return
    rows = rows.assign(alpha_low=rows["alpha"] - rows["alpha_sd"], alpha_high=rows["alpha"] + rows["alpha_sd"])
    systems = st.multiselect(
        "Systems", values(rows, "system"), values(rows, "system")[:MOST_CURVES], key="study-systems"
    )
    kept = rows[rows["system"].isin(systems)]
    drawn = [
        Panel(f"mean {part}", tuple(curve(only(kept, system=s), part, s) for s in systems[:MOST_CURVES]))
        for part in ("alpha", "share")
    ]  # fmt: skip
    figure = panels(drawn, state.theme(), layers=int(rows["layer"].max()) + 1, height=220)
    chart.show(figure, "study-alpha", f"Mean alpha of each layer by system, {task} {stage}; the table has the numbers")
    st.caption(f"Bands: one standard deviation over seeds. At most {MOST_CURVES} systems are drawn.")
    finding.table("alphas", f"{stem}-alphas", table, found.definition("alphas"), {"Alpha": figure})


def costs(folder: StudyFolder, found: Finding, stem: str) -> None:
    for name, title in (("costs", "What each system costs"), ("missing", "Cells that are missing")):
        table = found.frame(name)
        if len(table):
            st.subheader(title, anchor=False)
            st.dataframe(table, hide_index=True)
            finding.table(name, f"{stem}-{name}", table, found.definition(name))
    st.subheader("The rows behind every number", anchor=False)
    try:
        for kind in ("cells", "alphas", "utterances"):
            rows = result_files.study_rows(folder, kind)
            if len(rows):
                st.caption(f"{kind}: {len(rows)} rows")
                downloads(f"study-{kind}", f"{stem}-{kind}", rows)
            else:
                st.caption(f"{kind}: written when the study is whole")
    except RunError as error:
        plain.problem("study-rows", "Some rows cannot be read.", str(error))
