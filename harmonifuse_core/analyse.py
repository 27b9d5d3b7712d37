"""Is alpha telling the truth? `python -m harmonifuse_core.analyse --run RUN --manifest M.jsonl [--only NAME,...]`.

`--manifest` with its selectors may stand several times; an utterance counts for the tasks that it has labels for.
Every analysis writes analysis/NAME.json (tables, each with its exact definition, and verdicts) and
analysis/NAME.parquet (the raw rows) into the run. The same command goes on where a killed one stopped. With
`--num-shards N` start it N times, with `--shard-index` 0 to N - 1; the last to finish writes the results.
Exit code: 0, 1 where an analysis has too little to go on, 2 for wrong arguments.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime

import torch
from tqdm import tqdm

from harmonifuse_core.analysis.material import spoken, text_styles
from harmonifuse_core.analysis.registry import MODULES, AnalysisOptions, Context, analyses
from harmonifuse_core.analysis.result import AnalysisResult
from harmonifuse_core.analysis.running import Job, make_plan, model_digest, run_jobs, work_left
from harmonifuse_core.inference.evaluation import check_label_map
from harmonifuse_core.inference.selection import Selection, add_selection_arguments, selections_of
from harmonifuse_core.inference.sources import shard
from harmonifuse_core.runs import RunFolder, environment, load


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m harmonifuse_core.analyse", description=__doc__.splitlines()[0])
    parser.add_argument("--run", required=True, help="run folder, e.g. runs/default")
    add_selection_arguments(parser)
    parser.add_argument("--only", default="", metavar="NAME,...", help=f"of {', '.join(MODULES)} (default: all)")
    parser.add_argument("--num-shards", type=int, default=1, metavar="N", help="of N processes that share the work ...")
    parser.add_argument("--shard-index", type=int, default=0, metavar="I", help="... this is number I, from 0")
    parser.add_argument("--seed", type=int, default=0, help="of every random draw and of the bootstrap")
    parser.add_argument("--resamples", type=int, default=2000, metavar="R", help="of bootstrap and permutations")
    parser.add_argument("--no-words", action="store_true", help="losses of text only, no WER: several times as fast")
    parser.add_argument(
        "--prompt", action="append", default=[], metavar="TEXT", help="one more prompt to try; repeatable"
    )
    parser.add_argument("--compare", action="append", default=[], metavar="RUN", help="another seed's run; repeatable")
    parser.add_argument("--skip", action="append", default=[], metavar="DATASET:TASK", help="no labels of TASK there")
    parser.add_argument("--fresh", action="store_true", help="forget what an earlier run of this command left")
    parser.add_argument("--json", action="store_true", help="the results as one JSON object on stdout")
    parser.add_argument("--quiet", action="store_true", help="no progress bar on stderr")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        chosen = analyses([name.strip() for name in options.only.split(",") if name.strip()])
        shard([], options.num_shards, options.shard_index)
        if options.fresh and options.num_shards > 1:
            raise ValueError(
                "--fresh with --num-shards would take away other shards' rows: begin anew with one process"
            )
        if options.resamples < 1:
            raise ValueError(f"--resamples {options.resamples}: give at least 1 (2000 is usual)")
        run, selections = RunFolder(options.run), selections_of(options)
        others = tuple(RunFolder(path) for path in options.compare)
        config = run.config()
        for other in others:
            other.config()
        for selection in selections:
            check_label_map(selection.label_map, config.model.tasks)
        styles, skip = text_styles(config), skips_of(options.skip, config.model)
        corpora = [spoken(s, config.model.tasks, styles, skip) for s in selections]
        datasets = sorted({item.utterance.dataset for items in corpora for item in items})
        if unknown := sorted(set(skip) - set(datasets)):
            raise ValueError(f"--skip {unknown[0]}: no utterance is of that dataset; there are {', '.join(datasets)}")
        plan = make_plan(corpora, options.seed)
        model = load(run, options.device)
        asked = AnalysisOptions(options.seed, not options.no_words, tuple(options.prompt))
        digest = model_digest(run)
        jobs = [Job(run, plan, analysis, asked, digest) for analysis in chosen]
        if options.fresh:
            for job in jobs:
                job.forget()
    except (ValueError, OSError) as error:
        print(f"analyse: {error}", file=sys.stderr)
        return 2
    try:
        collect(model, jobs, options)
    except KeyboardInterrupt:
        print("analyse: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    context = Context(model, run, others, options.resamples, options.seed, asked)
    return finish(jobs, context, record(options, arguments, selections, run), options.json)


def skips_of(pairs: Sequence[str], config) -> dict[str, list[str]]:
    skips: dict[str, list[str]] = {}
    for pair in pairs:
        dataset, separator, task = pair.rpartition(":")
        if not separator:
            raise ValueError(f"--skip {pair!r}: write DATASET:TASK, e.g. nemo:asr")
        skips.setdefault(dataset, []).append(config.task(task).name)
    return skips


def collect(model, jobs: Sequence[Job], options):
    """Every batch that is not there yet, with what is left on stderr."""
    left = work_left(jobs, options.num_shards, options.shard_index)
    total = left["survey"] + left["rows"]
    with tqdm(total=total, unit="utterance", disable=options.quiet or not total, file=sys.stderr) as bar:

        def on_batch(utterances: int, what: str):
            bar.set_description("survey" if what == "survey" else "analyse", refresh=False)
            bar.update(utterances)

        def on_error(message: str):
            bar.write(f"analyse: left out: {message}", file=sys.stderr)

        run_jobs(model, jobs, options.num_shards, options.shard_index, on_batch=on_batch, on_error=on_error)


def finish(jobs: Sequence[Job], context: Context, made_by: dict, as_json: bool) -> int:
    """Sum up what is complete; what waits for other shards is theirs to sum up."""
    results, failed = [], False
    for job in jobs:
        if not job.finished() and (missing := job.missing()):
            waiting = f"{len(missing)} of {len(job.plan.batches)} batches are other shards'"
            print(f"analyse: {job.analysis.name}: {waiting}; the last shard to finish sums up", file=sys.stderr)
            continue
        try:
            results.append(job.merge(context, made_by))
        except FileNotFoundError:  # another shard finished at the same moment and has taken the parts away
            print(f"analyse: {job.analysis.name}: summed up by another shard", file=sys.stderr)
        except ValueError as error:
            print(f"analyse: {job.analysis.name}: {error}", file=sys.stderr)
            failed = True
    if as_json:
        print(json.dumps({r.name: r.as_dict() for r in results}, ensure_ascii=False, allow_nan=False))
    else:
        for result in results:
            print(summary(result, context.run))
    return int(failed)


def record(options, arguments: list[str] | None, selections: Sequence[Selection], run: RunFolder) -> dict:
    """What made the results: enough to make them again."""
    words = sys.argv[1:] if arguments is None else arguments
    return {
        "command": shlex.join(["python", "-m", "harmonifuse_core.analyse", *words]),
        "run": run.path.resolve().name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": options.seed,
        "resamples": options.resamples,
        "selections": [selection.as_dict() for selection in selections],
        "environment": environment(),
    }


def summary(result: AnalysisResult, run: RunFolder) -> str:
    """Question, verdicts and where the tables are, for a reader."""
    lines = [f"{result.name}: {result.question}"]
    lines.append(f"  {result.utterances} utterances, {result.speakers} speakers; tables in {run.path}:")
    lines.append(f"  {', '.join(f'{t.name} ({len(t.rows)} rows)' for t in result.tables)} of {result.name}.json")
    lines += [f"  mind: {result.caution}"] if result.caution else []
    lines += [f"  {v.about}: {v.verdict.upper()}. {v.evidence}" for v in result.verdicts]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
