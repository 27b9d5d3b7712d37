import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from harmonifuse_core.data.display import envelope, mel_spectrogram

RATE = 16_000
ROOT = Path(__file__).resolve().parents[2]


def test_mel_has_one_frame_a_hop_and_peaks_where_the_tone_is():
    seconds = np.arange(RATE) / RATE
    low, high = (mel_spectrogram(np.sin(2 * np.pi * hz * seconds).astype("f4")) for hz in (200, 4000))
    assert low.shape == (80, 1 + RATE // 160) and low.dtype == np.float32
    assert low.max() == pytest.approx(0, abs=1e-4) and low.min() >= -80
    assert low.mean(axis=1).argmax() < 15 < 50 < high.mean(axis=1).argmax()


def test_a_click_shows_at_its_time():
    waveform = np.zeros(RATE, "f4")
    waveform[8000] = 1
    assert mel_spectrogram(waveform).mean(axis=0).argmax() == pytest.approx(50, abs=1)


@pytest.mark.parametrize("length", [0, 1, 159, 160, 399])
@pytest.mark.parametrize("n_mels", [1, 80, 128])
def test_tiny_clips_draw_without_a_warning(length, n_mels):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mel = mel_spectrogram(np.full(length, 0.1, "f4"), n_mels)
    assert mel.shape == (n_mels, 1 + length // 160) and np.isfinite(mel).all()


@pytest.mark.parametrize(("seconds", "n_mels"), [(0.01, 80), (1.3, 80), (45.0, 80), (1.3, 128)])
def test_the_spectrogram_is_librosas(seconds, n_mels):
    librosa = pytest.importorskip("librosa")
    waveform = np.random.default_rng(0).normal(0, 0.1, int(seconds * RATE)).astype("f4")
    waveform *= np.linspace(0, 1, len(waveform), dtype="f4")
    power = librosa.feature.melspectrogram(
        y=np.pad(waveform, 512), sr=RATE, n_fft=1024, hop_length=160, win_length=400, center=False, n_mels=n_mels
    )
    wanted = librosa.power_to_db(power, ref=np.max, amin=1e-30, top_db=80)
    assert mel_spectrogram(waveform, n_mels) == pytest.approx(wanted, abs=1e-3)


def test_a_server_that_draws_does_not_load_numba():
    code = (
        "import sys, numpy as np; from harmonifuse_core.data.display import mel_spectrogram as m; m(np.ones(9, 'f4'))"
    )
    code += "; assert not {'numba', 'librosa.feature'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_silence_is_the_floor():
    assert (mel_spectrogram(np.zeros(RATE, "f4")) == -80).all()


@pytest.mark.parametrize("length", [1, 7, 999, 1000, 1001, 50_003])
def test_the_envelope_keeps_every_peak(length):
    waveform = np.random.default_rng(length).standard_normal(length).astype("f4")
    low, high = envelope(waveform)
    assert low.shape == high.shape == (min(1000, length),) and low.dtype == np.float32
    assert low.min() == waveform.min() and high.max() == waveform.max()
    assert (low <= high).all()


def test_the_envelope_of_known_samples():
    low, high = envelope(np.array([1, -2, 3, 0, 5, -6], "f4"), points=3)
    assert low.tolist() == [-2, 0, -6] and high.tolist() == [1, 3, 5]
    assert envelope(np.zeros(0, "f4"))[0].shape == (0,)


def test_senseless_arguments_are_refused():
    with pytest.raises(ValueError, match="points is 0"):
        envelope(np.zeros(3, "f4"), points=0)
    with pytest.raises(ValueError, match="n_mels is 0"):
        mel_spectrogram(np.zeros(3, "f4"), 0)
    with pytest.raises(ValueError, match="one channel"):
        envelope(np.zeros((2, 3), "f4"))
