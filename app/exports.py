"""What leaves the dashboard: tables as CSV and Parquet, figures as one offline HTML file, answers as JSON."""

import html
import io
import json
from collections.abc import Mapping, Sequence

import pandas as pd
import plotly.graph_objects as go

from harmonifuse_core.model.harmonifuse import HarmoniFuseOutput, LayerWeights

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def csv_bytes(table: pd.DataFrame) -> bytes:
    """UTF-8 CSV with full precision. Text that a spreadsheet would run as a formula gets a leading apostrophe."""
    safe = table.copy()
    for column in safe.columns:
        if not pd.api.types.is_numeric_dtype(safe[column]):
            safe[column] = [_inert(value) for value in safe[column]]
    return safe.to_csv(index=False).encode()


def _inert(value):
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) else value


def parquet_bytes(table: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    return buffer.getvalue()


def html_bytes(title: str, figures: Mapping[str, go.Figure], background: str, text: str) -> bytes:
    """One page with all figures, interactive without a network: plotly's script stands in it once."""
    parts = []
    for place, (name, figure) in enumerate(figures.items()):
        roomy = go.Figure(figure).update_xaxes(automargin=True).update_yaxes(automargin=True)  # other letters there
        body = roomy.to_html(full_html=False, include_plotlyjs=not place, config={"displaylogo": False})
        parts.append(f"<section><h2>{html.escape(name)}</h2>{body}</section>")
    style = f"body{{font-family:system-ui;background:{background};color:{text};max-width:1100px;margin:2rem auto}}"
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{style}</style>'
    page = f"<!doctype html><html><head>{head}</head><body><h1>{html.escape(title)}</h1>{''.join(parts)}</body></html>"
    return page.encode()


def answers_json(answers: Sequence[HarmoniFuseOutput], extra: Mapping) -> bytes:
    """All numbers of all answers, full float32 precision."""
    value = {**extra, "answers": {answer.task: _answer(answer) for answer in answers}}
    return json.dumps(value, indent=1, ensure_ascii=False).encode()


def _answer(answer: HarmoniFuseOutput) -> dict:
    value = {"prompt": answer.prompt, "encoder": _weights(answer.encoder), "lm": _weights(answer.lm)}
    if answer.text is None:
        return value | {"label": answer.label, "probabilities": answer.probabilities}
    return value | {
        "text": answer.text, "truncated": answer.truncated, "tokens": list(answer.tokens),
        "token_logprobs": answer.token_logprobs.tolist(),
        "token_weights": _weights(answer.token_weights) if answer.token_weights else None,
    }  # fmt: skip


def _weights(weights: LayerWeights) -> dict:
    return {name: getattr(weights, name).tolist() for name in ("alpha", "share", "bias", "score")}
