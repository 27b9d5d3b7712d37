"""Train a model: `python -m harmonifuse_core.train --config CONFIG.yaml --run runs/NAME [key=value ...] [--resume]`.

`key=value` overrides a field of the config by its dotted name, e.g. `training.steps=500 model.gate.mode=shared`. On
several GPUs or nodes: `accelerate launch -m harmonifuse_core.train ...` with the same arguments.
"""

import argparse
import logging
import sys

import torch

from harmonifuse_core.allocation import keep_freed_memory
from harmonifuse_core.config import load_yaml, save_yaml
from harmonifuse_core.model.harmonifuse import build_model
from harmonifuse_core.runs import RunFolder, environment, save_model, write_json
from harmonifuse_core.training.loop import Trainer, TrainingError
from harmonifuse_core.training.processes import Processes
from harmonifuse_core.training.starting import start_from
from harmonifuse_core.training.tracking import Trackers, installed_trackers


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m harmonifuse_core.train", description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="YAML file, e.g. harmonifuse_core/configs/default.yaml")
    parser.add_argument("--run", required=True, help="run folder to write, e.g. runs/mine")
    parser.add_argument("--resume", action="store_true", help="continue from the newest checkpoint of --run")
    parser.add_argument("--init", metavar="RUN", help="start from this run's weights; what it lacks starts afresh")
    parser.add_argument(
        "--init-share", type=float, default=1.0, metavar="S",
        help="start S of the way from the pre-trained weights to those of --init (default 1: at those of --init)",
    )  # fmt: skip
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--trackers", default="", metavar="A,B",
        help="where curves go beside metrics.jsonl: tensorboard (default where installed), wandb, ..., or none",
    )  # fmt: skip
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="config fields to replace")
    return parser


def slow_precision(precision: str, device: torch.device) -> str:
    """Words of warning where products in `precision` take far longer on `device` than in float32; else empty."""
    capability = torch.backends.cpu.get_cpu_capability()
    if precision != "bfloat16" or device.type != "cpu" or capability.startswith(("AVX512", "AMX")):
        return ""
    return (
        f"this CPU ({capability}) has no bfloat16: a step may take 20 times as long as with training.precision=float32"
    )


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    trackers = None
    try:
        processes = Processes.join(options.device)
        run = RunFolder(options.run)
        run.path.mkdir(parents=True, exist_ok=True)
        logging.basicConfig(
            level=logging.INFO,
            format="%(asctime)s %(message)s",
            handlers=[logging.FileHandler(run.log_file) if processes.is_main else logging.NullHandler()],
            force=True,
        )
        config = load_yaml(options.config, options.overrides)
        if options.init_share != 1 and not options.init:
            raise ValueError(f"--init-share is {options.init_share:g} of no run: name one with --init")
        if slow := slow_precision(config.training.precision, processes.device):
            logging.warning(slow)
            print(f"train: {slow}", file=sys.stderr)
        keep_freed_memory()
        torch.manual_seed(config.training.seed)
        model = build_model(config.model)
        if options.init:
            fresh = start_from(model, RunFolder(options.init).model, options.init_share)
            logging.info("%s lacks, so they start afresh: %s", options.init, ", ".join(fresh) or "none")
        chosen = options.trackers or installed_trackers()
        if chosen != "none":  # in all processes; the main one alone writes
            trackers = Trackers(chosen, run, cpu=processes.device.type == "cpu")
        trainer = Trainer(config, model, run, options.device, options.resume, processes, trackers)
        if processes.is_main:
            save_yaml(config, run.config_file)
            init = {"init": options.init, "init_share": options.init_share}
            record = {"seed": config.training.seed, **init, "processes": processes.count}
            write_json(run.environment_file, environment() | record)
        model = trainer.run()
        if processes.is_main:
            save_model(model, run, config)
        processes.wait()
    except (ValueError, TrainingError) as error:
        print(f"train: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"train: stopped; go on with --resume --run {options.run}", file=sys.stderr)
        return 130
    finally:
        if trackers is not None:
            trackers.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
