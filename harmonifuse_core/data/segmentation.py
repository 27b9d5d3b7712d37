"""Long recordings into pieces that an encoder takes, cut where nobody speaks."""

import numpy as np

from harmonifuse_core.data.limits import SAMPLE_RATE

SHORTEST = SAMPLE_RATE  # a piece under about a second has no context to be recognised by


def segment(
    waveform: np.ndarray,
    *,
    max_seconds: float = 28.0,
    min_silence_seconds: float = 0.2,
    search_seconds: float = 8.0,
) -> list[tuple[int, int]]:
    """Sample offsets (start, stop) that cover the waveform in order, without gap or overlap.

    waveform: (S,) at 16 kHz. Every piece is at most `max_seconds` long. Each cut lies in the quietest stretch of
    `min_silence_seconds` (lowest mean energy) within the last `search_seconds` before the limit; where that would leave
    less than about 1 s at the end, the last two pieces are cut near their middle instead. An empty waveform gives [].
    Raises ValueError for a waveform that is not one-dimensional or for lengths that make no sense.
    """
    waveform = np.asarray(waveform)
    if waveform.ndim != 1:
        raise ValueError(f"waveform has shape {waveform.shape}: give one channel, (S,)")
    if not max_seconds * SAMPLE_RATE >= 2 or not min_silence_seconds > 0 or not search_seconds >= 0:
        values = f"{max_seconds:g}, {min_silence_seconds:g}, {search_seconds:g}"
        raise ValueError(f"max_seconds, min_silence_seconds, search_seconds = {values}: all must be positive")
    total = len(waveform)
    longest = int(min(max_seconds * SAMPLE_RATE, max(total, 2)))
    window = max(1, round(min_silence_seconds * SAMPLE_RATE))
    search = round(min(search_seconds, max_seconds) * SAMPLE_RATE)
    shortest = min(SHORTEST, longest // 2)
    pieces = []
    start = 0
    while total - start > longest:
        limit = start + longest
        cut = _quietest(waveform, max(start + shortest, limit - search), limit, window)
        if total - cut < shortest:
            middle = (start + total) // 2
            low = max(start + shortest, total - longest, middle - search // 2)
            cut = _quietest(waveform, low, min(limit, total - shortest, middle + search // 2), window)
        pieces.append((start, cut))
        start = cut
    if total:
        pieces.append((start, total))
    return pieces


def _quietest(waveform: np.ndarray, low: int, high: int, window: int) -> int:
    """The sample in low..high round which `window` samples hold the least energy; of equal places the middle of the
    last stretch, so that a pause is cut in its middle and pieces stay long."""
    before = window // 2
    first, last = max(0, low - before), min(len(waveform), high - before + window)
    part = waveform[first:last].astype(np.float64)
    part -= part.mean()  # a constant offset is not sound
    energy = np.concatenate([[0.0], np.cumsum(part * part)])
    places = np.arange(low, high + 1)
    starts = np.clip(places - before - first, 0, len(part))
    stops = np.clip(places - before + window - first, 0, len(part))
    mean = (energy[stops] - energy[starts]) / np.maximum(stops - starts, 1)
    equal = np.flatnonzero(mean <= mean.min() + 1e-11 * energy[-1] / window)  # as far as rounding goes
    breaks = np.flatnonzero(np.diff(equal) > 1)
    stretch = equal[breaks[-1] + 1 if len(breaks) else 0 :]
    return int(places[stretch[len(stretch) // 2]])
