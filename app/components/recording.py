"""Bring a recording: upload a file, record one, or take a bundled sample."""

import io
import wave
from collections.abc import Callable

import streamlit as st

from app import services, state
from app.components.plain import notes, problem
from harmonifuse_core.data.audio import AudioError, Clip

TYPES = ["wav", "flac", "ogg", "oga", "opus", "mp3", "m4a", "mp4", "aac", "webm"]
UPLOAD, MICROPHONE = "upload", "microphone"


def choose(several: Callable[[], None] | None = None) -> Clip | None:
    """The widgets, the player and what is known of the file; returns this session's recording.

    several: draws what brings several files at once; without it there is no such tab.
    """
    upload, record, *many = st.tabs(["Upload", "Record", *(["Several files"] if several else [])])
    with upload:
        st.file_uploader(
            "Recording (up to 25 MB and 10 minutes)", TYPES, key=UPLOAD, on_change=_take_widget, args=(UPLOAD,)
        )
    with record:
        st.audio_input("Speak, then stop", key=MICROPHONE, on_change=_take_widget, args=(MICROPHONE,))
    if several is not None:
        with many[0]:
            several()
    sample_buttons("input")
    if message := st.session_state.get(state.RECORDING_PROBLEM):
        problem("recording", "This recording cannot be used. Choose another one.", message)
    clip = state.recording()
    if clip is not None:
        _player(clip)
    return clip


def sample_buttons(place: str) -> None:
    """One button a bundled clip."""
    st.caption("Or try a bundled sample (synthetic voices)")
    with st.container(horizontal=True, gap="small", key=f"samples-{place}"):
        for path in services.samples():
            label = path.stem.split("-")[0].capitalize()
            st.button(
                label,
                key=f"sample-{place}-{path.stem}",
                on_click=_take,
                args=(path.name,),
                icon=":material/play_arrow:",
            )


def _take(name: str) -> None:
    path = next(p for p in services.samples() if p.name == name)
    _decode(path.read_bytes(), path.name)


def _take_widget(key: str) -> None:
    file = st.session_state.get(key)
    if file is None:  # taken away again
        state.choose_recording(None)
        return
    _decode(file.getvalue(), "microphone.wav" if key == MICROPHONE else file.name)


def _decode(data: bytes, name: str) -> None:
    try:
        state.choose_recording(services.decode(data, name))
    except AudioError as error:
        state.choose_recording(None, problem=str(error))


def _player(clip: Clip) -> None:
    st.audio(wav_bytes(clip), format="audio/wav", alt="The recording as the model hears it: mono, 16 kHz")
    with st.container(key="facts-recording"):
        rate = f"{clip.source_rate / 1000:g} kHz"
        channels = "mono" if clip.source_channels == 1 else f"{clip.source_channels} channels"
        st.text(f"{clip.name}\n{clip.seconds:.1f} s, {rate}, {channels}")
    notes("recording", clip.warnings)


def wav_bytes(clip: Clip) -> bytes:
    """The decoded audio, 16 bit: what the model hears, in a form that every browser plays."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(services.SAMPLE_RATE)
        file.writeframes((clip.waveform.clip(-1, 1) * 32767).astype("<i2").tobytes())
    return buffer.getvalue()
