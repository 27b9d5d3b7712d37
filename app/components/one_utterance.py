"""One logged utterance: its sound, its answers against the references, its weights, damage and attribution."""

import shlex

import pandas as pd
import streamlit as st

from app import logged_utterance, services, state, tables
from app.components import chart, knockout, plain, standing
from app.components.answer import title_of
from app.components.closed import closed_table
from app.components.columns import number_columns
from app.components.export import downloads
from app.components.recording import wav_bytes
from app.components.weights import VIEWS
from app.figures import weights
from app.figures.utterance import attribution_timeline
from app.logged_utterance import OverTime
from harmonifuse_core.data.audio import Clip
from harmonifuse_core.runs import RunError, RunFolder
from harmonifuse_core.word_alignment import align_words

MISSING_AUDIO = (
    "The recording is **not on this machine**, or lies outside the data folders. What was logged is shown; the sound, "
    "live knock-outs and live attribution are not available. Name the folder that holds the manifest's audio when you "
    "start the dashboard:"
)


def sound(clip: Clip | None) -> None:
    """The player, or what is missing and what to do."""
    if clip is None:
        plain.empty("No recording", MISSING_AUDIO, "HARMONIFUSE_DATA=/folder/of/the/manifest streamlit run app/main.py")
        return
    st.audio(wav_bytes(clip), format="audio/wav", alt="The recording as the model hears it: mono, 16 kHz")


def answers(rows: pd.DataFrame) -> None:
    """Each task's answer against its reference."""
    for row in rows[rows["stage"] == "encoder"].drop_duplicates("task").itertuples():
        name = str(row.task)
        st.subheader(title_of(name) if name.isidentifier() else "Task", anchor=False)
        prediction, reference = (getattr(row, column, None) for column in ("prediction", "reference"))
        probability = getattr(row, "probability", None)
        if pd.notna(getattr(row, "errors", None)) or " " in str(prediction):
            _transcript(str(prediction), reference)
        else:
            sure = f" ({probability:.2f})" if pd.notna(probability) else ""
            _class(name, f"{prediction}{sure}", None if not isinstance(reference, str) else (prediction, reference))


def _transcript(prediction: str, reference) -> None:
    if not isinstance(reference, str):
        with st.container(key="transcript-logged"):
            st.text(prediction or "(no words recognised)")
        st.caption("No reference is logged.")
        return
    steps = align_words(reference, prediction)
    plain.aligned_words(steps, state.theme())
    kinds = [step.kind for step in steps]
    counts = tuple(kinds.count(kind) for kind in ("substitute", "delete", "insert"))
    words = sum(bool(step.reference) for step in steps)
    st.caption(
        f"≠ {counts[0]} substituted (reference struck out) · − {counts[1]} deleted · + {counts[2]} inserted · "
        f"{words} reference words. Compared after normalisation, as WER is."
    )
    with st.expander("As written"), st.container(key="plain-as-written"):
        st.text(f"Heard: {prediction}\nReference: {reference}")


def _class(task: str, said: str, pair: tuple[str, str] | None) -> None:
    with st.container(key=f"facts-logged-{task}", horizontal=True, vertical_alignment="center", gap="small"):
        if pair is not None:
            right = pair[0] == pair[1]
            icon = ":material/check:" if right else ":material/close:"
            st.badge("right" if right else "wrong", icon=icon, color="green" if right else "red")
        reference = f"reference: {pair[1]}" if pair is not None else "no reference is logged"
        st.text(f"{said} · {reference}", width="stretch")


def layer_weights(run: RunFolder, rows: pd.DataFrame, identifier: str) -> None:
    """Both fusions of every task on one scale."""
    st.header("Which layers did each task use?", anchor=False)
    part = st.segmented_control(
        "Show", list(VIEWS), default="alpha", required=True, format_func=VIEWS.get, key="logged_part"
    )
    if part == standing.VIEW:
        prompts = rows.drop_duplicates("task").set_index("task")["prompt"].to_dict() if "prompt" in rows else {}
        standing.show(run, logged_utterance.route_of(rows), prompts, "logged")
        return
    part = part if part in rows.columns else "alpha"
    grids = {stage: logged_utterance.grid(rows, stage, part) for stage in tables.STAGES}
    maximum, figures = weights.range_of(*(grid for _, grid in grids.values() if len(grid))), {}
    for column, (stage, (tasks, grid)) in zip(st.columns(2, gap="medium"), grids.items(), strict=True):
        if len(grid):
            with column:
                title = tables.STAGES[stage]
                st.markdown(f"**{title}**")
                figures[title] = figure = weights.task_layers(grid, tasks, maximum, state.theme(), part)
                width = chart.roomy(grid.shape[1])
                chart.show(figure, f"logged-{stage}", weights.described(grid, tasks, title), width)
    table = logged_utterance.weights_table(rows)
    closed_table("Table of weights", "logged", table, column_config=number_columns(tables.PARTS))
    downloads("logged", f"{run.name}-{identifier}", table, figures)


def command(run: RunFolder, analysis: str) -> str:
    path = shlex.quote(f"runs/{run.name}")
    return f"python -m harmonifuse_core.analyse --run {path} --manifest M.jsonl --only {analysis}"


def damage(run: RunFolder, clip: Clip | None, identifier: str) -> None:
    """Knock-out damage from the saved analysis, or live where there is a recording."""
    st.header("Which layers would be missed?", anchor=False)
    saved = logged_utterance.saved_damage(services.saved_rows(run, "faithfulness", identifier))
    if len(saved):
        st.caption("From the saved analysis *faithfulness*: rise of the loss of the reference, in nats.")
        knockout.heatmaps(saved, f"{run.name}-{identifier}-damage", sorted(saved["task"].unique()))
    elif clip is None:
        plain.empty(
            "No knock-out is saved of this utterance", "Measure it over its corpus with:", command(run, "faithfulness")
        )
    else:
        st.caption("No analysis has saved it. It can be worked out now, against the model's own answer:")
        try:
            knockout.each(run, clip)
        except (RunError, ValueError) as error:
            plain.problem("knockout", "The layers could not be removed.", str(error))


def attribution(run: RunFolder, clip: Clip | None, rows: pd.DataFrame, identifier: str) -> None:
    """What each stretch of the speech brings to an answer: saved, or live at the press of a switch."""
    st.header("Which moments carry the answer?", anchor=False)
    tasks = [str(task) for task in dict.fromkeys(rows["task"]) if str(task).isidentifier()]
    if not tasks:
        st.caption("No task of this utterance has a name that can be shown.")
        return
    task = st.segmented_control("Task", tasks, default=tasks[0], required=True, key="attribution_task")
    found = logged_utterance.saved_attribution(services.saved_rows(run, "attribution", identifier), task)
    if found is None and clip is not None:
        if not st.toggle("Work it out now, window by window", key=f"attribute-{task}-{clip.sha256[:12]}"):
            return
        try:
            with st.spinner("Removing one stretch after the other"):
                live = services.attributed(run, clip, task)
        except (RunError, ValueError) as error:
            plain.problem("attribution", "This recording cannot be explained.", str(error))
            return
        found = OverTime(live.seconds, live.scores, live.label, live.method)
    if found is None:
        plain.empty(
            "No attribution is saved of this utterance",
            "Work it out over its corpus with:",
            command(run, "attribution"),
        )
        return
    _over_time(run, clip, found, task, identifier)


def _over_time(run: RunFolder, clip: Clip | None, found: OverTime, task: str, identifier: str) -> None:
    picture = services.picture(clip) if clip is not None else None
    low, high = (picture.low, picture.high) if picture is not None else ([], [])
    seconds = clip.seconds if clip is not None else float(found.spans.max())
    figure = attribution_timeline(low, high, seconds, found.spans, found.scores, state.theme())
    with st.container(key="facts-attribution"):
        st.text(f"Explained answer: {found.answer}")
    chart.show(figure, "attribution", "Score of each stretch of time; the table has the numbers")
    st.caption(
        f"Method: {found.method.replace('_', ' ')}. Up: the stretch supports the answer; down: it speaks against it "
        "(class: logit; text: mean log probability of its tokens)."
    )
    table = pd.DataFrame({"start": found.spans[:, 0], "end": found.spans[:, 1], "score": found.scores})
    with st.expander("Table of scores"):
        st.dataframe(table, hide_index=True, height=260, column_config=number_columns(("score",)))
    downloads("attribution", f"{run.name}-{identifier}-{task}-attribution", table, {"Attribution over time": figure})
