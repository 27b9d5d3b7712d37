"""Result files as frames and rows of figures: exactly the file's numbers, gaps stay gaps, damage is named."""

import math

import numpy as np
import planted_results as planted
import pytest

from app import exports, findings
from app.figures.forest import MOST_ROWS, Estimate, enough_digits, forest, told
from app.figures.panels import BAR, LEVEL, Panel, Series, faded, panels
from app.palette import DARK, LIGHT
from harmonifuse_core.runs import RunError


@pytest.fixture
def found():
    return findings.finding_of(planted.faithfulness(), "analysis/faithfulness.json")


def test_a_finding_holds_exactly_the_files_rows(found):
    rows = planted.faithfulness()["tables"]["correlation"]["rows"]
    frame = found.frame("correlation")
    assert len(frame) == len(rows) and frame["rho"].tolist() == [row["rho"] for row in rows]
    assert frame["across"].isna().all() and found.definition("correlation") == "Definition of correlation."
    assert found.frame("no such table").empty and found.record["command"] == "python -m made.faithfulness"


@pytest.mark.parametrize(
    "stored", [{}, [], {"tables": {"a": 1}}, {"tables": {}, "verdicts": [{}], "name": "", "question": ""}]
)
def test_a_damaged_file_is_named(stored):
    with pytest.raises(RunError, match="x.json is damaged"):
        findings.finding_of(stored, "x.json")


def test_lists_in_cells_can_be_exported(found):
    frame = findings.finding_of(planted.probes(), "x").frame("best")
    assert frame["layers"].iloc[0] == "[1, 2]"
    assert exports.parquet_bytes(frame)[:4] == b"PAR1" and b"[1, 2]" in exports.csv_bytes(frame)


def test_estimates_leave_out_gaps_and_may_take_other_limits():
    table = findings.frame_of([
        {"a": 1.0, "a_low": 0.5, "a_high": 2.0, "b_low": None, "b_high": math.nan},
        {"a": None, "a_low": 1.0, "a_high": 2.0},
    ])  # fmt: skip
    assert findings.estimates(table, "a", lambda row: "x") == [Estimate("x", 1.0, 0.5, 2.0)]
    assert findings.estimates(table, "a", lambda row: "x", limits="b") == [Estimate("x", 1.0)]


def test_only_keeps_rows_and_asks_for_gaps():
    table = findings.frame_of([{"task": None, "x": 1}, {"task": "asr", "x": 2}])
    assert findings.only(table, task=None)["x"].tolist() == [1] and findings.only(table, task="asr")["x"].tolist() == [
        2
    ]
    assert findings.only(table, nothing=3).empty and findings.values(table, "task") == ["asr"]


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_a_forest_draws_values_and_whiskers_exactly_and_writes_them(theme):
    rows = [Estimate("one <b>", 0.25, 0.125, 0.5, "g"), Estimate("two", -0.5, None, None, "h")]
    figure = forest(rows, theme, title="axis")
    first, second = figure.data
    assert list(first.x) == [0.25] and list(first.y) == [0]
    assert list(first.error_x.array) == [0.25] and list(first.error_x.arrayminus) == [0.125]
    assert list(second.x) == [-0.5] and list(second.y) == [1] and list(second.error_x.array) == [0]
    texts = [a.text for a in figure.layout.annotations]
    assert texts == ["one &lt;b&gt;: <b>+0.250 [+0.125, +0.500]</b>", "two: <b>-0.500 (no interval)</b>"]
    low, high = figure.layout.xaxis.range
    assert low < -0.5 and high > 0.5 and first.marker.symbol != second.marker.symbol


def test_a_forest_is_bounded_and_bare_without_intervals():
    with pytest.raises(ValueError, match="too many"):
        forest([Estimate("x", 0.0)] * (MOST_ROWS + 1), LIGHT)
    assert forest([Estimate("x", 0.5)], LIGHT, signed=False).layout.annotations[0].text == "x: <b>0.500</b>"
    assert told(Estimate("x", 1.0, 0.0, 2.0), signed=False, digits=1) == "1.0 [0.0, 2.0]"
    small = [Estimate("x", 0.00012, 0.0, 0.00034), Estimate("y", 0.00001)]
    assert enough_digits(small, 3) == 5 and enough_digits([Estimate("z", 0.0)], 3) == 3
    assert enough_digits([*small, Estimate("z", 0.5)], 3) == 3
    assert "+0.00012 [+0.00000, +0.00034]" in " ".join(a.text for a in forest(small, LIGHT).layout.annotations)


def test_panels_draw_bands_bars_and_levels_and_name_layers():
    line = Series("alpha", (0.0, 1.0), (0.25, 0.75), (0.125, None), (0.5, None))
    bar = Series("damage", (0.0, 1.0), (1.0, None), (0.5, 0.0), (2.0, 0.0), BAR)
    level = Series("chance", (-0.5, 1.5), (0.5, 0.5), kind=LEVEL)
    figure = panels([Panel("weights", (line, level)), Panel("cost", (bar,), (0, 3))], LIGHT, layers=2)
    high, low, drawn, flat, bars = figure.data
    assert list(high.y) == [0.5] and list(low.y) == [0.125] and low.fill == "tonexty"
    assert list(drawn.y) == [0.25, 0.75] and list(flat.y) == [0.5, 0.5]
    assert list(bars.y) == [1.0, None] and list(bars.error_y.array) == [1.0, 0.0]
    assert list(figure.layout.xaxis2.ticktext) == ["input", "1"] and list(figure.layout.yaxis2.range) == [0, 3]
    assert [a.text for a in figure.layout.annotations] == ["weights", "cost"]
    assert [t.name for t in figure.data if t.showlegend is not False] == ["alpha", "chance", "damage"]


def test_curves_are_sorted_and_hold_the_tables_numbers(found):
    rows = findings.only(found.frame("curves"), task="asr", stage="lm", curve="deletion", ranking="alpha")
    drawn = findings.curve(rows.iloc[::-1], "loss_change", "alpha", "layers")
    assert drawn.x == (1.0, 2.0) and drawn.values == (1.0, 2.0)
    assert np.allclose(drawn.low, (0.9, 1.9)) and np.allclose(drawn.high, (1.1, 2.1))
    assert findings.curve(rows, "loss_change", "a", "layers", band=False).low == ()


def test_faded_keeps_the_colour():
    assert faded("#ff8000", 0.5) == "rgba(255,128,0,0.5)"
