"""Make the bundled clips: `python app/samples/make.py` (needs espeak-ng and this project's libraries).

Each clip is `espeak-ng -v VOICE -s WORDS_A_MINUTE -p PITCH -w FILE TEXT`, resampled from 22.05 to 16 kHz, with a
quarter of a second of faint noise round it, as a recording has. Synthetic voices act no emotion: they show how the
page works, not how well the model does.
"""

import subprocess
import tempfile
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr

RATE = 16_000
CLIPS = {
    "calm-voice.wav": (
        "en-us",
        150,
        40,
        "The birch canoe slid on the smooth planks. Glue the sheet to the dark blue background.",
    ),
    "quick-voice.wav": (
        "en-gb+f3",
        200,
        75,
        "I can hardly believe it! We won the game, and everybody came out to see us.",
    ),
    "telephone-prompt.wav": (
        "en-us+f2",
        165,
        55,
        "Thank you for calling. Please leave your name and number after the tone.",
    ),
}


def make(name: str, voice: str, speed: int, pitch: int, text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw.wav"
        subprocess.run(["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "-w", str(raw), text], check=True)
        speech, rate = sf.read(raw, dtype="float32")
    speech = soxr.resample(speech, rate, RATE)
    silence = np.zeros(RATE // 4, np.float32)
    clip = np.concatenate([silence, 0.7 * speech / np.abs(speech).max(), silence])
    clip += np.random.default_rng(0).normal(0, 5e-4, len(clip)).astype(np.float32)
    sf.write(Path(__file__).resolve().parent / name, clip, RATE, subtype="PCM_16")


if __name__ == "__main__":
    for clip_name, recipe in CLIPS.items():
        make(clip_name, *recipe)
