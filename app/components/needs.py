"""What answers need, from the attribution analysis: layers, prompt tokens, and whether the frames found matter."""

import streamlit as st

from app import tables
from app.components import finding
from app.findings import Finding, estimates, only, values

HOW_TO_READ = """
- A score is what the answer's own target loses when one part is replaced by its baseline: above 0 the part supports the
  answer, below 0 it works against it. Parts that stand in for each other can all score low.
- *top* in the table: in which share of utterances this part scores highest.
- Frames: removing the frames that integrated gradients found must hurt more than removing random ones; else the
  attribution over time says nothing.
"""


def answers(found: Finding, stem: str) -> None:
    """Layers and frames of every task."""
    finding.verdicts("needs", found.verdicts)
    finding.basis("needs", found)
    figures: dict = {}
    table = found.frame("layers")
    for task in values(table, "task"):
        rows = only(table, task=task)
        names = tables.layer_names(len(rows))
        drawn = estimates(rows, "score", lambda row: f"layer {names[int(row['layer'])]}")  # noqa: B023
        finding.forest_section(f"needs-{task}", f"{task.upper()}: what the answer loses without a layer", drawn,
                               "change of the target", figures)  # fmt: skip
    finding.table("needs-layers", f"{stem}-attribution-layers", table, found.definition("layers"), figures)
    deletion = found.frame("deletion")
    if len(deletion):
        drawn = estimates(deletion, "gap", lambda row: f"{str(row['task']).upper()} frames")
        finding.forest_section("needs-frames", "Do the frames found matter more than random ones?", drawn,
                               "area over random orders", figures)  # fmt: skip
        finding.table("needs-deletion", f"{stem}-attribution-frames", deletion, found.definition("deletion"))
    finding.how_to_read(HOW_TO_READ)


def prompt_tokens(found: Finding, stem: str) -> None:
    """Which tokens of the own prompt the answers need."""
    table, figures = found.frame("tokens"), {}
    if table.empty:
        st.caption("This attribution has no prompt tokens.")
        return
    for task in values(table, "task"):
        drawn = estimates(only(table, task=task), "score", lambda row: f"{int(row['token']) + 1}. {row['name']}")
        finding.forest_section(f"tokens-{task}", f"{task.upper()}: what the answer loses without a prompt token", drawn,
                               "change of the target", figures)  # fmt: skip
    finding.table("tokens", f"{stem}-attribution-tokens", table, found.definition("tokens"), figures)
