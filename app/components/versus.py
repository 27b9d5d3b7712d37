"""Two runs side by side, paired by utterance: scores, answers, alpha by layer, and how far the parameters lie apart."""

import streamlit as st

from app import services, state
from app.components import chart, finding, plain
from app.components.views import task_and_stage
from app.figures.panels import Panel, panels
from app.findings import Finding, curve, estimates, only, values
from app.services import result_files
from harmonifuse_core.runs import RunError, RunFolder

HOW_TO_READ = """
- A is the run chosen in the sidebar, B the other one. **B minus A**, paired: both runs answered the same utterances, so
  hard ones weigh on both. Below 0 is better for WER, above 0 for UA and WA.
- Intervals are 95 % over speakers. They say what other speakers would change, not what another training seed would: for
  that, run a study.
- **Alpha** moved where the interval of a layer's difference leaves 0. With many utterances tiny differences do, so look
  at their size.
"""
MOVED_HOW = """
- Relative distance: length of B minus A over the length of A. 0: the group did not move. Two runs from different random
  starts lie about 1.4 apart everywhere; that says nothing of what they do.
"""


def choose_other(run: RunFolder) -> RunFolder | None:
    """The second run: from the address, else the first other one."""
    names = [other.name for other in services.runs() if other.name != run.name]
    if not names:
        plain.empty(
            "There is no second run", "Train one, from the same config with another seed or setting, for instance:",
            f"python -m harmonifuse_core.train --config runs/{run.name}/config.yaml --run runs/other training.seed=1",
        )  # fmt: skip
        return None
    wanted = state.link().versus
    if wanted is not None and wanted not in names:
        plain.notes("versus", [f"the link compares with {state.shortened(wanted)}, which is not another run here"])
    key = "versus"
    if st.session_state.get(key) not in names:
        st.session_state[key] = wanted if wanted in names else names[0]
    chosen = st.selectbox("B: compare with", names, key=key)
    state.set_link(versus=chosen)
    return services.run_named(chosen)


def choose_evaluation(one: RunFolder, two: RunFolder) -> str | None:
    shared = result_files.shared_evaluations(one, two)
    if not shared:
        plain.empty(
            "The two runs share no logged evaluation",
            "Score both on the same manifest under the same name; `--save` keeps all answers and weights:",
            *(f"python -m harmonifuse_core.evaluate --run {result_files.shown_path(r.path)} --manifest M.jsonl "
              "--split test --save test" for r in (one, two)),
        )  # fmt: skip
        return None
    evaluation = finding.picked("Evaluation", shared, "versus-evaluation", state.link().result)
    state.set_link(result=evaluation)
    return evaluation


def verdict(one: RunFolder, two: RunFolder, found: Finding) -> None:
    """The answer in words, and on how much it rests."""
    finding.verdicts("versus", found.verdicts)
    with st.container(key="plain-basis-versus", gap="xsmall"):
        st.text(
            f"A: {one.name} · B: {two.name} · {found.result.utterances} utterances, {found.result.speakers} speakers"
        )
        if found.result.caution:
            st.text(f"Mind: {found.result.caution}.")


def stem(one: RunFolder, two: RunFolder, found: Finding) -> str:
    """Start of the names of exported files."""
    return f"{one.name}-versus-{two.name}-{found.record['evaluation']}"


def answers(found: Finding, stem: str) -> None:
    """Paired scores, and who is right where."""
    scores, figures = found.frame("scores"), {}
    drawn = estimates(scores, "difference", lambda row: f"{str(row['task']).upper()} {row['metric']}")
    finding.forest_section("scores", "Scores: B minus A", drawn, "difference (WER: below 0 is better)", figures)
    finding.table("scores", f"{stem}-scores", scores, found.definition("scores"), figures)
    right = found.frame("answers")
    if len(right):
        st.subheader("Who is right where?", anchor=False)
        st.dataframe(right, hide_index=True)
        finding.table("answers", f"{stem}-answers", right, found.definition("answers"))
    finding.how_to_read(HOW_TO_READ)


def weights(found: Finding, stem: str) -> None:
    """Alpha of both runs by layer, and how far it lies apart on the same utterance."""
    table = found.frame("alpha")
    if table.empty:
        st.caption("Not available: the runs differ in their number of layers.")
        return
    task, stage = task_and_stage("versus", values(table, "task"), values(table, "stage"))
    rows, figures = only(table, task=task, stage=stage), {}
    both = (curve(rows, "a", "A"), curve(rows, "b", "B"))
    drawn = [Panel("mean alpha", both), Panel("B minus A", (curve(rows, "difference", "difference"),))]
    figures["Alpha"] = figure = panels(drawn, state.theme(), layers=int(rows["layer"].max()) + 1)
    chart.show(figure, "versus-alpha", f"Mean alpha of both runs, {task} {stage}; the table has the numbers")
    drawn = estimates(found.frame("divergence"), "jsd", lambda r: f"{str(r['task']).upper()} · {r['stage']}")
    title = "How far alpha of B lies from alpha of A on the same utterance"
    finding.forest_section("versus-jsd", title, drawn, "JSD, bits", figures, signed=False, digits=4)
    finding.table("versus-alpha", f"{stem}-alpha", table, found.definition("alpha"), figures)
    finding.table("versus-jsd", f"{stem}-divergence", found.frame("divergence"), found.definition("divergence"))
    finding.how_to_read(HOW_TO_READ)


def parameters(one: RunFolder, two: RunFolder) -> None:
    """Asked for by a switch: it reads both models' files."""
    if not st.toggle("Compare the weight files of both runs", key="versus-parameters"):
        return
    try:
        with st.spinner("Reading both runs' weights"):
            table = result_files.moved_weights(one, two)
    except RunError as error:
        plain.problem("parameters", "The weights do not compare.", str(error))
        return
    drawn = estimates(table, "relative", lambda row: row["group"])
    figures: dict = {}
    finding.forest_section("moved", "", drawn, "relative distance", figures, signed=False)
    definition = (
        "One row a group of parameters. relative: length of B minus A over length of A, all tensors of the group "
        "together; farthest: the tensor with the largest relative distance; unlike: tensors that B lacks or has in "
        "another shape, left out."
    )
    finding.table("moved", f"{one.name}-versus-{two.name}-parameters", table, definition, figures)
    finding.how_to_read(MOVED_HOW)
