"""The prompt editor: another prompt for a task, and what it changed against the default one."""

import numpy as np
import pandas as pd
import streamlit as st

from app import services, state, tables
from app.comparison import PromptChange, compare
from app.components import chart, plain
from app.components.answer import title_of
from app.components.columns import number_columns
from app.components.export import downloads
from app.figures import classes, weights
from app.services import Answered
from harmonifuse_core.data.audio import Clip
from harmonifuse_core.runs import RunFolder
from harmonifuse_core.tasks import TaskConfig

LONGEST = 400
HOW_TO_READ = """
- The prompt reaches the language model only: the encoder's gate does not read it, so encoder weights stay as they are.
- **Change** is edited minus default, centred at 0. **Jensen-Shannon divergence** (base 2) of the two weight rows goes
  from 0 (equal) to 1 (no layer in common).
- A model that was trained on a few paraphrases may hardly react to a new wording. That is a finding, not a fault.
"""


def editor(run: RunFolder, clip: Clip, default: Answered, tasks: tuple[TaskConfig, ...]) -> None:
    """Editors side by side, then what changed, for the tasks whose prompt differs from the default."""
    st.header("What if you ask differently?", anchor=False)
    edited = {}
    for column, task in zip(st.columns(len(tasks), gap="large"), tasks, strict=True):
        with column:
            prompt = _edit(run.name, task)
        if prompt != task.default_prompt:
            edited[task] = prompt
    if not edited:
        st.caption("These are the default prompts. Choose a paraphrase or write your own: the change shows here.")
        return
    changes, after = {}, {}
    for task, prompt in edited.items():
        try:
            after[task.name] = services.answer(run, clip, ((task.name, prompt),)).answers[task.name]
        except ValueError as error:
            plain.problem(f"prompt-{task.name}", f"The prompt of {task.name.upper()} cannot be used.", str(error))
            continue
        changes[task.name] = compare(default.answers[task.name], after[task.name])
    if changes:
        _what_changed(run, clip, default, after, changes)


def _edit(run_name: str, task: TaskConfig) -> str:
    """One task's prompt as it stands in the text area; an empty one counts as the default."""
    key, chooser = f"prompt-{run_name}-{task.name}", f"paraphrase-{run_name}-{task.name}"
    st.session_state.setdefault(key, task.default_prompt)
    st.subheader(f"Prompt for {title_of(task.name).lower()}", anchor=False)
    options = list(task.prompts)
    current = st.session_state[key]
    st.session_state[chooser] = current if current in options else None
    st.selectbox(
        "Paraphrases from training",
        options,
        key=chooser,
        on_change=_paraphrase,
        args=(key, chooser),
        placeholder="own wording",
    )
    text = st.text_area("Prompt", key=key, max_chars=LONGEST, height=80)
    st.button(
        "Back to the default", key=f"reset-{run_name}-{task.name}", on_click=_reset, args=(key, task.default_prompt),
        icon=":material/undo:", disabled=text.strip() == task.default_prompt,
    )  # fmt: skip
    return text.strip() or task.default_prompt


def _paraphrase(key: str, chooser: str) -> None:
    if chosen := st.session_state[chooser]:
        st.session_state[key] = chosen


def _reset(key: str, prompt: str) -> None:
    st.session_state[key] = prompt


def _what_changed(run: RunFolder, clip: Clip, default: Answered, after: dict, changes: dict[str, PromptChange]) -> None:
    st.subheader("What changed against the default prompt", anchor=False)
    theme, figures, parts = state.theme(), {}, []
    names, rows = [], []
    for task, change in changes.items():
        for stage in ("encoder", "lm"):
            found = getattr(change, stage)
            if stage == "lm" or found.largest > 0:
                names.append(f"{task.upper()} {tables.STAGES[stage].split()[0].lower()}")
                rows.append(found.difference)
        for stage in tables.STAGES:
            before, later = (tables.weights_of(a, stage) for a in (default.answers[task], after[task]))
            part = tables.change_table(stage, before, later)
            part.insert(0, "task", task)
            parts.append(part)
    for column, (task, change) in zip(st.columns(len(changes), gap="large"), changes.items(), strict=True):
        with column:
            _answer_change(task, change, after[task], figures)
    grid = np.full((len(rows), max(map(len, rows))), np.nan)
    for place, row in enumerate(rows):
        grid[place, : len(row)] = row
    names = ["LM".join(name.rsplit("language", 1)) for name in names]
    figures["Change of alpha"] = figure = weights.difference(grid, names, theme)
    st.markdown("**Change of alpha, edited minus default**")
    alt = "Change of alpha by layer; the table below has the numbers"
    chart.show(figure, "prompt-difference", alt, chart.roomy(grid.shape[1]))
    table = pd.concat(parts, ignore_index=True)
    with st.expander("Table of default and edited alpha", expanded=False):
        columns = number_columns(("default", "edited", "difference"), 5)
        st.dataframe(table, hide_index=True, height=260, column_config=columns)
    downloads("prompts", f"{run.name}-{clip.sha256[:8]}-prompt-change", table, figures)
    with st.expander("How to read this"):
        st.markdown(HOW_TO_READ)


def _answer_change(task: str, change: PromptChange, edited, figures: dict) -> None:
    st.markdown(f"**{title_of(task)}**")
    if change.probabilities is None:
        if change.text_changed:
            plain.word_changes(change.words)
        else:
            st.caption("The transcript is the same, word for word.")
    else:
        with st.container(key=f"facts-edited-{task}"):
            st.text(f"Now {edited.label} ({edited.probabilities[edited.label]:.2f})")
        figures[f"{title_of(task)} change"] = figure = classes.probability_changes(change.probabilities, state.theme())
        spoken = ", ".join(f"{label} {value:+.3f}" for label, value in change.probabilities.items())
        chart.show(figure, f"prompt-classes-{task}", f"Change of probabilities: {spoken}")
    encoder = "unchanged (the gate does not read the prompt)"
    if change.encoder.largest > 0:
        encoder = f"largest change {change.encoder.largest:.4f}"
    layer = tables.layer_names(len(change.lm.difference))[change.lm.layer]
    lm = f"largest change {change.lm.largest:.4f} (layer {layer}), "
    lm += f"Jensen-Shannon divergence {change.lm.divergence:.4f} bit"
    st.caption(f"LM alpha: {lm if change.lm.largest > 0 else 'unchanged'}. Encoder alpha: {encoder}.")
