"""Listen: what did each task hear in this recording, and which layers did it use?"""

import streamlit as st

from app import services
from app.components import answer, frame, knockout, neighbours, plain, prompts, queue, recording, sound, tokens, weights
from app.components import timeline as token_times
from app.logged_utterance import route_of_answers
from harmonifuse_core.data.audio import Clip
from harmonifuse_core.model.harmonifuse import HarmoniFuse
from harmonifuse_core.runs import RunError, RunFolder

QUESTION = "What did each task hear in this recording, and which layers did it use?"


def page() -> None:
    run = frame.open_page("Listen", QUESTION)
    if run is None:
        return
    queue.show(run)
    left, right = st.columns([0.36, 0.64], gap="large")
    with left:
        clip = recording.choose(lambda: queue.chooser(run))
    with right:
        model = ready_model(run)
        if model is None:
            return
        if clip is None:
            waiting()
            return
    results(run, model, clip, right)


def ready_model(run: RunFolder) -> HarmoniFuse | None:
    """The run's model, warmed before the first file arrives, or None after saying why not."""
    try:
        with st.spinner("Loading the model (once for all visitors)"):
            return services.loaded(run).model
    except RunError as error:
        plain.problem("model", "This run cannot answer.", str(error))
        command = f"python -m harmonifuse_core.train --config runs/{run.name}/config.yaml --run runs/{run.name}-new"
        plain.empty("It needs trained weights", "Train it, or choose another run in the sidebar:", command)
        return None


def waiting() -> None:
    plain.empty(
        "No recording yet",
        "Upload a file, record a sentence, or press one of the samples. You will see the transcript, the emotion with "
        "its probabilities, the weight that each task gave to every layer of encoder and language model, and what "
        "changes when you ask with another prompt.",
    )


def results(run: RunFolder, model: HarmoniFuse, clip: Clip, right) -> None:
    tasks = model.config.tasks
    try:
        with right, st.spinner("Listening"):
            answered = services.answer(run, clip, tuple((task.name, task.default_prompt) for task in tasks))
    except (RunError, ValueError) as error:
        plain.problem("answer", "The model could not answer for this recording.", str(error))
        return
    with right:
        answer.show(answered)
    st.fragment(weights.show)(answered, clip, run)
    sound.show(clip, run.name)
    for task in answered.answers.values():
        tokens.show(task, run.name, clip.sha256)
        if task.tokens:
            st.fragment(token_times.show)(run, clip, task.task)
    st.fragment(knockout.show)(run, model, clip)
    st.fragment(prompts.editor)(run, clip, answered, tasks)
    st.fragment(neighbours.show)(run, route_of_answers(answered.answers), "live")


page()
