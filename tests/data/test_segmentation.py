import numpy as np
import pytest

from harmonifuse_core.data.audio import segment
from harmonifuse_core.data.segmentation import SHORTEST

RATE = 16_000


def speechlike(seconds: float, seed: int) -> np.ndarray:
    """Noise in bursts of random loudness, some of it exactly silent."""
    rng = np.random.default_rng(seed)
    steps = rng.choice([0.0, 0.001, 0.05, 0.2, 0.4], size=int(seconds * 5) + 1)
    return (np.repeat(steps, RATE // 5)[: int(seconds * RATE)] * rng.standard_normal(int(seconds * RATE))).astype("f4")


@pytest.mark.parametrize("seed", range(25))
def test_pieces_cover_the_waveform_in_order_and_are_never_too_long_or_too_short(seed):
    rng = np.random.default_rng(seed)
    longest = float(rng.uniform(2.5, 12))
    waveform = speechlike(float(rng.uniform(0.1, 60)), seed)
    pieces = segment(
        waveform,
        max_seconds=longest,
        min_silence_seconds=float(rng.uniform(0.01, 0.5)),
        search_seconds=float(rng.uniform(0, 12)),
    )
    assert pieces[0][0] == 0 and pieces[-1][1] == len(waveform)
    assert all(stop == start for (_, stop), (start, _) in zip(pieces, pieces[1:], strict=False))
    lengths = np.array([stop - start for start, stop in pieces])
    assert lengths.max() <= longest * RATE
    assert lengths.min() >= min(len(waveform), SHORTEST)


@pytest.mark.parametrize("over", [1, 100, RATE // 2, RATE - 1, RATE, RATE + 1])
@pytest.mark.parametrize("seed", range(3))
def test_a_clip_just_over_the_limit_leaves_no_crumb(over, seed):
    waveform = speechlike(28, seed)
    waveform = np.concatenate([waveform, waveform[:over]])
    pieces = segment(waveform)
    assert len(pieces) == 2
    assert min(stop - start for start, stop in pieces) >= SHORTEST


def test_the_last_two_are_balanced_where_the_quiet_place_is_too_near_the_end():
    waveform = np.random.default_rng(0).standard_normal(int(28.4 * RATE)).astype("f4") * 0.3
    waveform[int(27.5 * RATE) : int(27.9 * RATE)] = 0  # a cut here would leave 0.7 s
    (_, cut), _ = segment(waveform)
    assert abs(cut / RATE - 14.2) <= 4


@pytest.mark.parametrize("where", [20.5, 22.0, 24.7, 27.5])
def test_the_cut_falls_into_the_middle_of_a_planted_pause(where):
    waveform = np.random.default_rng(1).standard_normal(40 * RATE).astype("f4") * 0.3
    waveform[int((where - 0.25) * RATE) : int((where + 0.25) * RATE)] *= 0
    assert segment(waveform)[0][1] / RATE == pytest.approx(where, abs=0.06)


def test_a_noisy_pause_is_found_too_and_a_short_dip_is_not_mistaken_for_it():
    waveform = np.random.default_rng(2).standard_normal(40 * RATE).astype("f4") * 0.3
    waveform[24 * RATE : int(24.3 * RATE)] *= 0.02
    waveform[27 * RATE : 27 * RATE + 400] = 0  # 25 ms of nothing inside a word
    assert 24.0 <= segment(waveform)[0][1] / RATE <= 24.3


def test_a_pause_before_the_search_range_is_not_used():
    waveform = np.random.default_rng(3).standard_normal(40 * RATE).astype("f4") * 0.3
    waveform[15 * RATE : 16 * RATE] = 0
    assert 20 <= segment(waveform)[0][1] / RATE <= 28
    assert 15 <= segment(waveform, search_seconds=14)[0][1] / RATE <= 16


def test_a_constant_offset_does_not_hide_the_pause():
    waveform = np.random.default_rng(4).standard_normal(40 * RATE).astype("f4") * 0.02
    waveform[22 * RATE : 23 * RATE] = 0
    assert segment(waveform + np.float32(0.5)) == segment(waveform)
    assert 22 <= segment(waveform)[0][1] / RATE <= 23


def test_short_and_empty_waveforms():
    assert segment(np.zeros(0, "f4")) == []
    assert segment(np.zeros(1, "f4")) == [(0, 1)]
    assert segment(np.ones(28 * RATE, "f4")) == [(0, 28 * RATE)]


def test_flat_signals_are_still_cut_into_legal_pieces():
    for waveform in (np.zeros(100 * RATE, "f4"), np.full(100 * RATE, 0.3, "f4")):
        pieces = segment(waveform)
        assert pieces[-1][1] == len(waveform)
        assert max(stop - start for start, stop in pieces) <= 28 * RATE


@pytest.mark.parametrize("wrong", [{"max_seconds": 0}, {"min_silence_seconds": 0}, {"search_seconds": -1},
                                   {"max_seconds": float("nan")}])  # fmt: skip
def test_senseless_lengths_are_refused(wrong):
    with pytest.raises(ValueError, match="must be positive"):
        segment(np.zeros(10, "f4"), **wrong)


def test_two_channels_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 100\)"):
        segment(np.zeros((2, 100), "f4"))
