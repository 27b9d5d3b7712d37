"""What a result says, for a terminal: best layers, the scores of all layers, what to mind."""

from collections.abc import Mapping, Sequence

WIDEST = 14  # layers in a row of the table


def summary(stored: Mapping) -> str:
    """Of the dictionary that is written to NAME.json."""
    lines = [f"{stored['name']}: {stored['question']}"]
    lines.append(f"  {stored['model']}: {stored['utterances']} utterances, {stored['speakers']} speakers")
    lines += [f"  mind: {stored['caution']}"] if stored["caution"] else []
    lines += [f"  not probed: {reason}" for reason in stored.get("not_probed", ())]
    rows = {name: table["rows"] for name, table in stored["tables"].items()}
    for target in rows.get("targets", ()):
        if target["caution"]:
            lines.append(f"  mind, {target['target']}: {target['caution']}")
    lines += ["", *layer_lines(rows.get("layers", ())), ""]
    lines += [f"  {v['about']}: {v['verdict'].upper()}. {v['evidence']}" for v in stored["verdicts"]]
    if erased := rows.get("erasure"):
        lines += ["", *erasure_lines(erased)]
    return "\n".join(lines)


def layer_lines(rows: Sequence[Mapping]) -> list[str]:
    """Scores a layer; a star where the layer is not distinguishable from the best."""
    groups: dict[tuple, list[Mapping]] = {}
    for row in rows:
        groups.setdefault((row["stage"], row["task"], row["target"], row["probe"], row["metric"]), []).append(row)
    lines, layers = [], max((row["layer"] for row in rows), default=0) + 1
    shown = list(range(layers)) if layers <= WIDEST else sorted({round(i * (layers - 1) / 12) for i in range(13)})
    title = "  layer".ljust(38) + "".join(f"{layer:>8}" for layer in shown)
    for (stage, task, target, probe, metric), group in groups.items():
        about = f"{stage} {task}" if task else stage
        values = {row["layer"]: row for row in group}
        cells = [cell(values[layer]) if layer in values else " " * 8 for layer in shown]
        lines.append(f"  {about} / {target} ({metric}, {probe})".ljust(38) + "".join(cells))
    return [f"{title}   (* not distinguishable from the best)", *lines] if lines else []


def cell(row: Mapping) -> str:
    score = "-" if row["score"] is None else f"{row['score']:.3f}"
    return f"{score}{'*' if row['in_best_set'] else ' '}".rjust(8)


def erasure_lines(rows: Sequence[Mapping]) -> list[str]:
    lines = ["  erased         layer  method   task   change (95 %)               beyond random (95 %)"]
    for row in rows:
        if row.get("task") is None or row["method"] == "intact":
            continue
        layer = "all" if row["layer"] is None else row["layer"]
        change = f"{row['metric']} {interval(row, 'change')}"
        beyond = interval(row, "beyond_random") if row["beyond_random"] is not None else ""
        lines.append(f"  {row['concept']:<14} {layer:>5}  {row['method']:<8} {row['task']:<6} {change:<27} {beyond}")
    return lines


def interval(row: Mapping, name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return f"{row[name]:+.3f}" + ("" if low is None else f" ({low:+.3f} to {high:+.3f})")
