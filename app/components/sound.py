"""Waveform and mel spectrogram of the recording."""

import streamlit as st

from app import services, state, tables
from app.components import chart
from app.components.export import downloads
from app.figures.sound import waveform_and_mel
from harmonifuse_core.data.audio import Clip


def show(clip: Clip, run_name: str) -> None:
    st.header("The sound", anchor=False)
    picture = services.picture(clip)
    figure = waveform_and_mel(picture.low, picture.high, picture.mel, clip.seconds, state.theme())
    chart.show(figure, "sound", f"Waveform and mel spectrogram of {clip.seconds:.1f} seconds")
    table = tables.mel_table(picture.mel, clip.seconds)
    downloads("sound", f"{run_name}-{clip.sha256[:8]}-mel-spectrogram", table, {"The sound": figure})
