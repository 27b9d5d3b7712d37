"""The joined figure: for each task what a layer holds, what it is weighed, what it brings, and what its loss costs."""

import streamlit as st

from app import state
from app.components import chart, finding, plain, start
from app.components.views import task_and_stage
from app.figures.panels import BAR, LINE, Panel, panels
from app.findings import Finding, curve, estimates, only, values
from app.services import result_files
from harmonifuse_core.runs import RunFolder

WHY = (
    "The joined figure sets what a layer holds (probe), its alpha and effective share, and what its removal costs "
    "(damage) side by side."
)
TITLES = {
    "probe": "what the layer holds: probe score", "selectivity": "selectivity of the probe",
    "alpha": "what the task weighs: alpha", "share": "what it brings: effective share",
    "damage": "what its removal costs: damage",
}  # fmt: skip
HOW_TO_READ = """
- All panels share the layers. A task that uses what its layers hold has its alpha, share and damage high where the
  probe of its own target is high.
- **Agreement** is Spearman's rho over the layers, with its exact p. With few layers p cannot be small: *smallest_p* is
  the least that this many layers allow. A rho of 0.9 over 5 layers proves little.
- Alpha high, damage low: weighed but replaceable. Probe high, alpha low: there, but not taken from here.
"""


def show(run: RunFolder, name: str) -> None:
    found, damaged = finding.read("joined", result_files.joined, run)
    if found is None:
        if not damaged:
            plain.empty("Probe, alpha and damage are not joined yet", WHY)
        start.joined(run, name)
        return
    missing(found)
    finding.verdicts("joined", found.verdicts)
    finding.basis("joined", found)
    table = found.frame("layers")
    task, stage = task_and_stage("joined", values(table, "task"), values(table, "stage"))
    rows, figures = only(table, task=task, stage=stage), {}
    drawn = []
    for measure, title in TITLES.items():
        some = only(rows, measure=measure).assign(value_low=lambda t: t.get("low"), value_high=lambda t: t.get("high"))
        if len(some):
            unit = next(iter(values(some, "unit")), "")
            kind = BAR if measure == "damage" else LINE
            drawn.append(Panel(f"{title}{f' ({unit})' if unit else ''}", (curve(some, "value", measure, kind=kind),)))
    if drawn:
        figures["Joined"] = figure = panels(
            tuple(drawn), state.theme(), layers=int(rows["layer"].max()) + 1, legend=False
        )
        chart.show(figure, "joined", f"Probe, alpha, share and damage by layer, {task} {stage}; see the table")
    else:
        st.caption("Nothing is joined for this choice.")
    correlations = only(found.frame("correlations"), task=task, stage=stage)
    if len(correlations):
        some = estimates(correlations, "rho", lambda row: f"{row['a']} and {row['b']} (p = {row['p']:.3f})")
        title, axis = "Do they agree over the layers?", "Spearman's rho"
        finding.forest_section("joined-rho", title, some, axis, figures, digits=2, span=(-1.05, 1.05))
    stem = f"{run.name}-joined"
    finding.table("joined", stem, rows, found.definition("layers"), figures)
    finding.table("joined-rho", f"{stem}-correlations", found.frame("correlations"), found.definition("correlations"))
    finding.how_to_read(HOW_TO_READ)


def missing(found: Finding) -> None:
    """Parts that are not there, why, and the command that makes each."""
    parts = found.record.get("parts")
    for name, part in (parts if isinstance(parts, dict) else {}).items():
        if isinstance(part, dict) and not part.get("available"):
            plain.lines(f"joined-{name}", [f"Not joined: {name}. {part.get('reason') or 'not available'}"])
            if part.get("command"):
                st.code(str(part["command"]), language=None, wrap_lines=True)
