"""When did the weights move: LM alpha of every token on the waveform's own time axis. Worked out on demand."""

import numpy as np
import pandas as pd
import streamlit as st

from app import services, state, tables
from app.components import chart, plain
from app.components.columns import number_columns
from app.components.export import downloads
from app.figures import weights
from app.figures.utterance import timeline_width, token_timeline
from harmonifuse_core.analysis.alignment import ATTENTION, Alignment
from harmonifuse_core.data.audio import Clip
from harmonifuse_core.runs import RunError, RunFolder

HOW_TO_READ = """
- Each column is a token, from its start to its end under the waveform; colours are the weight of each LM layer.
- **Times** come from the decoder's cross-attention: the frames that it looked at while it wrote the token, joined to a
  monotonic path by dynamic time warping, as OpenAI Whisper makes its word timestamps (heads of the later half of the
  layers). They say where the model looked; they are no forced alignment, and are worse where the transcript is wrong.
- Where the language model has no cross-attention, tokens are *spread evenly*, and the caption says so.
"""


def show(run: RunFolder, clip: Clip, task: str) -> None:
    """A switch; behind it the tokens of one transcription task over time."""
    if not st.toggle("Align the tokens with the sound", key=f"align-{task}-{clip.sha256[:12]}"):
        return
    try:
        with st.spinner("Timing the tokens"):
            found = services.aligned(run, clip, task)
    except (RunError, ValueError) as error:
        plain.problem(f"align-{task}", "The tokens could not be timed.", str(error))
        return
    if not found.tokens:
        st.caption("There is no token to time: the transcript is empty.")
        return
    if found.source == ATTENTION:
        st.caption("Token times: cross-attention of the decoder, by dynamic time warping. Colours as above.")
    else:
        st.caption("Token times are **not measured**: this language model has no cross-attention; spread evenly.")
    picture, maximum = services.picture(clip), weights.range_of(found.alpha)
    figure = token_timeline(
        picture.low, picture.high, clip.seconds, found.seconds, found.alpha, found.tokens, maximum, state.theme()
    )
    width = timeline_width(len(found.tokens), clip.seconds)
    alt = "Waveform, and language model alpha of each token from its start to its end; the table has the numbers"
    chart.show(figure, f"timeline-{task}", alt, width)
    table = times_table(found)
    with st.expander("Table of token times"):
        st.dataframe(
            table, hide_index=True, height=300, column_config=number_columns(("start", "end", "probability"), 2)
        )
    downloads(f"timeline-{task}", f"{run.name}-{clip.sha256[:8]}-token-times", table, {"Tokens over time": figure})
    with st.expander("How to read this"):
        st.markdown(HOW_TO_READ)


def times_table(found: Alignment) -> pd.DataFrame:
    """A row a token: text, start and end in seconds, where the times come from, probability, alpha of every layer."""
    table = pd.DataFrame({"token": list(found.tokens), "start": found.seconds[:, 0], "end": found.seconds[:, 1]})
    table["times from"], table["probability"] = found.source, np.exp(found.logprobs)
    for layer, name in enumerate(tables.layer_names(found.alpha.shape[1])):
        table[f"alpha {name}"] = found.alpha[:, layer]
    return table
