"""A study for a reader: README.md of its folder, in Markdown."""

from collections.abc import Sequence
from html import escape

from harmonifuse_core.analysis.result import AnalysisResult
from harmonifuse_core.studies.plan import Study


def study_card(study: Study, result: AnalysisResult, record: dict) -> str:
    """Verdicts first, then the numbers behind them, then what is missing and how to make it again."""
    lines = [f"# {study.title or study.name}", "", study.question, "", study.description.strip(), ""]
    seeds = ", ".join(map(str, study.seeds))
    lines.append(
        f"{record['cells_done']} of {record['cells_expected']} cells ({len(study.systems)} systems, seeds {seeds}) are "
        f"there; {result.utterances} utterances of {result.speakers} speakers are scored. No number is the paper's."
    )
    lines += _claims(result) + _comparisons(result) + _scores(result) + _alphas(result) + _costs(result)
    lines += [*_missing(result), "", "## Make it again", ""]
    lines += ["```bash", record["again"], record["table_again"], "```", ""]
    return "\n".join(_squeezed(lines))


def _squeezed(lines: Sequence[str]) -> list[str]:
    """No two empty lines in a row."""
    return [line for i, line in enumerate(lines) if line or i == 0 or lines[i - 1]]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Markdown; what comes from outside (labels, names) stays letters."""
    cells = [[escape(str(v), quote=False).replace("|", "\\|").replace("\n", " ") for v in row] for row in rows]
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *cells)]


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def measure(row: dict) -> str:
    return f"{row['task']} {row['metric'].upper()}"


def _range(row: dict, name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return "-" if low is None else f"{percent(low)} to {percent(high)}"


def _claims(result: AnalysisResult) -> list[str]:
    rows = [(r["text"], f"**{r['verdict']}**", r["source"], r["evidence"]) for r in result.table("claims").rows]
    if not rows:
        return []
    text = ["", "## Verdicts", "", *_table(["claim", "verdict", "source", "numbers"], rows)]
    return [*text, "", result.table("claims").definition]


def claims_overview(results: Sequence[AnalysisResult]) -> str:
    """One Markdown table of all claims of several studies, each with its comparisons in short."""
    rows = []
    for result in results:
        compared = result.table("comparisons").rows
        for claim in result.table("claims").rows:
            found = [
                f"{r['system']} over {r['baseline']}, {r['metric'].upper()}: {_in_short(r)}"
                for r in compared if r["claim"] == claim["claim"]
            ]  # fmt: skip
            rows.append((result.name, claim["text"], f"*{claim['verdict']}*", "; ".join(found) or "no cells yet"))
    head = ["study", "claim", "verdict", "benefit in points (95 % over speakers and seeds; p after Holm)"]
    return "\n".join(_table(head, rows))


def _in_short(row: dict) -> str:
    if row["benefit"] is None:
        return "no cells yet"
    if row["benefit_low"] is None:
        return f"{percent(row['benefit'])} (no interval: one seed or speaker)"
    return f"{percent(row['benefit'])} ({_range(row, 'benefit')}; p {_p(row['p_holm'])})"


def _comparisons(result: AnalysisResult) -> list[str]:
    rows = [
        (r["system"], r["baseline"], measure(r), r["evaluation"], r["expect"], percent(r["benefit"]),
         _range(r, "benefit"), _range(r, "speakers"), _range(r, "seeds"), _p(r["p"]), _p(r["p_holm"]), r["verdict"])
        for r in result.table("comparisons").rows
    ]  # fmt: skip
    head = ["system", "baseline", "measure", "evaluation", "expected", "benefit (points)", "95 % speakers and seeds",
            "speakers", "seeds", "p", "p (Holm)", "verdict"]  # fmt: skip
    return ["", "## Comparisons", "", *_table(head, rows), "", result.table("comparisons").definition] if rows else []


def _p(value: float | None) -> str:
    return "-" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _scores(result: AnalysisResult) -> list[str]:
    rows = [
        (r["system"], r["evaluation"], measure(r), percent(r["value"]), _range(r, "value"), _range(r, "seeds"),
         ", ".join(map(percent, r["per_seed"])), f"{r['n']} / {r['speakers']}")
        for r in result.table("scores").rows
    ]  # fmt: skip
    head = ["system", "evaluation", "measure", "mean (%)", "95 % over speakers", "95 % over seeds", "each seed",
            "utterances / speakers"]  # fmt: skip
    return ["", "## Scores", "", *_table(head, rows), "", result.table("scores").definition]


def _alphas(result: AnalysisResult) -> list[str]:
    found: dict[tuple, list[str]] = {}
    for r in result.table("alphas").rows:
        spread = "" if r["alpha_sd"] is None else f" ± {r['alpha_sd']:.2f}"
        found.setdefault((r["system"], r["stage"], r["task"], r["evaluation"]), []).append(f"{r['alpha']:.2f}{spread}")
    rows = [(*key, ", ".join(weights)) for key, weights in found.items()]
    head = ["system", "stage", "task", "evaluation", "alpha of layers 0, 1, ... (± standard deviation over seeds)"]
    return ["", "## What was listened to", "", *_table(head, rows), "", result.table("alphas").definition]


def _costs(result: AnalysisResult) -> list[str]:
    rows = [
        (r["system"], r["tasks"], r["steps"], f"{r['trainable']:,}", f"{r['train_cpu_seconds']:.0f}",
         f"{r['train_seconds']:.0f}", f"{r['evaluate_seconds']:.0f}", f"{r['speech_seconds'] / 60:.0f}")
        for r in result.table("costs").rows
    ]  # fmt: skip
    head = ["system", "tasks", "steps", "parameters that learn", "training (CPU s)", "training (s)", "scoring (s)",
            "speech heard (min)"]  # fmt: skip
    total = sum(r["seeds"] * (r["train_seconds"] + r["evaluate_seconds"]) for r in result.table("costs").rows)
    text = f"All cells together: {total / 60:.0f} minutes of one process."
    return ["", "## Cost of a cell", "", *_table(head, rows), "", text, "", result.table("costs").definition]


def _missing(result: AnalysisResult) -> list[str]:
    rows = [(r["system"], r["seed"], r["reason"]) for r in result.table("missing").rows]
    return ["", "## Missing", "", *_table(["system", "seed", "reason"], rows)] if rows else []
