"""Room for labels is found before the browser draws, and nothing makes plotly draw a chart twice."""

import json

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import plotly.io as pio
import pytest

from app import palette
from app.figures import base, classes, forest, margins, panels, scatter, sound, training, utterance, weights
from app.figures.margins import fitted, numbers, text_width

GRID = np.array([[0.1, 0.2, 0.7], [0.5, 0.3, 0.2]])
LONG = "a corpus with quite a long name, child"
POINTS = pd.DataFrame({"x": [0.1, 0.2], "y": [0.1, 0.25], "utterance": ["u", "v"], "label": ["a", "b"], "error": 0.5})
FLAT = np.zeros(4, np.float32)
SPANS, TOKENS = np.array([[0.0, 0.5], [0.6, 1.0]]), np.array([[0.4, 0.6], [0.5, 0.5]])


def drawn(theme=palette.LIGHT) -> dict[str, go.Figure]:
    """One figure of every kind."""
    log = pd.DataFrame({"step": [1, 2], "kind": "loss", "series": "asr", "value": [0.5, 0.4]})
    scores = pd.DataFrame({"evaluation": [LONG], "key": ["wer"], "value": [0.2], "low": [0.1], "high": [0.3]})
    bins = [{"count": 3, "confidence": 0.5, "accuracy": 0.4}]
    row = panels.Panel("score", (panels.Series("a", (0, 1, 2), (0.1, 0.2, 0.3), (0.0, 0.1, 0.2), (0.2, 0.3, 0.4)),))
    return {
        "tasks": weights.task_layers(GRID, ["asr", "ser"], 0.75, theme),
        "groups": weights.named_layers(GRID, [LONG, "b"], 0.75, theme),
        "difference": weights.difference(GRID - 0.3, ["a", "b"], theme),
        "tokens": weights.token_layers(GRID, ["one", "two"], 0.75, theme),
        "over training": weights.over_training([1, 2], GRID, 0.75, theme),
        "lines": weights.alpha_lines([1, 2], GRID, 0.75, theme),
        "bars": classes.probability_bars({"sad": 0.4, "happy": 0.6}, theme),
        "changes": classes.probability_changes({"sad": 0.4, "happy": -0.4}, theme),
        "confusion": classes.confusion([[3, 1], [0, 2]], ["sad", "surprised"], theme),
        "recall": classes.recall_bars({"sad": 0.4, "happy": None}, theme),
        "reliability": classes.reliability(bins, theme),
        "forest": forest.forest([forest.Estimate("a", 0.1, 0.0, 0.2)], theme),
        "panels": panels.panels([row, row], theme, layers=3),
        "points": scatter.scatter(POINTS, "label", ("first", "second"), theme),
        "shades": scatter.scatter(POINTS, "error", ("first", "second"), theme),
        "curves": training.curves(log, "loss", theme),
        "scores": training.scores_with_intervals(scores, theme),
        "sound": sound.waveform_and_mel(FLAT, FLAT, np.zeros((4, 8)), 1.0, theme),
        "timeline": utterance.token_timeline(FLAT, FLAT, 1.0, SPANS, TOKENS, ["one", "two"], 1.0, theme),
        "attribution": utterance.attribution_timeline(FLAT, FLAT, 1.0, SPANS, np.array([0.1, -0.2]), theme),
        "damage": utterance.damage(GRID, ["asr", "ser"], 1.0, theme),
    }


@pytest.fixture(scope="module")
def sent() -> dict[str, dict]:
    """What the browser gets."""
    return {name: json.loads(pio.to_json(figure, validate=False)) for name, figure in drawn().items()}


def test_no_figure_asks_plotly_to_look_for_its_margins(sent):
    for name, figure in sent.items():
        axes = {key: value for key, value in figure["layout"].items() if key[1:5] == "axis"}
        assert len(axes) >= 2 and all(axis["automargin"] is False for axis in axes.values()), name


def test_nothing_is_sent_that_plotly_takes_for_a_change_when_it_comes_again(sent):
    """Templates always, and arrays of numbers that are encoded (tables of cells are compared by their rows)."""
    for name, figure in sent.items():
        assert "template" not in figure["layout"] and figure["layout"]["datarevision"] == 1, name
        for trace in figure["data"]:
            values = [trace.get(part) for part in ("x", "y", "customdata")] + [trace.get("marker", {}).get("color")]
            assert not any(isinstance(value, dict) and "shape" not in value for value in values), name


def test_the_look_is_written_out_and_yields_to_what_a_figure_says(sent):
    layout = sent["panels"]["layout"]
    assert layout["paper_bgcolor"] == "rgba(0,0,0,0)" and layout["font"]["color"] == palette.LIGHT.text
    for axis in ("xaxis", "xaxis2", "yaxis", "yaxis2"):
        assert layout[axis]["gridcolor"] == palette.LIGHT.grid, axis
    assert layout["xaxis2"]["title"] == {"text": "layer", "standoff": 6, "font": layout["xaxis"]["title"]["font"]}
    assert layout["margin"]["t"] == 26 and layout["xaxis"]["showgrid"] is False


@pytest.mark.parametrize("name", ["groups", "scores"])
def test_long_labels_get_their_room(sent, name):
    labels = sent[name]["layout"]["yaxis"]["ticktext"]
    assert sent[name]["layout"]["margin"]["l"] >= max(map(text_width, labels)) > 150


def test_room_grows_with_titles_and_turned_labels_and_only_where_an_axis_stands():
    def room(**axis) -> dict:
        figure = base.Figure(go.Scatter(x=[0, 1], y=[0.5, 0.9]))
        return fitted(base.styled(figure, palette.LIGHT, 200).update_layout(**axis)).layout.margin

    plain = room()
    assert room(yaxis={"title": "score"}).l == plain.l + margins.TITLE
    assert room(xaxis={"title": "layer"}).b == plain.b + margins.TITLE
    words = {"tickvals": [0], "ticktext": ["surprised"]}
    assert room(xaxis=words).b == plain.b < room(xaxis=words | {"tickangle": -60}).b
    assert room(yaxis={"showticklabels": False}).l == margins.LEAST
    assert room(xaxis={"side": "top"}).t > plain.t and room(xaxis={"side": "top"}).b == margins.LEAST


def test_letters_are_counted_as_they_are_read():
    assert text_width("&amp;") < text_width("amp;") and text_width("<b>x</b>") == text_width("x")
    assert text_width("mmm") > text_width("ooo") > text_width("iii") and text_width("語") > text_width("m")


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, ["0.0", "1.0"]), (-0.05, 0.12, ["-0.05", "0.12"]), (0, 40, ["0", "40"]), (3, 3, [margins.UNKNOWN]),
     (0, 2e-5, [margins.UNKNOWN]), (0, 5e4, [margins.UNKNOWN]), (-np.inf, np.inf, [margins.UNKNOWN])],
)  # fmt: skip
def test_numbers_are_as_long_as_plotly_writes_them(low, high, expected):
    assert numbers(low, high) == expected
