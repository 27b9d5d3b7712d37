"""The silence up to the end of Whisper's 30 s window, by a few frames that count for many.

Whisper was trained on speech padded to 30 s, and its attention rests on that silence: without it the untrained decoder
runs into loops. Frames of silence differ by their position only, so every sum over them in an attention's softmax is
nearly that over V frames spread evenly, each with the logarithm of the number it stands for added to its score. With
V = 16 the untrained Whisper tiny.en writes nearly the words that it writes with the whole window, at the cost of the
speech's own length (`tests/benchmarks/test_silence_frames.py` measures it on real speech).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Silence:
    """`frames`: V, the frames that stand for the silence; `window`: the encoder's positions, 1500 in Whisper.

    In tensors of T frames they are the last V valid ones of each row, behind the speech and its tail.
    """

    frames: int
    window: int

    def positions(self, speech: Tensor, total: int) -> Tensor:
        """Position (B, total) of each frame of rows with `speech` (B,) frames before the V; padding takes the last."""
        place = torch.arange(total, device=speech.device).expand(len(speech), -1)
        behind, rest = place - speech[:, None], (self.window - speech)[:, None]
        spread = speech[:, None] + (2 * behind + 1) * rest // (2 * self.frames)
        return torch.where(behind < 0, place, spread).clamp(0, self.window - 1)

    def scores(self, mask: Tensor) -> Tensor:
        """What attention adds to its scores of each frame: (B, 1, 1, T) float; `mask` (B, T) True = valid.

        0 for speech, log((window - speech) / V) for the V frames behind it, -inf for padding.
        """
        place, count = torch.arange(mask.shape[1], device=mask.device), mask.sum(1, keepdim=True)
        speech = count - self.frames
        weight = ((self.window - speech).clamp(min=1) / self.frames).log()
        scores = torch.where(place >= speech, weight, 0.0)
        return scores.masked_fill(place >= count, -torch.inf)[:, None, None]


def silent_frame(conv1: nn.Conv1d, conv2: nn.Conv1d, floor: Tensor) -> Tensor:
    """What Whisper's two convolutions make of endless silence: (B, D) for log-mel values `floor` (B,)."""
    gelu = nn.functional.gelu
    kernel = conv1.weight.sum((1, 2))  # every bin and every step holds the same value
    inner = gelu(floor.to(kernel.dtype)[:, None] * kernel + conv1.bias)
    return gelu(nn.functional.linear(inner, conv2.weight.sum(2), conv2.bias))
