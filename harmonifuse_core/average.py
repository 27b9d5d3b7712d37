"""Average the weights of runs: `python -m harmonifuse_core.average --run RUN --output NEW OTHER_RUN[=WEIGHT] ...`.

Runs that were trained one from the other lie in one basin; between them a model often does better on all their data
than either (Wortsman et al. 2022, robust fine-tuning). The config, metrics and log of --run are kept. The shares sum to
1: what the others leave belongs to --run. What may be added to the speech token and another run lacks counts with its
share of the output. What matches --own stays as --run has it: what another run never trained, such as the head of a
task that it had no data for, would only blur it. --pretrained-share draws the mean back to the pre-trained weights
that the config of --run names.
"""

import argparse
import sys

import torch

from harmonifuse_core.config import Config
from harmonifuse_core.fields import to_dict
from harmonifuse_core.model.harmonifuse import HarmoniFuse, build_model
from harmonifuse_core.model.weights import names_fitting
from harmonifuse_core.runs import RunError, RunFolder, load, refuse_existing, save_derived
from harmonifuse_core.training.starting import draw_back, given_weights

OUTPUTS = ("lm.speech_token.project_heads.weight", "summary.output.weight")  # zero in a run that lacks their module
STARTS = ("last_logit", "last_logit_tasks")  # of training: they decide no shape
ADDED = (*(f"lm.speech_token.{part}" for part in ("attention", "standardise_heads", "project_heads")), "summary.")


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m harmonifuse_core.average", description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True, help="run folder whose config and log the result keeps")
    parser.add_argument("--output", required=True, help="new run folder")
    parser.add_argument(
        "--pretrained-share", type=float, default=0.0, metavar="S",
        help="then S * the pre-trained weights + (1 - S) * the mean, for what had such a start",
    )  # fmt: skip
    parser.add_argument(
        "--own", default="", metavar="REGEX", help="weights whose names begin so keep the values of --run"
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
def average_models(models: list[HarmoniFuse], shares: list[float], own: str = "") -> HarmoniFuse:
    """The first model, its floating-point weights and running statistics replaced by the sum of share * value.

    Those whose names begin with the regular expression `own` stay the first one's. Where another model lacks what may
    be added to the speech token, that stays the first one's too and its output counts as zero. Raises ValueError where
    the models differ otherwise in a name or shape, the shares are no convex combination, or `own` fits no name.
    """
    if abs(sum(shares) - 1) > 1e-6 or min(shares) < 0:
        raise ValueError(f"the shares {shares} must lie in 0 to 1 and sum to 1")
    states = [model.state_dict() for model in models]
    for state in states[1:]:
        odd = next((n for n in states[0].keys() ^ state.keys() if n in state or not n.startswith(ADDED)), None)
        odd = odd or next((n for n, value in states[0].items() if n in state and state[n].shape != value.shape), None)
        if odd:
            raise ValueError(f"the runs do not share their architecture: {odd!r} differs")
    kept = names_fitting(own, list(states[0]), "--own") if own else set()
    for name, value in states[0].items():
        if name in kept:
            continue
        having = [(share, state) for share, state in zip(shares, states, strict=True) if name in state]
        if value.is_floating_point() and (len(having) == len(states) or name in OUTPUTS):
            value.copy_(sum(share * state[name] for share, state in having))
    return models[0]


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        run, output = RunFolder(options.run), RunFolder(options.output)
        refuse_existing(output)
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
        model = average_models([load(folder) for folder in folders], shares, options.own)
        if back:
            draw_back(model, given_weights(build_model(config.model)), back)
        parts = [{"run": f.name, "share": round(share, 6)} for f, share in zip(folders, shares, strict=True)]
        made = {"seed": config.training.seed, "average_of": parts} | ({"pretrained_share": back} if back else {})
        made |= {"own": options.own} if options.own else {}
        save_derived(model, run, output, config, made)
    except (ValueError, OSError) as error:
        print(f"average: {error}", file=sys.stderr)
        return 1
    return 0


def _architecture(config: Config) -> dict:
    """What decides the shapes; where weights came from, losses and prompts do not."""
    model = to_dict(config.model)
    tasks = [{key: task[key] for key in ("name", "kind", "labels")} for task in model["tasks"]]
    gate, lm = ({k: v for k, v in model[part].items() if k not in STARTS} for part in ("gate", "lm"))
    return {"gate": gate, "lm": lm | {"speech_token_heads": 0, "speech_token_layers": 0}, "tasks": tasks}


if __name__ == "__main__":
    sys.exit(main())
