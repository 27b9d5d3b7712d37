"""Average the weights of runs: `python -m harmonifuse_core.average --run RUN --output NEW OTHER_RUN[=WEIGHT] ...`.

Runs that were trained one from the other lie in one basin; between them a model often does better on all their data
than either (Wortsman et al. 2022, robust fine-tuning). The config, metrics and log of --run are kept. The shares sum to
1: what the others leave belongs to --run. Attention heads of the speech token that another run lacks count with their
share of the output. --pretrained-share draws the mean back to the pre-trained weights that the config of --run names.
"""

import argparse
import shutil
import sys

import torch

from harmonifuse_core.config import Config
from harmonifuse_core.fields import to_dict
from harmonifuse_core.model.harmonifuse import HarmoniFuse, build_model
from harmonifuse_core.runs import RunError, RunFolder, environment, load, save_model, write_json
from harmonifuse_core.training.starting import draw_back, given_weights

HEADS_OUTPUT = "lm.speech_token.project_heads.weight"  # zero in a run that has no heads
STARTS = ("last_logit", "last_logit_tasks")  # of training: they decide no shape
ADDED = tuple(f"lm.speech_token.{part}" for part in ("attention", "standardise_heads", "project_heads"))


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m harmonifuse_core.average", description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True, help="run folder whose config and log the result keeps")
    parser.add_argument("--output", required=True, help="new run folder")
    parser.add_argument(
        "--pretrained-share", type=float, default=0.0, metavar="S",
        help="then S * the pre-trained weights + (1 - S) * the mean, for what had such a start",
    )  # fmt: skip
    parser.add_argument("others", nargs="+", metavar="RUN[=WEIGHT]", help="weight: its share, 0.5 if left out")
    return parser


def _share(text: str) -> tuple[str, float]:
    folder, separator, weight = text.rpartition("=")
    try:
        return (folder, float(weight)) if separator else (text, 0.5)
    except ValueError:
        raise RunError(f"{text!r}: {weight!r} is not a weight; write RUN=0.5") from None


@torch.no_grad()
def average_models(models: list[HarmoniFuse], shares: list[float]) -> HarmoniFuse:
    """The first model, its floating-point weights and running statistics replaced by the sum of share * value.

    Where another model lacks the speech token's heads, they stay the first one's and their output counts as zero.
    Raises ValueError where the models differ otherwise in a name or shape, or the shares are no convex combination.
    """
    if abs(sum(shares) - 1) > 1e-6 or min(shares) < 0:
        raise ValueError(f"the shares {shares} must lie in 0 to 1 and sum to 1")
    states = [model.state_dict() for model in models]
    for state in states[1:]:
        odd = next((n for n in states[0].keys() ^ state.keys() if n in state or not n.startswith(ADDED)), None)
        odd = odd or next((n for n, value in states[0].items() if n in state and state[n].shape != value.shape), None)
        if odd:
            raise ValueError(f"the runs do not share their architecture: {odd!r} differs")
    for name, value in states[0].items():
        having = [(share, state) for share, state in zip(shares, states, strict=True) if name in state]
        if value.is_floating_point() and (len(having) == len(states) or name == HEADS_OUTPUT):
            value.copy_(sum(share * state[name] for share, state in having))
    return models[0]


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        run, output = RunFolder(options.run), RunFolder(options.output)
        if output.path.exists():
            raise RunError(f"{output.path} exists; name a new folder")
        others = [_share(text) for text in options.others]
        shares = [1 - sum(weight for _, weight in others), *(weight for _, weight in others)]
        back = options.pretrained_share
        if not 0 <= back <= 1:
            raise RunError(f"--pretrained-share is {back:g}; use 0 (the mean alone) to 1 (the pre-trained weights)")
        config: Config = run.config()
        folders = [run, *(RunFolder(folder) for folder, _ in others)]
        for folder in folders[1:]:
            if _architecture(folder.config()) != _architecture(config):
                raise RunError(f"{folder.path} has another model section than {run.path}: nothing to average")
        model = average_models([load(folder) for folder in folders], shares)
        if back:
            draw_back(model, given_weights(build_model(config.model)), back)
        output.path.mkdir(parents=True)
        for file in (run.metrics_file, run.log_file):
            if file.is_file():
                shutil.copy(file, output.path / file.name)
        parts = [{"run": f.name, "share": round(share, 6)} for f, share in zip(folders, shares, strict=True)]
        made = {"seed": config.training.seed, "average_of": parts} | ({"pretrained_share": back} if back else {})
        write_json(output.environment_file, environment() | made)
        save_model(model, output, config)
    except (ValueError, OSError) as error:
        print(f"average: {error}", file=sys.stderr)
        return 1
    return 0


def _architecture(config: Config) -> dict:
    """What decides the shapes; where weights came from, losses and prompts do not."""
    model = to_dict(config.model)
    tasks = [{key: task[key] for key in ("name", "kind", "labels")} for task in model["tasks"]]
    gate, lm = ({k: v for k, v in model[part].items() if k not in STARTS} for part in ("gate", "lm"))
    return {"gate": gate, "lm": lm | {"speech_token_heads": 0}, "tasks": tasks}


if __name__ == "__main__":
    sys.exit(main())
