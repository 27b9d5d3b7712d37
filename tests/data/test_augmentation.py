"""Augmentation: the same for the same generator, finite, within full scale, and as strong as asked."""

import numpy as np
import pytest
from factories import tone

from harmonifuse_core.config import AugmentConfig
from harmonifuse_core.data.audio import SAMPLE_RATE
from harmonifuse_core.data.augmentation import (
    add_babble,
    add_noise,
    augment,
    coloured_noise,
    limit_band,
    mixed,
    reverberate,
    trim_silence,
)

EVERYTHING = AugmentConfig(
    speed=(0.9, 1.1), noise_probability=1, noise_snr_db=(5, 30), gain_db=6, room_probability=1, band_probability=1
)
CLIP = tone(1.0)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_the_same_generator_gives_the_same_clip_and_another_one_another():
    a, b, c = (augment(CLIP, EVERYTHING, rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(a, b) and not np.array_equal(a[: len(c)], c[: len(a)])


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("clip", [CLIP, np.zeros(8000, np.float32), tone(0.3) * 8, CLIP[:401]], ids=len)
def test_results_are_finite_float32_within_full_scale(seed, clip):
    before = clip.copy()
    out = augment(clip, EVERYTHING, rng(seed))
    assert out.dtype == np.float32 and np.isfinite(out).all() and np.abs(out).max() <= 1
    assert np.array_equal(clip, before) and not np.shares_memory(out, clip)


@pytest.mark.parametrize("seed", range(8))
def test_length_is_kept_without_time_warp_and_follows_the_speed_with_it(seed):
    assert len(augment(CLIP, EVERYTHING, rng(seed), time_warp=False)) == len(CLIP)
    warped = len(augment(CLIP, EVERYTHING, rng(seed)))
    assert min(abs(warped - len(CLIP) / factor) for factor in (0.9, 1.1)) <= 2


def test_speed_moves_the_pitch_too():
    fast = augment(CLIP, AugmentConfig(speed=(1.1,)), rng())

    def pitch(clip):
        return np.abs(np.fft.rfft(clip, 1 << 17)).argmax() * 16_000 / (1 << 17)

    assert pitch(fast) == pytest.approx(1.1 * pitch(CLIP), rel=0.01)


def test_nothing_asked_changes_nothing():
    out = augment(CLIP, AugmentConfig(), rng())
    assert np.array_equal(out, CLIP)


@pytest.mark.parametrize("snr", [0.0, 5.0, 15.0, 30.0])
@pytest.mark.parametrize("seed", range(4))
def test_noise_has_the_asked_signal_to_noise_ratio(snr, seed):
    noise = add_noise(CLIP, rng(seed), (snr, snr)) - CLIP
    measured = 10 * np.log10(np.mean(CLIP**2) / np.mean(noise**2))
    assert measured == pytest.approx(snr, abs=1.0)


def test_the_ratio_is_drawn_from_its_whole_range():
    ratios = []
    for seed in range(60):
        noise = add_noise(CLIP, rng(seed), (5.0, 30.0)) - CLIP
        ratios.append(10 * np.log10(np.mean(CLIP**2) / np.mean(noise**2)))
    assert min(ratios) < 9 and max(ratios) > 26 and min(ratios) > 4 and max(ratios) < 31


def test_the_colour_of_noise_is_the_slope_of_its_spectrum():
    def slope(exponent):
        power = np.abs(np.fft.rfft(coloured_noise(1 << 16, exponent, rng()))) ** 2
        bins = np.arange(100, len(power))
        return np.polyfit(np.log10(bins), np.log10(power[100:]), 1)[0]

    assert [round(slope(e), 1) for e in (0.0, 1.0, 2.0)] == pytest.approx([0, -1, -2], abs=0.11)


def test_gain_stays_within_its_bounds():
    quiet = CLIP * 0.1
    gains = [20 * np.log10(np.std(augment(quiet, AugmentConfig(gain_db=6), rng(s))) / np.std(quiet)) for s in range(40)]
    assert -6.01 <= min(gains) < -3 and 3 < max(gains) <= 6.01


def test_a_room_adds_a_tail_and_keeps_the_level():
    click = np.zeros(16_000, np.float32)
    click[4000:4100] = 0.5
    wet = reverberate(click, rng())
    assert np.abs(wet[:3999]).max() < 1e-6 < np.abs(wet[4200:6000]).max()
    assert np.std(wet) == pytest.approx(np.std(click), rel=0.05)


def test_a_telephone_band_lets_the_middle_through():
    time = np.arange(16_000) / 16_000
    passed = {
        hz: np.std(limit_band(np.sin(2 * np.pi * hz * time).astype(np.float32), rng())[2000:-2000]) / np.sqrt(0.5)
        for hz in (10, 1000, 7500)
    }
    assert passed[1000] > 0.98 and passed[7500] < 0.05 and passed[10] < 0.4


def test_probabilities_are_respected():
    config = AugmentConfig(noise_probability=0.3)
    changed = sum(not np.array_equal(augment(CLIP[:1000], config, rng(s)), CLIP[:1000]) for s in range(300))
    assert 60 < changed < 120


def test_trimming_cuts_silence_and_nothing_of_the_speech():
    speech = tone(1.0, 200, 1)
    silence = np.zeros(SAMPLE_RATE, np.float32)
    clip = np.concatenate([silence, speech, silence])
    for seed in range(5):
        trimmed = trim_silence(clip, np.random.default_rng(seed))
        assert len(speech) <= len(trimmed) <= len(speech) + 0.62 * SAMPLE_RATE
        start = np.flatnonzero(trimmed)[0] - np.flatnonzero(speech)[0]
        np.testing.assert_array_equal(trimmed[start : start + len(speech)], speech)
    np.testing.assert_array_equal(trim_silence(speech[:100], np.random.default_rng(0)), speech[:100])


def test_a_mixture_is_the_weighted_sum_as_long_as_the_longer():
    one, other = np.ones(3, np.float32), np.full(5, 2.0, np.float32)
    np.testing.assert_allclose(mixed(one, other, 0.25), [1.75, 1.75, 1.75, 1.5, 1.5])
    np.testing.assert_array_equal(mixed(one, other, 1.0)[:3], one)


VOICES = [tone(0.4) * level for level in (0.01, 0.1, 1.0)]


@pytest.mark.parametrize("snr", [0.0, 12.0])
def test_babble_lies_at_the_asked_ratio_however_loud_the_voices_are(snr):
    added = add_babble(CLIP, rng(), (snr, snr), VOICES) - CLIP
    assert 20 * np.log10(CLIP.std() / added.std()) == pytest.approx(snr, abs=0.1)


def test_babble_needs_voices_and_is_as_frequent_as_asked():
    config = AugmentConfig(babble_probability=0.3)
    assert np.array_equal(augment(CLIP, config, rng(), voices=()), CLIP)
    changed = sum(
        not np.array_equal(augment(CLIP[:1000], config, rng(s), voices=VOICES), CLIP[:1000]) for s in range(300)
    )
    assert 60 < changed < 120


def test_silent_voices_add_nothing_and_stay_finite():
    out = add_babble(CLIP, rng(), (0, 0), [np.zeros(100, np.float32)])
    assert np.allclose(out, CLIP, atol=1e-6)


def test_without_babble_the_other_draws_are_as_they_were_before_there_was_any():
    assert np.array_equal(augment(CLIP, EVERYTHING, rng(3)), augment(CLIP, EVERYTHING, rng(3), voices=VOICES))
