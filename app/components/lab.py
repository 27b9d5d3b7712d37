"""The prompt lab: every prompt under every task's id, live on one recording, and the batch crossing over a corpus."""

import pandas as pd
import streamlit as st

from app import services, state
from app.components import chart, finding, plain, recording
from app.components.columns import number_columns
from app.components.export import downloads
from app.figures import weights
from app.findings import Finding, estimates, only, values
from app.prompt_lab import MOST_TYPED, Asked, asked, change_grid, crossing_table, lines
from harmonifuse_core.data.audio import Clip
from harmonifuse_core.runs import RunError, RunFolder

KEPT = "lab-table"  # session key: what was asked last, and its table
LIVE_HOW = """
- The task's id (its bias b, its gate row and its head) stays; only the prompt's words change. So these rows tell what
  the *words* decide beside the id.
- **lm_jsd**: Jensen-Shannon divergence, base 2, of the LM's weights under this prompt from those under the own prompt:
  0 the same, 1 no layer in common. The encoder's gate stands before the prompt and cannot see it: **encoder_jsd** is 0.
- *Word left out*: the own prompt without one word each. The word whose loss moves alpha most is what alpha heeds.
- One recording is an example. Whether a prompt decides anything is a question for the batch crossing.
"""
BATCH_HOW = """
- **JSD of alpha**: below 0.001 bits nothing moves that a reader could see. *Same text*: with the transcript held fixed,
  so that only the prompt differs.
- **Answers changed** beside what paraphrases change: paraphrases ask for the same, so what they turn are near ties.
- A model that listens should mind another task's prompt, nonsense and no prompt. Where these change nothing, the task's
  id tells the model already what to do.
"""
MEASURES = {
    "same_text_jsd": "JSD of alpha, same text (bits)", "lm_jsd": "JSD of alpha, own answers (bits)",
    "changed": "share of answers that change", "change": "change of WER or UA", "invalid": "share of broken answers",
}  # fmt: skip


def live(run: RunFolder) -> None:
    left, right = st.columns([0.36, 0.64], gap="large")
    with left:
        clip = recording.choose()
        text = st.text_area(
            f"Prompts of your own, one a line (at most {MOST_TYPED})", key="lab-typed", max_chars=2000, height=90
        )
        leave_out = st.toggle("Leave out each word of the own prompt", key="lab-words")
    with right:
        try:
            with st.spinner("Loading the model (once for all visitors)"):
                model = services.loaded(run).model
            questions = asked(model.config, model.tokenizer, lines(text), leave_out)
        except (RunError, ValueError) as error:
            plain.problem("lab", "This run cannot answer.", str(error))
            return
        if clip is None:
            plain.empty(
                "No recording yet",
                "Upload, record or pick a sample on the left: every prompt is then asked under every task's id, and "
                "you see what it did to the weights and to the answer.",
            )
            return
        table = _asked(run, clip, questions)
    if table is not None:
        _results(run, clip, table)


def _asked(run: RunFolder, clip: Clip, questions: list[Asked]) -> pd.DataFrame | None:
    """The table of this recording and these prompts: kept from before, or asked for now, with progress."""
    key = (run.name, clip.sha256, tuple(questions))
    kept = st.session_state.get(KEPT)
    if kept and kept[0] == key:
        return kept[1]
    seconds = f"{clip.seconds:.1f} s of audio"
    if not st.button(f"Ask all {len(questions)} prompts", key="lab-ask", type="primary", icon=":material/forum:"):
        st.caption(f"Each prompt is one pass over {seconds}. What was asked before is remembered.")
        return None
    bar, answers = st.progress(0.0, text=f"0 of {len(questions)} prompts"), {}
    for done, question in enumerate(questions, 1):
        try:
            found = services.answer(run, clip, ((question.task, question.prompt),)).answers
        except (RunError, ValueError) as error:
            plain.problem("lab-answer", "A prompt could not be asked.", question.prompt, str(error))
            return None
        answers[question] = found[question.task]
        bar.progress(done / len(questions), text=f"{done} of {len(questions)} prompts")
    bar.empty()
    st.session_state[KEPT] = (key, crossing_table(answers))
    return st.session_state[KEPT][1]


def _results(run: RunFolder, clip: Clip, table: pd.DataFrame) -> None:
    figures: dict = {}
    for task in values(table, "task"):
        rows = only(table, task=task)
        others = rows[rows["number"] > 0]
        drawn = estimates(others, "lm_jsd", lambda row: f"{row['number']}. {row['kind']}: {row['prompt'] or '(none)'}",
                          lambda row: row["kind"])  # fmt: skip
        title = f"{task.upper()}: how far each prompt moves the LM's weights"
        finding.forest_section(f"lab-jsd-{task}", title, drawn, "JSD from the own prompt, bits", figures, signed=False,
                               digits=4)  # fmt: skip
        names = [f"{row.number}. {row.kind}" for row in rows.itertuples()]
        grid = change_grid(rows)
        title = f"{task.upper()}: change of LM alpha by layer"
        st.markdown(f"**{title}**")
        figures[title] = figure = weights.difference(grid, names, state.theme())
        chart.show(figure, f"lab-alpha-{task}", f"{title}; the table has the numbers", chart.roomy(grid.shape[1]))
        changed = int(others["changed"].sum())
        st.caption(f"{changed} of {len(others)} prompts change the answer of {task.upper()}.")
    st.subheader("Every prompt and its answer", anchor=False)
    digits = [c for c in table.columns if c.startswith("alpha ") or c in ("probability", "lm_jsd", "encoder_jsd")]
    st.dataframe(table, hide_index=True, height=420, column_config=number_columns(digits))
    downloads("lab", f"{run.name}-{clip.sha256[:8]}-prompt-lab", table, figures)
    finding.how_to_read(LIVE_HOW)


def batch(found: Finding, stem: str) -> None:
    """The crossing over a corpus: verdicts, one measure at a time with intervals, embeddings."""
    finding.verdicts("prompts", found.verdicts)
    finding.basis("prompts", found)
    table, figures = found.frame("crossing"), {}
    there = [name for name in MEASURES if name in table and table[name].notna().any()]
    with st.container(horizontal=True, gap="medium"):
        task = finding.picked("Task", values(table, "task"), "batch-task", state.link().task, str.upper)
        measure = finding.picked("Show", there, "batch-measure", shown=MEASURES.get)
    state.set_link(task=task)
    rows = only(table, task=task)
    drawn = estimates(rows[rows["kind"] != "own"], measure, lambda row: f"{row['kind']}: {row['prompt'] or '(none)'}",
                      lambda row: row["kind"]) if measure else []  # fmt: skip
    signed = measure == "change"
    finding.forest_section("crossing", "What each prompt does against the own one", drawn, MEASURES.get(measure, ""),
                           figures, signed=signed, digits=4 if measure and measure.endswith("jsd") else 3)  # fmt: skip
    finding.table("crossing", f"{stem}-prompt-crossing", table, found.definition("crossing"), figures)
    embeddings = found.frame("prompt_embeddings")
    if len(embeddings):
        st.subheader("Do prompt embeddings predict alpha?", anchor=False)
        finding.table("embeddings", f"{stem}-prompt-embeddings", embeddings, found.definition("prompt_embeddings"))
    finding.how_to_read(BATCH_HOW)
