"""What a config needs: parameters and shapes from the built model, memory and time by arithmetic.

    footprint_of(model, config).lines()

Memory and time are estimates from the shapes, to the factor of two or so; `measure_step` times a real step.
"""

import resource
import sys
import time
from dataclasses import dataclass

import torch
from torch import nn

from harmonifuse_core.config import Config
from harmonifuse_core.data.audio import SAMPLE_RATE
from harmonifuse_core.data.batching import TaskBatch
from harmonifuse_core.model.harmonifuse import HarmoniFuse
from harmonifuse_core.tasks import CLASSIFICATION
from harmonifuse_core.training.optimization import parameter_groups

FLOAT = 4  # bytes; weights, gradients and AdamW's two moments are float32
BLOCK_VALUES = (
    20  # values that a transformer block keeps for its backward pass, by position and width (no attention map)
)
WORDS_A_SECOND, TOKENS_A_WORD = 2.5, 6.0  # of read English in bytes; fewer with a vocabulary of word pieces
GIGABYTE = 1e9


@dataclass(frozen=True)
class Footprint:
    """parameters, trainable: {part: count}; shapes: {name: words}; memory: {name: bytes}; flops: of one step."""

    parameters: dict[str, int]
    trainable: dict[str, int]
    shapes: dict[str, str]
    memory: dict[str, float]
    flops: dict[str, float]
    steps: int

    @property
    def bytes(self) -> float:
        return sum(self.memory.values())

    def hours(self, rate: float) -> float:
        """Of the whole training at `rate` floating-point operations a second."""
        return self.steps * sum(self.flops.values()) / rate / 3600

    def lines(self, rate: float, device: str) -> list[str]:
        """For a reader; `rate` in operations a second is what `device` is taken to sustain."""
        found = [f"{'part':<10}{'parameters':>14}{'learning':>14}"]
        found += [f"{part:<10}{count:>14,}{self.trainable[part]:>14,}" for part, count in self.parameters.items()]
        found.append(f"{'all':<10}{sum(self.parameters.values()):>14,}{sum(self.trainable.values()):>14,}")
        found += ["", "shapes"] + [f"  {name}: {words}" for name, words in self.shapes.items()]
        found += ["", "memory of a training step, by arithmetic (float32)"]
        found += [f"  {name}: {size / GIGABYTE:.2f} GB" for name, size in self.memory.items()]
        found.append(f"  together: {self.bytes / GIGABYTE:.1f} GB")
        found += ["", "floating-point operations of a step, by arithmetic"]
        found += [f"  {name}: {count / 1e12:.2f} T" for name, count in self.flops.items()]
        seconds = sum(self.flops.values()) / rate
        found.append(
            f"  {seconds:.2f} s a step, {self.hours(rate):.0f} h for {self.steps} steps at {rate:.3g}/s ({device})"
        )
        return found


def count(module: nn.Module, learning: bool = False) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not learning)


def footprint_of(model: HarmoniFuse, config: Config) -> Footprint:
    """The model may be on the meta device: only its shapes are read."""
    parts = {"encoder": model.encoder, "gate": model.gate, "lm": model.lm, "fusion": model.fusion, "heads": model.heads}
    parameters = {name: count(part) for name, part in parts.items()}
    trainable = {name: count(part, learning=True) for name, part in parts.items()}
    trained = [c.task for c in config.data.train] or [t.name for t in config.model.tasks]
    tasks = [task for task in config.model.tasks if task.name in trained]
    seconds = config.training.max_batch_seconds / config.training.accumulation
    frames = round(50 * seconds)
    subsample = config.model.lm.subsample if config.model.lm.kind == "prefix" else 1
    text = round(seconds * WORDS_A_SECOND * TOKENS_A_WORD)
    positions = (frames // subsample if config.model.lm.kind == "prefix" else 0) + text
    states, width = model.encoder.layers + 1, model.encoder.width
    rows = sum(p.numel() for g in parameter_groups(model, config.training) for p in g["params"])
    frozen = trainable["encoder"] == 0
    learnt_layers = 0 if frozen else model.encoder.layers - max(model.encoder.trainable_from, 0)
    lm_width, lm_states, vocabulary = model.lm.width, model.lm.layers + 1, model.lm.hf_config.vocab_size
    memory = {
        "weights": FLOAT * sum(parameters.values()),
        "gradients and AdamW": 3 * FLOAT * rows,
        "moving average": FLOAT * rows * bool(config.training.average_decay),
        # each state, and its normalised copy that the gate keeps for its gradient
        "encoder states": 2.0 * FLOAT * len(tasks) * states * frames * width,
        "encoder's own": FLOAT * frames * width * (BLOCK_VALUES * learnt_layers * len(tasks) or BLOCK_VALUES)
        + _front_end(model, seconds),
        "language model": FLOAT * len(tasks) * positions * lm_width * (BLOCK_VALUES * model.lm.layers + 2 * lm_states)
        + FLOAT * 3.0 * text * vocabulary,
    }  # fmt: skip
    backward = 1 if frozen or config.data.state_cache else 3
    times = 0 if config.data.state_cache else len(tasks)
    flops = {
        "encoder": 2.0 * parameters["encoder"] * frames * backward * times,
        "gate": 3.0 * 10 * states * frames * width * len(tasks),
        "language model": 6.0 * parameters["lm"] * positions * len(tasks),
    }
    shapes = {
        "encoder states": f"{states} x (B, T, {width}), T = 50 a second; {frames} frames ({seconds:g} s) a task",
        "encoder gate w": f"{tuple(model.gate.logits.shape)}",
        "LM states": f"{lm_states} x (B, N, {lm_width}), {subsample} frame(s) a position",
        "task bias b": f"{tuple(model.fusion.task_bias.shape)}",
        "vocabulary": f"{vocabulary}",
    }
    return Footprint(parameters, trainable, shapes, memory, flops, config.training.steps)


def _front_end(model: HarmoniFuse, seconds: float) -> float:
    """Two copies of the first convolution's output, which is the largest thing that a waveform encoder makes."""
    if not (strides := getattr(model.encoder.hf_config, "conv_stride", None)):
        return 0.0
    return 2.0 * FLOAT * seconds * SAMPLE_RATE / strides[0] * model.encoder.hf_config.conv_dim[0]


@dataclass(frozen=True)
class MeasuredStep:
    """seconds, cpu_seconds (all threads): of one optimiser step on `speech_seconds` of noise a task; peak: bytes of the
    whole process."""

    seconds: float
    cpu_seconds: float
    speech_seconds: float
    peak: float


def noise_batch(model: HarmoniFuse, task, clips: int, seconds: float) -> TaskBatch:
    """Noise in place of speech: a step costs the same."""
    samples = round(seconds * SAMPLE_RATE)
    waveforms, lengths = torch.randn(clips, samples) * 0.1, torch.full((clips,), samples)
    prompts = [task.default_prompt] * clips
    if task.kind == CLASSIFICATION:
        allowed = torch.ones(clips, len(task.labels), dtype=torch.bool)
        return TaskBatch(waveforms, lengths, prompts, labels=torch.zeros(clips, dtype=torch.long), allowed=allowed)
    text = "and so they went on " * max(1, round(seconds * WORDS_A_SECOND / 5))
    if task.is_transcription:
        return TaskBatch(waveforms, lengths, prompts, token_ids=[model.tokenizer.encode(text)] * clips)
    return TaskBatch(waveforms, lengths, prompts, units=[[i % len(task.labels) for i in range(len(text))]] * clips)


def measure_step(model: HarmoniFuse, config: Config, clips: int = 2, seconds: float = 8.0) -> MeasuredStep:
    """One real step of all tasks: forward, backward, AdamW, on `clips` clips of `seconds` a task."""
    batches = {task.name: noise_batch(model, task, clips, seconds).to(model.device) for task in config.model.tasks}
    optimizer = torch.optim.AdamW(parameter_groups(model, config.training))
    model.train()
    started, started_cpu = time.perf_counter(), time.process_time()
    sum(result.loss for result in model(batches).values()).backward()
    nn.utils.clip_grad_norm_(model.parameters(), config.training.clip_norm)
    optimizer.step()
    spent, spent_cpu = time.perf_counter() - started, time.process_time() - started_cpu
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    if model.device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(model.device)
    return MeasuredStep(spent, spent_cpu, clips * seconds, float(peak))
