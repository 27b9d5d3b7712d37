"""When was each token of a transcript spoken? Token times from the Whisper decoder's cross-attention.

The method is that of OpenAI Whisper's word timestamps (openai/whisper, `whisper/timing.py`, `find_alignment`): the
attention from the positions that predict the tokens to the frames of speech, of all heads of the later half of the
layers (the choice made there where no heads are named), standardised over the positions, median-filtered over time and
averaged over heads; dynamic time warping then finds the monotonic path of most attention. Here the prompt's positions
are left out. Times are where the model looked, on a grid of 20 ms; they are not a forced alignment by a phone model.

An LM without cross-attention (`prefix`) gives no such path: its tokens are spread evenly, and the result says so.
Shapes: `U` tokens, `T` frames (50 a second), `H` heads, `L1` states.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from harmonifuse_core.data.audio import SAMPLE_RATE
from harmonifuse_core.data.batching import pad_waveforms
from harmonifuse_core.data.segmentation import segment
from harmonifuse_core.model.beam_search import beam_search
from harmonifuse_core.model.decoding import greedy
from harmonifuse_core.model.harmonifuse import HarmoniFuse

FRAMES_PER_SECOND = 50
FILTER = 7  # frames, as in openai/whisper
ATTENTION, SPREAD = "cross-attention", "spread evenly"


@dataclass(frozen=True)
class Alignment:
    """tokens: U text pieces. seconds: (U, 2) start and end, in order, without overlap. alpha: (U, L1) LM weights.
    logprobs: (U,). source: `cross-attention`, or `spread evenly` where the LM has none."""

    task: str
    tokens: tuple[str, ...]
    seconds: np.ndarray
    alpha: np.ndarray
    logprobs: np.ndarray
    source: str


@torch.inference_mode()
def align(model: HarmoniFuse, waveform: np.ndarray, task: str, prompt: str = "") -> Alignment:
    """Transcribe (S,) at 16 kHz under `prompt` (the task's own when empty) and time every token.

    Long audio is cut as `predict` cuts it, and the pieces' times follow each other. Raises ValueError for a task that
    writes no text.
    """
    spec = model.config.task(task)
    if not spec.is_transcription:
        raise ValueError(f"task {task!r} writes no text, so it has no tokens to time: choose a transcription task")
    model.eval()
    parts = [
        _align_piece(model, waveform[start:stop], task, prompt or spec.default_prompt, start / SAMPLE_RATE)
        for start, stop in segment(waveform, max_seconds=model.config.max_seconds)
    ]
    layers = model.lm.layers + 1
    return Alignment(
        task,
        tuple(t for p in parts for t in p.tokens),
        np.concatenate([p.seconds for p in parts] or [np.zeros((0, 2))]),
        np.concatenate([p.alpha for p in parts] or [np.zeros((0, layers), np.float32)]),
        np.concatenate([p.logprobs for p in parts] or [np.zeros(0, np.float32)]),
        parts[0].source if parts else SPREAD,
    )


def _align_piece(model: HarmoniFuse, waveform: np.ndarray, task: str, prompt: str, offset: float) -> Alignment:
    batch, lengths = pad_waveforms([waveform])
    states = model.encode(batch.to(model.device), lengths.to(model.device))
    fused = model.fuse_encoder(states, task)
    beams = model.config.beams
    search = greedy if beams == 1 else partial(beam_search, beams=beams)
    written = search(model, states, fused, task, prompt)[0]
    count, length = len(written.tokens), len(waveform) / SAMPLE_RATE
    frames = min(states.mask.shape[1], max(1, int(np.ceil(length * FRAMES_PER_SECOND))))
    prompt_ids = model.tokenizer.prompt_ids(prompt)
    attention = model.lm.cross_attention(fused.states, prompt_ids + written.tokens, frames) if count else None
    if attention is None:
        edges = np.linspace(0, length, count + 1)
    else:
        starts = token_frames(attention[:, :, len(prompt_ids) - 1 :])
        edges = np.append(starts, frames)[: count + 1] / FRAMES_PER_SECOND
    edges = offset + np.minimum(edges, length)
    pieces = tuple(model.tokenizer.piece(t) for t in written.tokens)
    seconds = np.stack([edges[:-1], edges[1:]], 1)
    source = SPREAD if attention is None and count else ATTENTION
    return Alignment(task, pieces, seconds, written.alpha[:count], written.logprobs, source)


def token_frames(attention: Tensor) -> np.ndarray:
    """Frame (N,) at which each of N positions begins, from attention (layers, H, N, T); never falling, the first is 0.

    N: the positions that predict the U tokens, and the one that predicts the end.
    """
    later = attention[attention.shape[0] // 2 :].flatten(0, 1).float()  # (heads, N, T)
    deviation = later.std(1, keepdim=True, correction=0)
    standard = (later - later.mean(1, keepdim=True)) / deviation.clamp(min=1e-8)
    matrix = median_filter(standard).mean(0)
    rows, columns = warp(-matrix.double().cpu().numpy())
    begins = np.flatnonzero(np.diff(rows, prepend=-1))
    return columns[begins]


def median_filter(values: Tensor, width: int = FILTER) -> Tensor:
    """Median over `width` neighbours along the last dimension, mirrored at its ends; short rows stay as they are."""
    half = width // 2
    if values.shape[-1] <= half:
        return values
    return torch.nn.functional.pad(values, (half, half), mode="reflect").unfold(-1, width, 1).median(-1).values


def warp(cost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cheapest monotonic path through (N, T) from corner to corner: its rows and columns (dynamic time warping).

    Steps go one row down, one column right, or both. Every row and every column is visited. Computed along
    anti-diagonals, so that numpy does the work.
    """
    n, t = cost.shape
    total = np.full((n + 1, t + 1), np.inf)
    total[0, 0] = 0.0
    step = np.zeros((n + 1, t + 1), np.int8)  # 0: both, 1: down, 2: right
    for diagonal in range(2, n + t + 1):
        i = np.arange(max(1, diagonal - t), min(n, diagonal - 1) + 1)
        j = diagonal - i
        ways = np.stack([total[i - 1, j - 1], total[i - 1, j], total[i, j - 1]])
        chosen = ways.argmin(0)
        step[i, j] = chosen
        total[i, j] = cost[i - 1, j - 1] + ways[chosen, np.arange(len(i))]
    step[1:, 0], step[0, 1:] = 1, 2
    path, i, j = [], n, t
    while i > 0 and j > 0:
        path.append((i - 1, j - 1))
        i, j = i - (step[i, j] != 2), j - (step[i, j] != 1)
    rows, columns = np.array(path[::-1]).T
    return rows, columns
