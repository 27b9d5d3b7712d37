"""One offline HTML file of a run: `python -m harmonifuse_core.report RUN [--output F.html]`.

What the run is, results with intervals, both fusions' weights, training, verdicts of analyses and probes, how to read
them. Figures are interactive, nothing is fetched: the file can be mailed and kept.
"""

import argparse
import sys
from pathlib import Path

import yaml

from harmonifuse_core.reporting.content import sections_of
from harmonifuse_core.reporting.page import ReportError, render
from harmonifuse_core.runs import RunError, RunFolder, write_text


def report_html(run: RunFolder) -> str:
    """The page. Raises RunError for a folder that is no run or a damaged config, ReportError without plotly."""
    try:
        config = run.config()
    except RunError:
        raise
    except (ValueError, TypeError, KeyError, OSError, yaml.YAMLError) as error:
        raise RunError(f"config.yaml of {run.path} is damaged ({' '.join(str(error).split())[:200]})") from error
    lead = (f"Run {run.name}. Made from the run's own files by python -m harmonifuse_core.report.",)
    return render(config.title or run.name, lead, sections_of(run, config))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m harmonifuse_core.report", description=__doc__.splitlines()[0])
    parser.add_argument("run", help="run folder, e.g. runs/default")
    parser.add_argument("--output", help="HTML file to write (NAME-report.html in the current folder)")
    options = parser.parse_args(arguments)
    run = RunFolder(Path(options.run).resolve())
    output = Path(options.output or f"{run.name}-report.html")
    try:
        write_text(output, report_html(run))
    except (RunError, ReportError, OSError) as error:
        print(f"report: {error}", file=sys.stderr)
        return 1
    print(f"written: {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
