"""Score a run: `python -m harmonifuse_core.evaluate --run RUN --manifest M.jsonl [--split S] [--save NAME] [--json]`.

With `--json` one JSON object goes to stdout, else a table. `--save NAME` keeps scores and routing in the run folder.
Exit code: 0, 1 where no recording could be answered, 2 for wrong arguments.
"""

import argparse
import json
import shlex
import sys
from datetime import UTC, datetime

import torch
from tqdm import tqdm

from harmonifuse_core.inference.evaluation import Evaluation, check_label_map, evaluate
from harmonifuse_core.inference.selection import add_selection_arguments, selections_of
from harmonifuse_core.metrics import ClassificationReport
from harmonifuse_core.routing import RoutingWriter
from harmonifuse_core.runs import RunFolder, environment, load, write_json


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m harmonifuse_core.evaluate", description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True, help="run folder, e.g. runs/default")
    add_selection_arguments(parser)
    parser.add_argument("--tasks", default="", help="run only these, e.g. asr (default: all, with labels or not)")
    parser.add_argument("--save", metavar="NAME", help="keep evaluation/NAME.json and routing/NAME.parquet in the run")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--progress", action="store_true", help="a progress bar on stderr")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    writer = None
    try:
        if len(selections := selections_of(options)) > 1:
            raise ValueError("--manifest stands twice: evaluate one manifest at a time")
        selection, run = selections[0], RunFolder(options.run)
        if options.save == "calibration":
            raise ValueError("--save calibration: that name belongs to the calibrate command; choose another")
        saved = run.part("evaluation", f"{options.save}.json") if options.save else None
        sources = selection.sources()
        model = load(run, options.device)
        tasks = [name.strip() for name in options.tasks.split(",") if name.strip()]
        check_label_map(selection.label_map, [model.config.task(name) for name in tasks] or model.config.tasks)
        writer = RoutingWriter(run.part("routing", f"{options.save}.parquet")) if options.save else None
    except (ValueError, OSError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2
    try:
        with tqdm(total=len(sources), unit="file", disable=not options.progress, file=sys.stderr) as bar:
            result = evaluate(
                model, sources, tasks=tasks, label_map=selection.label_map, writer=writer, seed=options.seed,
                on_answer=lambda _: bar.update(),
            )  # fmt: skip
        if saved and result.utterances:
            writer.close()
            write_json(saved, result.as_dict() | record(options, arguments, selection.as_dict(), run))
    except KeyboardInterrupt:
        print("evaluate: stopped; nothing was saved", file=sys.stderr)
        return 130
    finally:
        if writer is not None:
            writer.discard()
    print(json.dumps(result.as_dict(), ensure_ascii=False, allow_nan=False) if options.json else table(result))
    if not result.utterances:
        print(f"evaluate: none of {len(sources)} recordings could be answered", file=sys.stderr)
    return 0 if result.utterances else 1


def record(options, arguments: list[str] | None, selection: dict, run: RunFolder) -> dict:
    """What made the scores: enough to make them again."""
    words = sys.argv[1:] if arguments is None else arguments
    return {
        "command": shlex.join(["python", "-m", "harmonifuse_core.evaluate", *words]),
        **selection,
        "run": run.path.resolve().name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": options.seed,
        "environment": environment(),
    }


def table(result: Evaluation) -> str:
    """The scores for a reader."""
    lines = []
    for task, score in result.scores.items():
        if isinstance(score, ClassificationReport):
            lines.append(f"{task}  UA {score.ua:.3f}{_range(score.ua_ci)}  WA {score.wa:.3f}{_range(score.wa_ci)}")
            lines.append(f"     macro-F1 {score.macro_f1:.3f}, ECE {score.ece:.3f}")
            recalls = (f"{label} {r:.2f}" for label, r in score.per_class_recall.items() if r is not None)
            lines.append(f"     recall: {', '.join(recalls)}")
        else:
            lines.append(f"{task}  WER {score.wer:.2%}{_range(score.wer_ci, '.2%')}  CER {score.cer:.2%}")
            edits = f"{score.substitutions} substitutions, {score.deletions} deletions, {score.insertions} insertions"
            lines.append(f"     {edits} in {score.words} words; {score.normalizer}")
        lines.append(f"     {score.utterances} utterances, {score.speakers} speakers; {score.ci_method}")
    unscored = [task for task in result.tasks if task not in result.scores]
    lines += [f"{task}  not scored: no label that the model knows" for task in unscored]
    for task, labels in result.left_out.items():
        lines.append(f"left out of {task}: " + ", ".join(f"{label} ({n})" for label, n in labels.items()))
    speed = "" if result.rtf is None else f", real-time factor {result.rtf:.4f}"
    seconds = f"{result.audio_seconds:.1f} s of audio in {result.wall_seconds:.1f} s"
    lines.append(f"{seconds} for {', '.join(result.tasks)}{speed}")
    lines += [f"failed: {failure.id}: {failure.error}" for failure in result.failed]
    return "\n".join(lines)


def _range(interval: tuple[float | None, float | None], style: str = ".3f") -> str:
    low, high = interval
    return "" if low is None else f" [{low:{style}}, {high:{style}}]"


if __name__ == "__main__":
    sys.exit(main())
