"""Write the model card of a run: `python -m harmonifuse_core.card --run runs/NAME [--into README.md]`.

Every number is read from the run's own files; `--into` puts the same results table between the markers
`<!-- results -->` and `<!-- /results -->` of another Markdown file. `--studies runs --into README.md` puts the claims
of all studies below `runs` between `<!-- studies -->` and `<!-- /studies -->`.
"""

import argparse
import json
import sys
from pathlib import Path

from harmonifuse_core.config import CorpusConfig, from_dict
from harmonifuse_core.runs import RunError, RunFolder, find_studies, write_text
from harmonifuse_core.studies.report import claims_overview
from harmonifuse_core.studies.rows import read_table


def interval(values, scale: float = 100.0, digits: int = 1) -> str:
    """`[low, high]` as text, or why there is none."""
    if not values or values[0] is None:
        return "no interval"
    return f"{scale * values[0]:.{digits}f} to {scale * values[1]:.{digits}f}"


def result_rows(run: RunFolder) -> list[str]:
    """Markdown table rows of all saved evaluations."""
    rows = []
    for name in run.names("evaluation", ".json"):
        report = run.read_json("evaluation", name)
        for task, scores in report.items():
            if not isinstance(scores, dict) or not ("wer" in scores or "ua" in scores):
                continue
            if "wer" in scores:
                value = f"WER {100 * scores['wer']:.1f} % ({interval(scores['wer_ci'])})"
                extra = f"CER {100 * scores['cer']:.1f} %, {scores['words']} words"
            else:
                value = f"UA {100 * scores['ua']:.1f} % ({interval(scores['ua_ci'])})"
                extra = (
                    f"WA {100 * scores['wa']:.1f} %, macro-F1 {100 * scores['macro_f1']:.1f} %, ECE {scores['ece']:.3f}"
                )
            speakers = scores.get("speakers", "?")
            rows.append(
                f"| {name.removesuffix('.json')} | {task} | {value} | {extra} | {scores['utterances']} / {speakers} "
                f"| {report['rtf']:.4f} |"
            )
    return rows


def results_table(run: RunFolder) -> str:
    rows = result_rows(run)
    if not rows:
        return "No evaluation has been saved yet: run `python -m harmonifuse_core.evaluate` with `--save NAME`."
    head = (
        "| evaluation | task | score (95 % interval, bootstrap over speakers) | also | utterances / speakers | RTF |\n"
        "|---|---|---|---|---|---|"
    )
    return "\n".join([head, *rows])


def taken(corpus: CorpusConfig) -> str:
    """Which of a corpus is used, and what is assumed of it."""
    return f"{corpus.split or 'all'}{f', assumed {corpus.assumed_label}' if corpus.assumed_label else ''}"


def added_corpora(run: RunFolder) -> list[CorpusConfig]:
    """Corpora that no training heard, only a fit after it (`discriminant --add`)."""
    made = json.loads(run.environment_file.read_text()) if run.environment_file.is_file() else {}
    return [from_dict(CorpusConfig, row, f"{run.environment_file}: added") for row in made.get("added", ())]


def write_card(run: RunFolder) -> str:
    """Compose the card and write it into the run; returns its text. Raises RunError for a folder that is no run."""
    config = run.config()
    lines = [
        f"# {config.title or run.name}",
        "",
        config.description.strip(),
        "",
        "## Results",
        "",
        results_table(run),
        "",
    ]
    lines += [
        "RTF: seconds of computing for a second of speech, both tasks together, on the machine of `environment.json`. "
        "Intervals over few speakers are too narrow; `evaluation/*.json` says so in `ci_method`.",
        "",
        "## Training data",
        "",
        "| corpus | task | split | share of the task's draws |",
        "|---|---|---|---|",
    ]
    totals = {c.task: sum(o.weight for o in config.data.train if o.task == c.task) for c in config.data.train}
    for corpus in config.data.train:
        name = Path(corpus.manifest).stem
        share = corpus.weight / totals[corpus.task]
        lines.append(f"| {name} | {corpus.task} | {taken(corpus)} | {share:.2f} |")
    for corpus in added_corpora(run):
        lines.append(
            f"| {Path(corpus.manifest).stem} | {corpus.task} | {taken(corpus)} | only in the closed-form fit |"
        )
    done = [row["step"] for row in run.metrics()]
    trained = f"Trained for {max(done)} steps" if done else "No training log is kept here"
    lines += ["", f"{trained}, seed {config.training.seed}. Config: `config.yaml`.", ""]
    text = "\n".join(lines)
    write_text(run.card_file, text)
    return text


def insert(path: Path, name: str, table: str):
    """Replace what stands between the markers `<!-- name -->` and `<!-- /name -->` in the file at `path`."""
    text, markers = path.read_text(encoding="utf-8"), (f"<!-- {name} -->", f"<!-- /{name} -->")
    start, end = (text.find(marker) for marker in markers)
    if start < 0 or end < start:
        raise ValueError(f"{path} has no {markers[0]} ... {markers[1]} to put the {name} between")
    write_text(path, f"{text[: start + len(markers[0])]}\n{table}\n{text[end:]}")


def insert_studies(root: str, path: Path):
    folders = find_studies(root)
    if not folders:
        raise ValueError(f"{root!r} holds no study: run `python -m harmonifuse_core.study STUDY.yaml` first")
    insert(path, "studies", claims_overview([read_table(folder) for folder in folders]))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m harmonifuse_core.card", description=__doc__.splitlines()[0])
    parser.add_argument("--run", help="run folder whose card to write")
    parser.add_argument("--studies", metavar="FOLDER", help="folder of studies, e.g. runs; needs --into")
    parser.add_argument("--into", help="Markdown file whose table to renew")
    options = parser.parse_args(arguments)
    if not options.run and not (options.studies and options.into):
        parser.error("give --run RUN, or --studies FOLDER with --into FILE.md")
    try:
        if options.run:
            run = RunFolder(options.run)
            write_card(run)
            if options.into:
                insert(Path(options.into), "results", results_table(run))
            print(f"written: {run.card_file}")
        if options.studies:
            insert_studies(options.studies, Path(options.into))
            print(f"written: {options.into}")
    except (RunError, ValueError, OSError) as error:
        print(f"card: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
