"""Can a run's numbers be trusted? Each check is one sentence on what is there, or on what is missing. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.tables import alpha_over_training, measures_of
from harmonifuse_core.bootstrap import FEW_SPEAKERS
from harmonifuse_core.config import Config

GOOD, CARE, BAD = "good", "care", "bad"
UNCALIBRATED, UNIFORM, PINNED = 0.1, 0.01, 0.95


@dataclass(frozen=True)
class Check:
    """level: good, care or bad. text: a sentence without anything from outside but numbers and names of our files."""

    level: str
    text: str


def checks(config: Config | None, metrics: Sequence[Mapping], evaluations: Mapping[str, dict]) -> list[Check]:
    return [
        *_training(config, metrics), *_evaluation(evaluations), *_seeds(config, metrics), *_alpha(config, metrics),
    ]  # fmt: skip


def last_step(metrics: Sequence[Mapping]) -> int:
    return max((int(row["step"]) for row in metrics if isinstance(row.get("step"), (int, float))), default=0)


def _training(config: Config | None, metrics: Sequence[Mapping]) -> list[Check]:
    done = last_step(metrics)
    if not done:
        return [Check(BAD, "No training log: nothing shows that these weights were trained.")]
    if config is None:
        return [Check(CARE, f"Trained for {done} steps; the config is damaged, so the plan is unknown.")]
    if done < config.training.steps:
        return [Check(CARE, f"Training stopped at step {done} of {config.training.steps}, or still runs.")]
    return [Check(GOOD, f"Trained to the last of {config.training.steps} steps.")]


def _evaluation(evaluations: Mapping[str, dict]) -> list[Check]:
    scored = [
        (name, task, scores) for name, result in evaluations.items() for task, scores in result.items()
        if isinstance(scores, dict) and measures_of(scores)
    ]  # fmt: skip
    if not scored:
        return [Check(BAD, "No saved evaluation: there is no number that could be trusted.")]
    found = [Check(GOOD, f"{len({name for name, _, _ in scored})} saved evaluations with intervals.")]
    few = [(n, s["speakers"]) for n, _, s in scored if _is_number(s.get("speakers")) and s["speakers"] < FEW_SPEAKERS]
    if few:
        least = min(few, key=lambda entry: entry[1])
        found.append(Check(CARE, (
            f"{len(few)} of {len(scored)} results rest on under {FEW_SPEAKERS} speakers (least: {int(least[1])} in "
            f"{least[0]}): their intervals are likely too narrow."
        )))  # fmt: skip
    off = [(n, s["ece"]) for n, _, s in scored if _is_number(s.get("ece")) and s["ece"] > UNCALIBRATED]
    if off:
        name, value = max(off, key=lambda entry: entry[1])
        found.append(Check(CARE, f"Probabilities are off by {value:.2f} on average in {name}: read them with care."))
    if failed := sum(len(r["failed"]) for r in evaluations.values() if isinstance(r.get("failed"), list)):
        found.append(Check(CARE, f"{failed} recordings could not be answered and are not in the scores."))
    return found


def _seeds(config: Config | None, metrics: Sequence[Mapping]) -> list[Check]:
    if config is None or not metrics:
        return []
    return [Check(CARE, f"One seed ({config.training.seed}): how far another seed would differ is not known here.")]


def _alpha(config: Config | None, metrics: Sequence[Mapping]) -> list[Check]:
    """The failure signatures that the log can show: weights that are uniform, or all on one layer."""
    found = []
    for task in config.model.tasks if config else ():
        name = task.name.upper()
        for stage, title in (("encoder", "encoder"), ("lm", "language model")):
            _, alpha = alpha_over_training(metrics, task.name, stage)
            if not len(alpha):
                continue
            last, even = alpha[-1], 1 / alpha.shape[1]
            if abs(last - even).max() < UNIFORM:
                found.append(
                    Check(
                        CARE,
                        f"{name}: {title} weights are nearly uniform; the fusion may not have learned.",
                    )
                )
            elif last.max() > PINNED:
                found.append(Check(CARE, f"{name}: {title} weights sit almost wholly on layer {int(last.argmax())}."))
    return found


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
