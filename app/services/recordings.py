"""Recordings: decoding what comes from outside, pictures of the sound, bundled samples, audio of logged utterances."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import streamlit as st

from app.figures.sound import MOST_COLUMNS, pooled_columns
from app.services.folders import REPOSITORY
from app.services.models import RESULT_SECONDS, RESULTS_KEPT
from harmonifuse_core.config import Config
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


def logged_audio(config: Config | None, name: str | None) -> Path | None:
    """The file of a logged utterance, where one of the run's manifests has it beside itself on this machine.

    name: as logged, relative to its manifest; one that leads out of the manifest's folder is refused.
    """
    if config is None or not name or Path(name).is_absolute():
        return None
    folders = {(REPOSITORY / c.manifest).resolve().parent for c in (*config.data.train, *config.data.dev)}
    for folder in sorted(folders):
        path = (folder / name).resolve()
        if path.is_relative_to(folder) and path.is_file():
            return path
    return None
