"""Transcribe and classify: `python -m harmonifuse_core.infer --run runs/default FILE_OR_FOLDER_OR_MANIFEST...`.

Folders are searched for audio, manifests end in .jsonl. With `--json` one object a line in the order of the input; a
recording that cannot be used gets one with `error`, and the rest go on. `--output F` writes that to F.jsonl, or the
routing alone to F.parquet; with `--num-shards N` F is a folder and each shard its own file in it.
Exit code: 0, 1 where no recording could be answered, 2 for wrong arguments.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from harmonifuse_core.data.limits import plain_name
from harmonifuse_core.inference.predict import PredictOptions
from harmonifuse_core.inference.sources import Answered, answer_sources, collect, shard
from harmonifuse_core.model.harmonifuse import HarmoniFuse, HarmoniFuseOutput
from harmonifuse_core.routing import RoutingWriter, records_of, shard_path, whole_file
from harmonifuse_core.runs import load

NAMES = {"asr": "text", "ser": "emotion"}  # keys of the built-in tasks; further tasks stand under their own name
OUTPUTS = (".jsonl", ".parquet")


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m harmonifuse_core.infer", description=__doc__.splitlines()[0])
    parser.add_argument("inputs", nargs="+", metavar="FILE_OR_FOLDER_OR_MANIFEST")
    parser.add_argument("--run", default="runs/default", help="run folder (default: %(default)s)")
    parser.add_argument("--tasks", default="", help="run only these, e.g. asr,ser (default: all)")
    parser.add_argument("--prompt", action="append", default=[], metavar="TASK=TEXT", help="instead of the task's own")
    parser.add_argument("--json", action="store_true", help="JSON lines on stdout")
    parser.add_argument("--output", metavar="F", help="write F.jsonl (the same objects) or F.parquet (routing) instead")
    parser.add_argument("--num-shards", type=int, default=1, metavar="N", help="of N processes that share the work ...")
    parser.add_argument("--shard-index", type=int, default=0, metavar="I", help="... this is number I, from 0")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        target = output_path(options)
        sources = shard(collect(options.inputs), options.num_shards, options.shard_index)
        model = load(options.run, options.device)
        tasks = tuple(name.strip() for name in options.tasks.split(",") if name.strip())
        predict = PredictOptions(tasks, prompts_of(options.prompt))
        for name in [*tasks, *predict.prompts]:
            model.config.task(name)
    except (ValueError, OSError) as error:
        print(f"infer: {error}", file=sys.stderr)
        return 2
    good = 0
    try:
        with sink(target, options.json) as put:
            for item in answer_sources(model, sources, predict):
                put(item, model)
                good += item.answers is not None
            if sources and not good and target is not None and target.suffix == ".parquet":
                raise NothingAnswered  # rather no file than one without a row
    except NothingAnswered:
        pass
    except KeyboardInterrupt:
        print("infer: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(
            f"infer: {target or 'standard output'} cannot be written ({error}): check rights and space", file=sys.stderr
        )
        return 1
    if target is not None or not good:
        written = f", written to {target}" if target is not None and target.exists() else ""
        print(f"infer: {good} of {len(sources)} recordings answered{written}", file=sys.stderr)
    return 0 if good or not sources else 1


class NothingAnswered(Exception):
    """Every recording failed."""


def output_path(options) -> Path | None:
    """The file of this process. Raises ValueError."""
    if not options.output:
        return None
    path = Path(options.output)
    if path.suffix not in OUTPUTS:
        raise ValueError(f"--output {options.output!r}: end it in {' or '.join(OUTPUTS)}")
    path = path if options.num_shards == 1 else shard_path(path, options.shard_index, path.suffix)
    if path.is_dir() or (path.parent.exists() and not path.parent.is_dir()):
        raise ValueError(f"--output {options.output!r}: {path} cannot be a file there; choose another name")
    return path


def prompts_of(assignments: list[str]) -> dict[str, str]:
    prompts = {}
    for assignment in assignments:
        task, separator, text = assignment.partition("=")
        if not separator or not text.strip():
            raise ValueError(f'--prompt {assignment!r}: write TASK=TEXT, e.g. --prompt asr="What is said?"')
        prompts[task.strip()] = text
    return prompts


@contextmanager
def sink(target: Path | None, as_json: bool) -> Iterator[Callable[[Answered, HarmoniFuse], None]]:
    """Where answers go: stdout as JSON lines or for a reader, or a file that appears whole at the end."""
    if target is None:
        yield lambda item, model: print(line(item, model) if as_json else readable(item), flush=True)
    elif target.suffix == ".jsonl":
        with whole_file(target) as part, part.open("w", encoding="utf-8") as file:
            yield lambda item, model: file.write(line(item, model) + "\n") and None
    else:
        with RoutingWriter(target) as writer:

            def put(item: Answered, model: HarmoniFuse):
                if item.answers is None:
                    print(f"infer: {item.error}", file=sys.stderr)
                else:
                    source = item.source
                    writer.write(records_of(source.utterance, item.answers, audio=source.path, seconds=item.seconds))

            yield put


def line(item: Answered, model: HarmoniFuse) -> str:
    """One JSON object. Weights are lists of L1 floats, index 0 the state before the first block; seconds: its share of
    the computing time."""
    row = {"id": item.source.utterance.id, "path": item.source.path}
    if item.answers is None:
        return json.dumps(row | {"error": item.error}, ensure_ascii=False)
    for task, answer in item.answers.items():
        name = NAMES.get(task, task)
        if model.config.task(task).writes_text:
            row[name] = answer.text
        else:
            row[name] = answer.label
            row[f"{name}_probabilities"] = {label: round(p, 6) for label, p in answer.probabilities.items()}
    row |= {
        "encoder_alpha": {task: _rounded(answer.encoder.alpha) for task, answer in item.answers.items()},
        "lm_alpha": {task: _rounded(answer.lm.alpha) for task, answer in item.answers.items()},
        "duration": round(item.seconds, 3),
        "prompts": {task: answer.prompt for task, answer in item.answers.items()},
        "truncated": any(answer.truncated for answer in item.answers.values()),
        "seconds": round(item.cost, 4),
        "warnings": list(item.warnings),
    }
    return json.dumps(row, ensure_ascii=False, allow_nan=False)


def _rounded(weights) -> list[float]:
    return [round(float(w), 6) for w in weights]


def readable(item: Answered) -> str:
    """Two or three lines for a reader: answers, and the layer that each task drew on most."""
    name = plain_name(item.source.utterance.id)
    if item.answers is None:
        return f"{name}\n    cannot be used: {item.error}"
    lines = [f"{name}  ({item.seconds:.1f} s)"]
    lines += [f"    {task}: {_answer(answer)}" for task, answer in item.answers.items()]
    lines += [f"    note: {warning}" for warning in item.warnings]
    return "\n".join(lines)


def _answer(answer: HarmoniFuseOutput) -> str:
    said = answer.text if answer.text is not None else f"{answer.label} {answer.probabilities[answer.label]:.2f}"
    cut = " (cut off)" if answer.truncated else ""
    alphas = {"encoder": answer.encoder.alpha, "LM": answer.lm.alpha}
    peaks = (f"{stage} layer {alpha.argmax()} {alpha.max():.2f}" for stage, alpha in alphas.items())
    return f"{said or '(nothing)'}{cut}   [{', '.join(peaks)}]"


if __name__ == "__main__":
    sys.exit(main())
