"""Sections to one HTML page that needs no network: plotly's script stands in it once, figures are JSON beside it.

Everything that comes from a run is escaped, and the page's own policy forbids every request and every script but the
two that are named by their hash. plotly itself is not imported: its script is read from the installed package.
"""

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

STYLE = """
:root{color-scheme:light dark;--text:#060b14;--muted:#566070;--line:#d8dee6;--back:#fff;--soft:#f3f5f8}
@media(prefers-color-scheme:dark){:root{--text:#e8ebf0;--muted:#a5afbd;--line:#363d47;--back:#14171c;--soft:#1e232a}}
body{font:15px/1.55 system-ui,sans-serif;color:var(--text);background:var(--back);max-width:1080px;margin:2rem auto;
padding:0 1rem;overflow-wrap:anywhere}
h1{font-size:1.6rem;margin:0}
h2{font-size:1.2rem;margin:2.2rem 0 .4rem;border-top:1px solid var(--line);padding-top:1rem}
h3{font-size:1rem;margin:1.2rem 0 .2rem}.small{color:var(--muted);font-size:.9rem}
.note{background:var(--soft);padding:.5rem .8rem;border-radius:6px}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.87rem}
td,th{padding:.25rem .6rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
td.number,th.number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
pre{white-space:pre-wrap;background:var(--soft);padding:.6rem .8rem;border-radius:6px}
"""
BOOT = """
const dark=matchMedia('(prefers-color-scheme: dark)').matches;
const ink=dark?'#e8ebf0':'#060b14',grid=dark?'#2e343d':'#e3e7ed';
for(const place of document.querySelectorAll('[data-figure]')){
  const figure=JSON.parse(document.getElementById(place.dataset.figure).textContent),layout=figure.layout;
  layout.font={family:'system-ui, sans-serif',size:13,color:ink};
  layout.paper_bgcolor=layout.plot_bgcolor='rgba(0,0,0,0)';
  for(const axis of Object.keys(layout).filter(k=>/^[xy]axis/.test(k)))
    Object.assign(layout[axis],{gridcolor:grid,zerolinecolor:grid,linecolor:grid,automargin:true});
  Plotly.newPlot(place,figure.data,layout,{displaylogo:false,responsive:true});
}
"""


class ReportError(RuntimeError):
    """The report cannot be made; the message names what is missing and the remedy."""


@dataclass(frozen=True)
class Figure:
    """title; spec: `data` and `layout` as plotly.js reads them, labels already literal; alt: the figure in words."""

    title: str
    spec: dict
    alt: str


@dataclass(frozen=True)
class Table:
    """columns; rows: of as many values each, text or numbers, None where a value is not available."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple, ...]


@dataclass(frozen=True)
class Section:
    """paragraphs: plain text. notes: set apart. commands: to copy. verdicts: (about, verdict, evidence)."""

    title: str
    paragraphs: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    verdicts: tuple[tuple[str, str, str], ...] = ()
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()


def literal(text, most: int = 60) -> str:
    """A label that plotly shows letter by letter: it would read tags and links otherwise."""
    text = " ".join(str(text).split())
    return html.escape(text if len(text) <= most else text[: most - 1] + "…", quote=False)


def render(title: str, lead: Sequence[str], sections: Sequence[Section]) -> str:
    """The whole page. Raises ReportError where plotly is not installed."""
    script = plotly_script()
    figures: list[Figure] = []
    body = "".join(_section(section, figures) for section in sections)
    data = "".join(
        f'<script type="application/json" id="figure-{place}">{_json(figure.spec)}</script>'
        for place, figure in enumerate(figures)
    )
    policy = (
        f"default-src 'none'; script-src {_source(script)} {_source(BOOT)}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    head = (
        f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{_text(title)}</title><style>{STYLE}</style>"
    )
    opening = f"<h1>{_text(title)}</h1>" + "".join(f'<p class="small">{_text(line)}</p>' for line in lead if line)
    scripts = f"{data}<script>{script}</script><script>{BOOT}</script>"
    return (
        f'<!doctype html><html lang="en"><head>{head}</head><body><main>{opening}{body}</main>{scripts}</body></html>\n'
    )


def plotly_script() -> str:
    """plotly.js as the installed plotly package carries it."""
    found = find_spec("plotly")  # looks the package up without importing it
    path = Path(found.origin).parent / "package_data" / "plotly.min.js" if found and found.origin else None
    if path is None or not path.is_file():
        raise ReportError("plotly is not installed, whose script the report carries: pip install -r requirements.txt")
    return path.read_text(encoding="utf-8").replace("</script", "<\\/script")


def _source(script: str) -> str:
    """The name of an inline script in a content security policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _json(value) -> str:
    """JSON that cannot end its script element."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c").replace(">", "\\u003e")


def _text(value) -> str:
    return html.escape(str(value))


def _section(section: Section, figures: list[Figure]) -> str:
    parts = [f"<section><h2>{_text(section.title)}</h2>"]
    parts += [f"<p>{_text(paragraph)}</p>" for paragraph in section.paragraphs]
    parts += [f'<p class="note">{_text(note)}</p>' for note in section.notes]
    parts += [f"<pre>{_text(command)}</pre>" for command in section.commands]
    if section.verdicts:
        items = (f"<li><b>{_text(a)}: {_text(v)}.</b> {_text(evidence)}</li>" for a, v, evidence in section.verdicts)
        parts.append(f"<ul>{''.join(items)}</ul>")
    for figure in section.figures:
        height = int(figure.spec["layout"].get("height", 320))
        parts.append(
            f'<h3>{_text(figure.title)}</h3><div class="scroll"><div data-figure="figure-{len(figures)}" role="img" '
            f'aria-label="{_text(figure.alt)}" style="min-width:560px;height:{height}px"></div></div>'
        )
        figures.append(figure)
    parts += [_table(table) for table in section.tables]
    return "".join([*parts, "</section>"])


def _table(table: Table) -> str:
    numeric = [any(_is_number(row[i]) for row in table.rows) for i in range(len(table.columns))]
    classes = [' class="number"' if is_number else "" for is_number in numeric]
    head = "".join(f"<th{c}>{_text(name)}</th>" for name, c in zip(table.columns, classes, strict=True))
    rows = "".join(
        "<tr>" + "".join(f"<td{c}>{_text(_shown(v))}</td>" for v, c in zip(row, classes, strict=True)) + "</tr>"
        for row in table.rows
    )
    title = f"<h3>{_text(table.title)}</h3>" if table.title else ""
    return f'{title}<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _shown(value) -> str:
    if value is None:
        return "not available"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
