"""Recordings: decoding what comes from outside, pictures of the sound, bundled samples."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import streamlit as st

from app.figures.sound import MOST_COLUMNS, pooled_columns
from app.services.models import RESULT_SECONDS, RESULTS_KEPT
from harmonifuse_core.data.audio import Clip, load_audio
from harmonifuse_core.data.display import envelope, mel_spectrogram

SAMPLES = Path(__file__).resolve().parents[1] / "samples"


@dataclass(frozen=True)
class Picture:
    """low, high (P,): envelope; mel (M, at most 1200) in dB."""

    low: np.ndarray
    high: np.ndarray
    mel: np.ndarray


def decode(data: bytes, name: str) -> Clip:
    """A file from outside. Not cached: it belongs to the session that brought it. Raises AudioError."""
    return load_audio(data, name=name)


def picture(clip: Clip) -> Picture:
    return _picture(clip.sha256, clip.waveform)


@st.cache_resource(max_entries=RESULTS_KEPT, ttl=RESULT_SECONDS, show_spinner=False)
def _picture(digest: str, _waveform: np.ndarray) -> Picture:
    low, high = envelope(_waveform, MOST_COLUMNS)
    return Picture(low, high, pooled_columns(mel_spectrogram(_waveform), MOST_COLUMNS))


def samples() -> list[Path]:
    """The bundled clips, by name."""
    return sorted(SAMPLES.glob("*.wav"))
