"""The one-page HTML report of a result: self-contained, no network, every string escaped."""

import html
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")  # Okabe-Ito
DASHES = {"linear": "solid", "mlp": "dot"}
NAMES = {"ua": "UA", "word_ua": "UA, mean over words", "r2": "R²"}
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:1000px;margin:2rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}table{border-collapse:collapse;font-size:13px;width:100%}
td,th{padding:3px 8px;border-bottom:1px solid #ddd;text-align:left;vertical-align:top}th{background:#f4f4f4}
.scroll{overflow-x:auto}.small{color:#555;font-size:13px}.mind{background:#fff6df;padding:.5rem .8rem;border-radius:4px}
"""
COLUMNS = {
    "best": ("stage", "task", "target", "probe", "metric", "layers", "score", "over_majority", "over_logmel",
             "over_duration", "over_random", "verdict", "n", "speakers"),
    "layers": ("stage", "task", "layer", "target", "probe", "metric", "score", "control", "selectivity", "memorised",
               "in_best_set", "p_holm", "compression", "control_compression"),
    "baselines": ("features", "layer", "target", "probe", "metric", "score", "n", "speakers"),
    "targets": ("target", "kind", "unit", "classes", "counts", "n", "speakers", "grouped_by", "folds", "left_out",
                "caution", "definition"),
    "erasure": ("concept", "layer", "method", "rank", "task", "metric", "value", "change", "beyond_random",
                "concept_score", "n", "speakers"),
}  # fmt: skip
TITLES = {
    "best": "Which layers hold what", "layers": "All layers", "baselines": "Baselines",
    "targets": "What was asked", "erasure": "Erasing a concept",
}  # fmt: skip


def literal(value) -> str:
    """Plotly reads tags in labels; nothing of a manifest may be one."""
    return html.escape(str(value), quote=False)


def report_html(stored: Mapping) -> str:
    """One page of the dictionary that is written to NAME.json."""
    tables = {name: table["rows"] for name, table in stored["tables"].items()}
    title = f"Probes: {stored['name']}"
    parts = [f"<h1>{literal(title)}</h1><p>{literal(stored['question'])}</p>"]
    made = (
        f"{stored['model']}, {stored['utterances']} utterances, {stored['speakers']} speakers, seed {stored['seed']}, "
    )
    made += f"{stored['date']}"
    parts.append(f'<p class="small">{literal(made)}<br><code>{literal(stored["command"])}</code></p>')
    minds = [stored["caution"], *(f"{t['target']}: {t['caution']}" for t in tables.get("targets", ()) if t["caution"])]
    minds += list(stored.get("not_probed", ()))
    parts += [f'<p class="mind">{literal(mind)}</p>' for mind in minds if mind]
    if stored["verdicts"]:
        items = (f"<li><b>{literal(v['about'])}: {literal(v['verdict'])}.</b> {literal(v['evidence'])}</li>"
                 for v in stored["verdicts"])  # fmt: skip
        parts.append(f"<ul>{''.join(items)}</ul>")
    for place, (name, figure) in enumerate(figures(tables).items()):
        body = figure.to_html(full_html=False, include_plotlyjs=not place, config={"displaylogo": False})
        parts.append(f"<section><h2>{literal(name)}</h2>{body}</section>")
    for name, columns in COLUMNS.items():
        if rows := tables.get(name):
            parts.append(section(TITLES[name], stored["tables"][name]["definition"], rows, columns))
    head = f'<meta charset="utf-8"><title>{literal(title)}</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>'


def figures(tables: Mapping[str, Sequence[Mapping]]) -> dict[str, go.Figure]:
    """One a target: score over layers, a line a stage and probe, with its band; the baselines as levels."""
    found: dict[str, go.Figure] = {}
    for target in [row["target"] for row in tables.get("targets", ())]:
        rows = [row for row in tables.get("layers", ()) if row["target"] == target and row["score"] is not None]
        if not rows:
            continue
        figure, groups = go.Figure(), {}
        for row in rows:
            groups.setdefault((row["stage"], row["task"], row["probe"]), []).append(row)
        stages = sorted({key[:2] for key in groups}, key=lambda key: (key[0], key[1] or ""))
        for (stage, task, probe), group in groups.items():
            colour = COLOURS[stages.index((stage, task)) % len(COLOURS)]
            about = f"{stage} {task}" if task else stage
            add_line(figure, group, f"{about}, {probe}", colour, DASHES.get(probe, "dash"))
        levels = [r for r in tables.get("baselines", ()) if r["target"] == target and r["layer"] is None]
        for row in levels:
            if row["probe"] in (None, "linear") and row["score"] is not None and row["score"] > -1:
                figure.add_hline(y=row["score"], line={"width": 1, "dash": "dash", "color": "#777"},
                                 annotation={"text": literal(row["features"]), "font": {"size": 11}})  # fmt: skip
        random = [r for r in tables.get("baselines", ()) if r["target"] == target and r["layer"] is not None]
        if random := [r for r in random if r["probe"] == "linear"]:
            add_line(figure, random, "random encoder, linear", "#999999", "dash")
        figure.update_layout(
            height=360, margin={"l": 8, "r": 8, "t": 8, "b": 8}, xaxis={"title": "layer", "dtick": 1},
            yaxis={"title": NAMES.get(rows[0]["metric"], rows[0]["metric"])}, template="plotly_white",
        )  # fmt: skip
        found[f"{target}: score by layer"] = figure
    return found


def add_line(figure: go.Figure, rows: Sequence[Mapping], name: str, colour: str, dash: str):
    rows = sorted(rows, key=lambda row: row["layer"])
    layers, scores = [r["layer"] for r in rows], [r["score"] for r in rows]
    if all(r["score_low"] is not None for r in rows):
        edge = [r["score_high"] for r in rows] + [r["score_low"] for r in reversed(rows)]
        figure.add_scatter(
            x=layers + layers[::-1], y=edge, fill="toself", opacity=0.12, fillcolor=colour, line={"width": 0},
            mode="lines", hoverinfo="skip", showlegend=False,
        )  # fmt: skip
    marks = ["circle" if r.get("in_best_set") else "circle-open" for r in rows]
    figure.add_scatter(
        x=layers, y=scores, mode="lines+markers", name=literal(name), line={"color": colour, "dash": dash},
        marker={"symbol": marks, "size": 8},
    )  # fmt: skip


def section(title: str, definition: str, rows: Sequence[Mapping], columns: Sequence[str]) -> str:
    head = "".join(f"<th>{literal(column)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{shown(row, c)}</td>" for c in columns) + "</tr>" for row in rows)
    table = f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    return f'<section><h2>{literal(title)}</h2>{table}<p class="small">{literal(definition)}</p></section>'


def shown(row: Mapping, column: str) -> str:
    value = row.get(column)
    if value is None:
        return "all" if column == "layer" and "concept" in row and row.get("method") != "intact" else ""
    if isinstance(value, Mapping):
        return literal(", ".join(f"{k} ({v})" for k, v in value.items()))
    if isinstance(value, (list, tuple)):
        return literal(", ".join(map(str, value)))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, float):
        return literal(value)
    low, high = row.get(f"{column}_low"), row.get(f"{column}_high")
    return f"{value:.3f}" + (f" ({low:.3f} to {high:.3f})" if low is not None and high is not None else "")
