"""Which layers did each task use: both tasks on one colour scale, encoder and LM, with the numbers behind."""

import streamlit as st

from app import exports, state, tables
from app.components import chart, standing
from app.components.columns import number_columns
from app.components.export import downloads
from app.figures import weights
from app.logged_utterance import route_of_answers
from app.services import Answered
from harmonifuse_core.data.audio import Clip
from harmonifuse_core.runs import RunFolder

VIEWS = weights.PART_TITLES | {standing.VIEW: standing.TITLE}

HOW_TO_READ = """
- **Alpha** is the weight that a task gives to each layer's state; each row sums to 1. Layer *input* is the state before
  the first block. Both maps share one colour scale, so equal colours are equal weights.
- **Effective share** is alpha times the length of that layer's state, scaled to sum 1: what the layer really brings to
  the sum. A layer with a small alpha and long states may matter more than its alpha tells.
- **Encoder** weights come from the gate: its learned part *bias* (w, the same for every recording) and, where the run
  has it, an *input score* that moves with the recording. **Language model** weights are softmax(*bias* + *score*): the
  task's own b and what the FFN reads from the states, prompt included. For text they are the mean over its tokens.
- Weights say what was mixed in, not what would be missed. A layer can be weighed high and still be replaceable.
"""


def show(answered: Answered, clip: Clip, run: RunFolder) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="distribute"):
        st.header("Which layers did each task use?", anchor=False, width="content")
        part = st.segmented_control(
            "Show", list(VIEWS), default="alpha", format_func=VIEWS.get, key="weight_part", required=True,
            label_visibility="collapsed",
        )  # fmt: skip
    if part == standing.VIEW:
        prompts = {task: answer.prompt for task, answer in answered.answers.items()}
        standing.show(run, route_of_answers(answered.answers), prompts, "live")
        return
    _maps(answered, clip, run.name, part)


def _maps(answered: Answered, clip: Clip, run_name: str, part: str) -> None:
    tasks, theme = list(answered.answers), state.theme()
    grids = {stage: tables.weights_grid(answered.answers, stage, part) for stage in tables.STAGES}
    maximum = weights.range_of(*grids.values())
    wide = max(grid.shape[1] for grid in grids.values()) > chart.NARROW
    places = [st.container(), st.container()] if wide else st.columns(2, gap="medium")
    figures = {}
    for place, (stage, grid) in zip(places, grids.items(), strict=True):
        with place:
            st.subheader(tables.STAGES[stage], anchor=False)
            figures[tables.STAGES[stage]] = figure = weights.task_layers(grid, tasks, maximum, theme, part)
            alt = weights.described(grid, tasks, tables.STAGES[stage])
            chart.show(figure, f"weights-{stage}", alt, chart.roomy(grid.shape[1]))
    table = tables.weights_table(answered.answers)
    stem = f"{run_name}-{clip.sha256[:8]}-weights"
    with st.expander("All numbers: alpha, effective share, bias, input score; class probabilities"):
        st.dataframe(table, hide_index=True, height=300, column_config=number_columns(tables.PARTS))
        chances = tables.probability_table(answered.answers)
        if len(chances):
            st.dataframe(chances, hide_index=True, column_config=number_columns(("probability",)))
            downloads("probabilities", f"{run_name}-{clip.sha256[:8]}-probabilities", chances)
    extra = {"run": run_name, "recording": clip.name, "sha256": clip.sha256, "audio_seconds": clip.seconds}
    answers = list(answered.answers.values())
    downloads("weights", stem, table, figures, lambda: exports.answers_json(answers, extra))
    with st.expander("How to read this"):
        st.markdown(HOW_TO_READ)
