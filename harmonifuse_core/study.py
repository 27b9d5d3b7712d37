"""Run a study: `python -m harmonifuse_core.study STUDY.yaml [--output runs/study-NAME] [--table-only]`.

A study trains and scores every cell (one system of the file with one seed), and compares systems by the claims of the
file. The same command goes on where a killed one stopped; only the cell at hand is lost. With `--num-shards N` start it
N times, with `--shard-index` 0 to N - 1. Tables are made from the rows on disk: at the end of every process, and by
`--table-only` at any time, from a finished study's three Parquet files alone. Shipped studies:
harmonifuse_core/configs/studies/. Exit code: 0, 1 where a cell failed, 2 for wrong arguments.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import torch

from harmonifuse_core.analysis.result import AnalysisResult, plain, short
from harmonifuse_core.inference.sources import shard
from harmonifuse_core.runs import StudyFolder, environment, write_json, write_text
from harmonifuse_core.studies.plan import Cell, Study, load_study, study_text
from harmonifuse_core.studies.report import study_card
from harmonifuse_core.studies.rows import consolidate, read_rows
from harmonifuse_core.studies.running import run_cells, threads
from harmonifuse_core.studies.scoring import check_labels
from harmonifuse_core.studies.table import missing_cells, study_result

OUTPUT = "runs/study-{}"


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m harmonifuse_core.study", description=__doc__.splitlines()[0])
    parser.add_argument("study", metavar="STUDY.yaml", help="e.g. harmonifuse_core/configs/studies/e2.yaml")
    parser.add_argument("--output", metavar="FOLDER", help="study folder (default: runs/study-NAME)")
    parser.add_argument("--num-shards", type=int, default=1, metavar="N", help="of N processes that share the work ...")
    parser.add_argument("--shard-index", type=int, default=0, metavar="I", help="... this is number I, from 0")
    parser.add_argument("--seeds", type=_seeds, default=(), metavar="0,1,...", help="instead of the file's")
    parser.add_argument("--systems", default="", metavar="A,B", help="run these only; the table shows all")
    parser.add_argument("--table-only", action="store_true", help="make the tables from what is there; train nothing")
    parser.add_argument("--list", action="store_true", help="say what there is to do, and do nothing")
    parser.add_argument(
        "--reuse", default="", metavar="A,B", help="study folders whose equal cells are copied, not run"
    )
    parser.add_argument("--keep-models", action="store_true", help="keep every cell's weights as a run: models/CELL")
    parser.add_argument("--resamples", type=int, default=2000, metavar="R", help="of the bootstrap over speakers")
    parser.add_argument(
        "--threads", type=int, default=1, metavar="N", help="CPU threads (rows of 1 and of 2 differ a bit)"
    )
    parser.add_argument("--cache-megabytes", type=int, default=4000, help="of encoded evaluation speech in memory")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser


def _seeds(text: str) -> tuple[int, ...]:
    if not all(part.strip().isdigit() for part in text.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r}: write whole numbers, e.g. 0,1,2")
    return tuple(int(part) for part in text.split(","))


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        study = load_study(options.study)
        study = replace(study, seeds=options.seeds) if options.seeds else study
        folder = StudyFolder(options.output or OUTPUT.format(study.name))
        donors = [donor(name.strip(), folder) for name in options.reuse.split(",") if name.strip()]
        shard([], options.num_shards, options.shard_index)
        if options.threads < 1:
            raise ValueError(f"--threads {options.threads}: give at least 1")
        if options.resamples < 2:
            raise ValueError(f"--resamples {options.resamples}: give at least 2 (2000 is usual)")
        chosen = [study.system(n.strip(), "--systems").name for n in options.systems.split(",") if n.strip()]
        todo = [] if options.table_only else waiting(study, folder, options, chosen)
        if todo:
            check_labels(study)
    except (ValueError, OSError) as error:
        print(f"study: {error}", file=sys.stderr)
        return 2
    if options.list:
        for cell in todo:
            print(cell.name)
        return 0
    failed = False
    try:
        if todo:
            write_text(folder.study_file, study_text(study))
            with threads(options.threads):
                write_json(folder.environment_file, environment())
                failed = run_cells(
                    study, todo, folder, donors, say,
                    megabytes=options.cache_megabytes, device=options.device, keep_models=options.keep_models,
                )  # fmt: skip
    except KeyboardInterrupt:
        print("study: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    try:
        result = tabulate(study, folder, options)
    except (ValueError, OSError) as error:
        print(f"study: {error}", file=sys.stderr)
        return 1
    print(summary(result, folder))
    return int(failed)


def waiting(study: Study, folder: StudyFolder, options, chosen: Sequence[str]) -> list[Cell]:
    """Cells of this shard that have no rows of their config yet, in the study's order."""
    cells = [cell for cell in study.cells() if not chosen or cell.system.name in chosen]
    missing = set(missing_cells(study, read_rows(folder)))
    return [cell for cell in cells[options.shard_index :: options.num_shards] if cell.name in missing]


def donor(name: str, folder: StudyFolder) -> StudyFolder:
    """A study folder to copy cells from. Raises ValueError."""
    if not Path(name).is_dir() or Path(name).resolve() == folder.path.resolve():
        raise ValueError(f"--reuse {name!r}: name the folder of another study, e.g. runs/study-e2")
    return StudyFolder(name)


def say(message: str):
    print(f"{datetime.now():%H:%M:%S} study: {message}", file=sys.stderr, flush=True)


def tabulate(study: Study, folder: StudyFolder, options) -> AnalysisResult:
    """Write table.json and README.md from the rows, and the three tables of rows where all cells are there."""
    rows = read_rows(folder)
    missing = missing_cells(study, rows)
    result = study_result(study, rows, resamples=options.resamples)
    write_text(folder.study_file, study_text(study))
    if not missing and folder.part_names():
        consolidate(folder, rows, [cell.name for cell in study.cells()])
    expected = len(study.cells())
    words = ["python", "-m", "harmonifuse_core.study", options.study]
    words += ["--output", options.output] if options.output else []
    words += ["--seeds", ",".join(map(str, options.seeds))] if options.seeds else []
    record = {
        "title": study.title, "complete": not missing, "date": max(rows.cells["date"].dropna(), default=""),
        "cells_done": expected - len(missing), "cells_expected": expected,
        "seeds": list(study.seeds), "resamples": options.resamples, "again": shlex.join(words),
        "table_again": shlex.join([*words, "--table-only"]), "systems": [s.name for s in study.systems],
    }  # fmt: skip
    write_json(folder.table_file, short(result.as_dict()) | plain(record))
    write_text(folder.card_file, study_card(study, result, record))
    return result


def summary(result: AnalysisResult, folder: StudyFolder) -> str:
    """Verdicts and where the tables are, for a terminal."""
    lines = [f"{result.name}: {result.question}"]
    lines += [f"  {v.verdict.upper()}: {v.about.rstrip('.')}. {v.evidence}" for v in result.verdicts]
    if missing := result.table("missing").rows:
        names = [f"{row['system']}.seed-{row['seed']}" for row in missing]
        more = f" and {len(names) - 6} more" if len(names) > 6 else ""
        lines.append(f"  {len(names)} cells are missing: {', '.join(names[:6])}{more}")
    return "\n".join([*lines, f"  tables: {folder.card_file}, {folder.table_file}"])


if __name__ == "__main__":
    sys.exit(main())
