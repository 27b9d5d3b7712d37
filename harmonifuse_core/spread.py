"""Let layer weights follow the input more, or less: `python -m harmonifuse_core.spread --run R --output NEW ...`.

alpha = softmax(b + k * FFN(h)): each input part is multiplied by k, and b is moved so that the logits keep their mean
over the utterances of --routing (files that `evaluate --save` wrote into the run; every file counts alike). k = 0 makes
alpha the same for every utterance. A training that starts from the result (`train --init`) decides what of the spread
serves; without one, its answers differ from the run's by whatever the layers are worth.
Exit code: 0, 1 where nothing was written.
"""

import argparse
import math
import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from harmonifuse_core.model.harmonifuse import HarmoniFuse
from harmonifuse_core.routing import read_routing, weight_matrix
from harmonifuse_core.runs import RunError, RunFolder, load, refuse_existing, save_derived


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m harmonifuse_core.spread", description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True, help="run folder whose other weights the result keeps")
    parser.add_argument("--output", required=True, help="new run folder")
    parser.add_argument(
        "--routing", required=True, nargs="+", metavar="NAME", help="saved evaluations of --run: where means are kept"
    )  # fmt: skip
    parser.add_argument(
        "--encoder", action="append", type=_gain, default=[], metavar="TASK=K", help="factor of a task's encoder gate"
    )  # fmt: skip
    parser.add_argument("--lm", type=_factor, default=1.0, metavar="K", help="factor of the LM's FFN, of all tasks")
    return parser


def _factor(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: a factor is 0 (the mean for every input) or above")
    return value


def _gain(text: str) -> tuple[str, float]:
    task, separator, value = text.rpartition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text!r}: write TASK=K, as in asr=4")
    return task, _factor(value)


def mean_scores(run: RunFolder, names: Sequence[str]) -> dict[tuple[str, str], Tensor]:
    """{(task, stage): (L1,) mean input part}: the mean over files of their utterances' mean. Raises RoutingError."""
    found: dict[tuple[str, str], list[Tensor]] = {}
    for name in names:
        frame = read_routing(run.part("routing", f"{name}.parquet"), columns=("task", "stage", "score"))
        for key, rows in frame.groupby(["task", "stage"]):
            found.setdefault(key, []).append(torch.from_numpy(weight_matrix(rows, "score").mean(0)))
    return {key: torch.stack(means).mean(0) for key, means in found.items()}


def _mean(means: dict[tuple[str, str], Tensor], task: str, stage: str, logits: Tensor) -> Tensor:
    if (task, stage) not in means:
        had = ", ".join(sorted({f"{t} ({s})" for t, s in means}))
        raise RunError(f"no utterance of task {task!r} in the routing, which has {had}: evaluate and name one more")
    if means[task, stage].shape != logits.shape[1:]:
        sizes = f"{len(means[task, stage])} layers, the model {logits.shape[1]}"
        raise RunError(f"the routing has {sizes} ({stage}): evaluate this run again")
    return means[task, stage].to(logits)


@torch.no_grad()
def spread(model: HarmoniFuse, means: dict[tuple[str, str], Tensor], encoder: dict[str, float], lm: float) -> None:
    """Multiply input parts of `model` in place; `means` as `mean_scores` gives them, of all tasks where lm is not 1.

    Raises RunError where the model has no such part, before anything is changed.
    """
    gate, fusion = model.gate, model.fusion
    if encoder and (gate.ffn is None or gate.config.mode != "per_task"):
        raise RunError("the encoder gate has no input part for each task: gate.input_score true, gate.mode per_task")
    if lm != 1 and not (fusion.use_bias and fusion.use_ffn):
        raise RunError(f"lm.fusion is {fusion.config.fusion!r}: only 'adaptive' has a bias and an input part")
    for task in encoder:
        if task not in gate.tasks:
            raise RunError(f"task {task!r} is not one of {', '.join(gate.tasks)}")
    gates = [
        (gate.tasks.index(task), factor, _mean(means, task, "encoder", gate.logits)) for task, factor in encoder.items()
    ]
    biases = [_mean(means, task, "lm", fusion.task_bias) for task in fusion.tasks] if lm != 1 else []
    for row, factor, mean in gates:
        gate.ffn[-1].weight[row] *= factor
        gate.ffn[-1].bias[row] *= factor
        gate.logits[row] -= (factor - 1) * mean
    for row, mean in enumerate(biases):
        fusion.task_bias[row] -= (lm - 1) * mean
    fusion.ffn[-1].weight *= lm
    fusion.ffn[-1].bias *= lm


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        run, output = RunFolder(options.run), RunFolder(options.output)
        refuse_existing(output)
        encoder = dict(options.encoder)
        if not encoder and options.lm == 1:
            raise RunError("nothing to spread: give --encoder TASK=K or --lm K")
        model = load(run)
        spread(model, mean_scores(run, options.routing), encoder, options.lm)
        config = run.config()
        made = {"seed": config.training.seed, "spread_of": run.name, "encoder": encoder, "lm": options.lm}
        save_derived(model, run, output, config, made | {"routing": options.routing})
    except (ValueError, OSError) as error:
        print(f"spread: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
