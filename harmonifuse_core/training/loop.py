"""The training loop: batch-interleaved tasks, one loss each, one optimiser step for all.

    python -m harmonifuse_core.train --config CONFIG.yaml --run runs/NAME [training.steps=500 ...] [--resume]

    accelerate launch --num_processes 4 -m harmonifuse_core.train --config CONFIG.yaml --run runs/NAME

One readable loop. What a step sees depends on (seed, step) alone, dropout included, so a run that is killed and resumed
ends with the same weights as one that was not. Several processes give the loss and the gradients of one (`shares.py`).
"""

import json
import logging
import math
import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import nn
from tqdm import tqdm

from harmonifuse_core.config import Config
from harmonifuse_core.data.batching import InterleavedBatches
from harmonifuse_core.inference.state_cache import attach_state_cache
from harmonifuse_core.model.harmonifuse import HarmoniFuse, TaskResult
from harmonifuse_core.model.weights import load_shards
from harmonifuse_core.runs import RunFolder, save_model, write_text
from harmonifuse_core.training.best import JOINT, Best
from harmonifuse_core.training.checkpoints import list_checkpoints, load_checkpoint, save_checkpoint
from harmonifuse_core.training.development import dev_scores
from harmonifuse_core.training.gradients import TaskGradients
from harmonifuse_core.training.optimization import (
    average_of,
    averaged,
    freeze_others,
    parameter_groups,
    set_rates,
    update_average,
)
from harmonifuse_core.training.processes import Processes
from harmonifuse_core.training.resuming import check_resumable
from harmonifuse_core.training.shares import Counts, Share, merged_entries, shares_of, speech_seconds
from harmonifuse_core.training.teacher import TeacherFolder, state_loss, token_loss

logger = logging.getLogger("harmonifuse.training")


class TrainingError(RuntimeError):
    """Training cannot go on; the message says at which step and why."""


class Trainer:
    """Holds what a training run needs; `run()` does it. `resume` continues from the newest checkpoint."""

    def __init__(
        self, config: Config, model: HarmoniFuse, run: RunFolder, device: str = "cpu", resume: bool = False,
        processes: Processes | None = None, on_row: Callable[[dict], None] | None = None,
    ):  # fmt: skip
        self.config, self.settings, self.run_folder = config, config.training, run
        self.processes, self.on_row = processes or Processes(device=torch.device(device)), on_row
        self.model = model.to(self.processes.device)
        if config.data.state_cache and model.encoder.cache is None:
            attach_state_cache(model, config.data.state_cache, config.data.state_cache_gigabytes)
        self.teacher = TeacherFolder(config.data.teacher) if config.data.teacher else None
        transcripts = self.teacher.transcripts if self.teacher else {}
        self.batches = InterleavedBatches(config.data, self.settings, config.model.tasks, model.tokenizer, transcripts)
        freeze_others(model, self.settings.only)
        self.optimizer = torch.optim.AdamW(parameter_groups(model, self.settings), betas=(0.9, 0.98), eps=1e-8)
        self.average = average_of(model) if self.settings.average_decay else None
        self.step = 0
        found = list_checkpoints(run.checkpoints)
        if found and not resume:
            raise TrainingError(
                f"{run.path} holds checkpoints up to step {found[-1][0]}: add --resume, or choose another --run"
            )
        if run.has_model() and not found:
            raise TrainingError(f"{run.path} holds a trained model but no checkpoint to resume: choose another --run")
        if found:
            if run.config_file.is_file():
                check_resumable(run.config(), config, found[-1][0])
            self.step = load_checkpoint(found[-1][1], model, self.optimizer, self.average)["step"]
            logger.info("resumed from step %d", self.step)
        self.processes.agree(model)
        self._forget_metrics_after(self.step)

    def _forget_metrics_after(self, step: int):
        """Rows of steps that will be done again would stand twice."""
        rows = [row for row in self.run_folder.metrics() if row.get("step", 0) <= step]
        self.seconds = rows[-1].get("seconds", 0.0) if rows else 0.0  # that earlier processes trained
        self.best = Best(self.config.model.tasks, [row["dev"] for row in rows if "dev" in row])
        self.processes.wait()  # all have read
        if self.processes.is_main:
            write_text(self.run_folder.metrics_file, "".join(json.dumps(row) + "\n" for row in rows))

    def run(self) -> HarmoniFuse:
        """Train to the last step; the model carries the averaged weights afterwards if averaging is on."""
        settings, started, main = self.settings, time.perf_counter() - self.seconds, self.processes.is_main
        for task, counts in self.batches.counts.items():
            logger.info("%s learns from %s", task, ", ".join(f"{name} ({n})" for name, n in counts.items()))
        steps = range(self.step, self.step if self._impatient() else settings.steps)
        with self.run_folder.metrics_file.open("a") if main else nullcontext() as metrics:
            for step in tqdm(steps, initial=self.step, total=settings.steps, unit="step", disable=not main):
                row = self._step(step)
                if self.average is not None:
                    update_average(self.average, self.model, settings.average_decay, step)
                done = step + 1
                if (
                    settings.eval_every
                    and (done % settings.eval_every == 0 or done == settings.steps)
                    and self.config.data.dev
                ):
                    row["dev"] = self._dev()
                stop = "dev" in row and self._impatient()
                if done % settings.log_every == 0 or {"dev", "gradients"} & set(row) or done == settings.steps:
                    row["seconds"] = round(time.perf_counter() - started, 1)
                    if main:
                        self._log(row, metrics)
                if main and (done % settings.checkpoint_every == 0 or done == settings.steps or stop):
                    save_checkpoint(
                        self.run_folder.checkpoints,
                        done,
                        self.model,
                        self.optimizer,
                        self.average,
                        settings.keep_checkpoints,
                        {},
                    )
                if stop:
                    logger.info(
                        "no better joint dev score %d times in a row: stopped at step %d", self.best.stale, done
                    )
                    break
        averaged(self.model, self.average).__enter__()
        self.processes.wait()
        if settings.export == "best" and self.best.scores:
            load_shards(self.model, self.run_folder.best(JOINT).model)
        return self.model

    def _impatient(self) -> bool:
        return 0 < self.settings.patience <= self.best.stale

    def _dev(self) -> dict[str, float]:
        """Scores on the dev corpora; the model is kept where one is the best so far."""
        with averaged(self.model, self.average):
            scores = dev_scores(self.model, self.config, self.processes)
            for name in self.best.update(scores):
                if self.settings.keep_best and self.processes.is_main:
                    save_model(self.model, self.run_folder.best(name), self.config)
        return scores

    def _log(self, row: dict, metrics):
        metrics.write(json.dumps(row) + "\n")
        metrics.flush()
        logger.info(summary(row))
        if self.on_row is not None:
            self.on_row(row)

    def _step(self, step: int) -> dict:
        """One optimiser step; returns its log row."""
        every, processes = self.settings.gradients_every, self.processes
        # dropout and masks: a function of (seed, step), and other ones in every process
        torch.manual_seed(self.settings.seed * 1_000_003 + step + 1_000_000_007 * processes.index)
        self.model.train()
        set_rates(self.optimizer, step, self.settings)
        self.optimizer.zero_grad(set_to_none=True)
        parts = shares_of(step, self.batches, self.model, self.teacher, processes, self.settings.accumulation)
        row = {"step": step + 1, "lr": self.optimizer.param_groups[-1]["lr"], "tasks": {}}
        compared = TaskGradients(self.model) if every and (step + 1) % every == 0 else None
        entries = []
        for part in parts:
            losses, logged = self._forward(part)
            entries.append(logged)
            total = sum(losses.values(), start=0.0)
            if not math.isfinite(value := float(total.detach())):
                raise TrainingError(
                    f"the loss is {value} at step {step + 1}: lower the rates or raise training.warmup_steps"
                )
            for task, loss in losses.items() if compared else ():
                compared.add(task, loss)
            if total.requires_grad:  # a task that `training.only` leaves nothing to learn has no gradient
                total.backward()
        row["tasks"] = merged_entries(parts, entries, processes)
        if compared:
            for gradients in compared.gradients.values():
                processes.share_tensors(gradients)
            row["gradients"] = compared.report()
        processes.share_gradients([p for p in self.model.parameters() if p.requires_grad])
        row["gradient_norm"] = float(nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm))
        self.optimizer.step()
        return row

    def _forward(self, part: list[Share]) -> tuple[dict[str, torch.Tensor], list[dict]]:
        """Each task's loss, all its terms weighted, and its log entry."""
        device, losses, entries = self.model.device, {}, []
        narrow = self.settings.precision == "bfloat16" or self.settings.precision == "auto" and device.type == "cuda"
        with torch.autocast(device.type, torch.bfloat16, enabled=narrow):
            results = []
            for share in part:
                with self.processes.muting(share.muted):
                    answer = self.model({share.task: share.batch.to(device)}, self.config.data.augment)
                results.append(answer[share.task])
            for share, result in zip(part, results, strict=True):
                task, weights = share.task, share.weights or Counts()
                entry = {
                    "loss": weights.items * float(result.loss.detach()),
                    "items": result.count,
                    "seconds": round(speech_seconds(share), 1),
                }
                total = (self.config.model.task(task).loss_weight * weights.items) * result.loss
                total = total + self._teacher_losses(result, share, weights, entry)
                if self.settings.entropy_weight:
                    total = total + self.settings.entropy_weight * closedness(result, weights)
                losses[task] = total
                entries.append(entry | alpha_of(result, self.model, task))
        return losses, entries

    def _teacher_losses(self, result: TaskResult, share: Share, weights: Counts, entry: dict):
        """Distillation terms of the utterances whose corpus has a teacher."""
        taught = [i for i, e in enumerate(share.examples) if e.corpus.teacher]
        if share.weights is not None and self.teacher is not None:
            entry |= {"teacher_state": 0.0, "teacher_tokens": 0.0}  # what all parts have
        if not taught or self.teacher is None:
            return 0.0
        targets = [self.teacher.target(share.examples[i].utterance.id) for i in taught]
        total = 0.0
        if self.settings.state_weight:
            loss = state_loss(result.states.states[-1][taught], result.states.mask[taught], targets)
            entry["teacher_state"] = weights.taught_frames * float(loss.detach())
            total = total + (self.settings.state_weight * weights.taught_frames) * loss
        if self.settings.token_weight and result.token_logits is not None:
            mine = torch.isin(result.token_rows, torch.tensor(taught, device=result.token_rows.device))
            loss = token_loss(result.token_logits[mine], result.token_rows[mine], targets)
            entry["teacher_tokens"] = weights.taught_tokens * float(loss.detach())
            total = total + (self.settings.token_weight * weights.taught_tokens) * loss
        return total


def own_tokens(result: TaskResult) -> torch.Tensor:
    """(B, N) True = a position that answers: each utterance's own tokens, or the one position of a classification."""
    positions = torch.arange(result.lm.alpha.shape[1], device=result.lm.alpha.device)
    if result.token_rows is None:
        return (positions < 1).expand(len(result.lm.alpha), -1)
    return positions < torch.bincount(result.token_rows, minlength=len(result.lm.alpha))[:, None]


def closedness(result: TaskResult, weights: Counts = Counts()) -> torch.Tensor:
    """KL(alpha || uniform) in nats, mean over utterances (encoder) plus mean over answering positions (LM)."""
    total = 0.0
    stages = ((result.encoder.alpha, weights.utterances), (result.lm.alpha[own_tokens(result)], weights.answers))
    for alpha, weight in stages:  # (B, L1), (M, L1)
        total = total + weight * (alpha * (alpha.clamp(min=1e-8) * alpha.shape[-1]).log()).sum(-1).mean()
    return total


def alpha_of(result: TaskResult, model: HarmoniFuse, task: str) -> dict:
    """Mean weights of a batch and the parameters behind them, for metrics.jsonl."""
    with torch.no_grad():
        own = own_tokens(result)
        lm = (result.lm.alpha * own[..., None]).sum(1) / own.sum(1, keepdim=True)  # (B, L1), mean over own tokens
        spread = {"encoder_alpha_std": result.encoder.alpha.std(0), "lm_alpha_std": lm.std(0)} if len(lm) > 1 else {}
        values = {
            "encoder_alpha": result.encoder.alpha.mean(0), "lm_alpha": lm.mean(0),
            "encoder_logits": model.gate.weights(task)[1],
            "task_bias": model.fusion.task_bias[model.fusion.tasks.index(task)], **spread,
        }  # fmt: skip
        return {name: [round(float(v), 5) for v in value] for name, value in values.items()}


def summary(row: dict) -> str:
    """One line of the text log."""
    parts = [f"step {row['step']}", f"|g| {row['gradient_norm']:.2f}"]
    parts += [f"{task} {entry['loss']:.3f}" for task, entry in row["tasks"].items()]
    if dev := row.get("dev"):
        parts.append("dev " + ", ".join(f"{k} {v:.4f}" for k, v in dev.items()))
    return "  ".join(parts)
