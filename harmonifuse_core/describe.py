"""What a config needs: `python -m harmonifuse_core.describe --config CONFIG.yaml [key=value ...] [--measure]`.

Parameter counts and shapes come from the code that trains; memory and time by arithmetic, and with `--measure` from
one real step with random weights on this machine. No weights are fetched: encoders of known names have their
architecture in `configs/architectures`.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch

from harmonifuse_core.config import Config, load_yaml
from harmonifuse_core.model.harmonifuse import HarmoniFuse, build_model
from harmonifuse_core.training.footprint import footprint_of, measure_step
from harmonifuse_core.training.optimization import freeze_others

ARCHITECTURES = Path(__file__).parent / "configs" / "architectures"
A100 = 1.25e14  # bfloat16 operations a second that an A100 sustains at 40 % of its peak


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m harmonifuse_core.describe", description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="YAML file, e.g. harmonifuse_core/configs/paper.yaml")
    parser.add_argument("--measure", action="store_true", help="do one training step with random weights and noise")
    parser.add_argument("--clips", type=int, default=2, help="of --measure, in each task (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each clip of --measure (default: %(default)s)")
    parser.add_argument("--flops", type=float, default=A100, help="operations a second, for hours (default: an A100)")
    parser.add_argument("--device", default="cpu", help="of --measure")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="config fields to replace")
    return parser


def without_weights(config: Config) -> Config:
    """The same shapes with random weights; an encoder's known name becomes the folder of its architecture."""
    encoder, known = config.model.encoder, ARCHITECTURES / Path(config.model.encoder.name).name
    name = str(known) if known.is_dir() and not Path(encoder.name).is_dir() else encoder.name
    return replace(config, model=replace(config.model, encoder=replace(encoder, name=name, weights="random")))


def build(config: Config, meta: bool) -> HarmoniFuse:
    """`meta`: shapes only, without memory. A pre-trained LM is loaded, since its name alone tells its shape."""
    if meta and not config.model.lm.name:
        with torch.device("meta"):
            return build_model(config.model)
    return build_model(config.model)


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        config = without_weights(load_yaml(options.config, options.overrides))
        torch.manual_seed(0)
        model = build(config, meta=not options.measure)
        freeze_others(model, config.training.only)
        told = "an A100 at 40 % of its peak" if options.flops == A100 else "--flops"
        print("\n".join(footprint_of(model, config).lines(options.flops, told)))
        if options.measure:
            step = measure_step(model.to(options.device), config, options.clips, options.seconds)
            tasks = len(config.model.tasks)
            print(
                f"\nmeasured on {options.device}: one step of {tasks} tasks with {step.speech_seconds:g} s each took "
                f"{step.seconds:.1f} s ({step.cpu_seconds:.1f} s of processor), peak memory {step.peak / 2**30:.2f} GiB"
            )
    except (ValueError, OSError) as error:
        print(f"describe: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
