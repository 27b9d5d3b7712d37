"""Which logged utterances were routed like this one, with their answers and, where it is here, their sound."""

import shlex
from collections.abc import Mapping

import numpy as np
import pandas as pd
import streamlit as st

from app import services
from app.components import plain
from app.components.columns import number_columns
from app.components.export import downloads
from app.components.recording import wav_bytes
from app.logged_utterance import fusions_of
from harmonifuse_core.neighbours import Fusion, Neighbour
from harmonifuse_core.runs import RunFolder

COUNT = 8
EVERY = "every task"
HOW_TO_READ = """
- **Distance** is the Jensen-Shannon divergence of the layer weights, in bits, averaged over the fusions that both have
  (encoder and language model of each task): 0 for equal weights, 1 where no layer is shared.
- Corpora with labels for one task only are compared by that task's two fusions; the column *compared* says which.
- Neighbours in routing need not sound alike. That they do, or do not, is what this list is for.
"""


def show(run: RunFolder, query: Mapping[Fusion, np.ndarray], key: str, exclude: str | None = None) -> None:
    """`query`: {(task, stage): (L1,)}. key: unique on the page. exclude: the utterance itself."""
    st.header("Which logged utterances were routed alike?", anchor=False)
    files = services.routing_files(run)
    if not files.paths:
        path = shlex.quote(f"runs/{run.name}")
        plain.empty(
            "No routing is logged in this run",
            "Neighbours are found among logged utterances. Log some with:",
            f"python -m harmonifuse_core.evaluate --run {path} --manifest M.jsonl --save test",
        )
        return
    tasks = [task for task in dict.fromkeys(task for task, _ in query) if task.isidentifier()]
    chosen = st.segmented_control("Compare", [EVERY, *tasks], default=EVERY, required=True, key=f"neighbours-by-{key}")
    wanted = {fusion: row for fusion, row in query.items() if chosen in (EVERY, fusion[0])}
    found = services.neighbours(files, wanted, COUNT, exclude)
    if not found:
        st.caption("No logged utterance has weights of these fusions with as many layers.")
        return
    rows = services.logged_utterances(files, [neighbour.utterance for neighbour in found])
    table = neighbour_table(found, rows)
    st.caption("Closest first. Choose a row to hear it and to open its page.")
    event = st.dataframe(
        table, hide_index=True, on_select="rerun", selection_mode="single-row", key=f"neighbours-{key}-{chosen}",
        column_config=number_columns(("distance",), 4),
    )  # fmt: skip
    selected = event.selection.rows
    place = selected[0] if selected and selected[0] < len(found) else 0
    _one(run, found[place], rows)
    downloads(f"neighbours-{key}", f"{run.name}-neighbours", table)
    with st.expander("How to read this"):
        st.markdown(HOW_TO_READ)


def _one(run: RunFolder, neighbour: Neighbour, rows: pd.DataFrame) -> None:
    mine = rows[rows["utterance"] == neighbour.utterance]
    with st.container(key=f"facts-neighbour-{run.name}"):
        st.text(neighbour.utterance)
    clip = services.recorded(mine["audio"].iloc[0]) if "audio" in mine and len(mine) else None
    if clip is None:
        st.caption("Its recording is not on this machine, or lies outside the data folders of `HARMONIFUSE_DATA`.")
    else:
        st.audio(wav_bytes(clip), format="audio/wav", alt="The neighbour's recording")
    link = {"run": run.name, "utt": neighbour.utterance}
    st.page_link("views/utterance.py", label="Open its page", icon=":material/open_in_new:", query_params=link)


def neighbour_table(found: tuple[Neighbour, ...], rows: pd.DataFrame) -> pd.DataFrame:
    """A row a neighbour: id, distance, what was compared, and its answers with their references."""
    lines = []
    for neighbour in found:
        line = {"utterance": neighbour.utterance, "distance": neighbour.distance}
        line |= {"compared": fusions_of(neighbour.fusions)}
        for row in rows[rows["utterance"] == neighbour.utterance].drop_duplicates("task").itertuples():
            line |= {f"{row.task}": row.prediction, f"{row.task} reference": getattr(row, "reference", None)}
            line |= {name: getattr(row, name, None) for name in ("speaker", "dataset")}
        lines.append(line)
    return pd.DataFrame(lines).dropna(axis="columns", how="all")
