"""Figures: the numbers that were given, on the range that was promised, in colours that can be read. No streamlit."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from app import palette
from app.figures import base, classes, sound, training, weights

APP = Path(base.__file__).resolve().parents[1]
THEMES = [palette.LIGHT, palette.DARK]
GRID = np.array([[0.1, 0.2, 0.7], [0.5, 0.3, 0.2]])


def test_pure_modules_never_import_streamlit():
    modules = "palette, tables, comparison, checks, exports, routing_query, routing_views, overview, layer_tables"
    code = (
        f"import sys; from app import {modules}; from app.figures import weights, classes, training, sound, scatter; "
    )
    done = subprocess.run([sys.executable, "-c", code + "sys.exit('streamlit' in sys.modules)"], cwd=APP.parent)
    assert done.returncode == 0


@pytest.mark.parametrize("theme", THEMES, ids=lambda t: t.name)
def test_text_colours_have_enough_contrast(theme):
    for colour in (theme.text, theme.muted, theme.accent, *theme.tasks):
        assert palette.contrast(colour, theme.surface) >= 4.5, colour


@pytest.mark.parametrize("colours", [palette.CIVIDIS, palette.DIVERGING_LIGHT, palette.DIVERGING_DARK])
def test_values_in_cells_are_legible_on_every_colour_of_every_scale(colours):
    scale = palette.colour_scale(colours)
    for place in np.linspace(0, 1, 101):
        background = palette.scale_colour(scale, place)
        assert palette.contrast(palette.legible_on(background), background) >= 4.5


def test_contrast_of_black_and_white_is_21():
    assert palette.contrast("#000000", "#ffffff") == pytest.approx(21)


def test_scale_colour_meets_its_stops_and_mixes_between_them():
    scale = palette.colour_scale(("#000000", "#ffffff"))
    assert [palette.scale_colour(scale, p) for p in (-1, 0, 0.5, 1, 2)] == ["#000000"] * 2 + ["#808080"] + [
        "#ffffff"
    ] * 2


@pytest.mark.parametrize(
    ("values", "expected"), [([0.04], 0.05), ([0.2, 0.1], 0.2), ([0.53], 0.75), ([1.0], 1.0), ([], 0.05)]
)
def test_shared_maximum_is_the_least_round_number_that_holds_all(values, expected):
    assert palette.shared_maximum(values) == expected


def test_emotions_have_distinct_colours_in_constant_order():
    labels = ("neutral", *palette.EMOTION_COLOURS)
    for theme in THEMES:
        colours = [palette.class_colour(label, i, theme) for i, label in enumerate(labels)]
        assert len(set(colours)) == len(labels) == 8
        assert colours == [palette.class_colour(label, 7 - i, theme) for i, label in enumerate(labels)]


@pytest.mark.parametrize("theme", THEMES, ids=lambda t: t.name)
def test_task_map_shows_every_value_on_the_shared_range(theme):
    figure = weights.task_layers(GRID, ["asr", "ser"], 0.75, theme)
    cells, texts = figure.data
    assert np.array_equal(np.array(cells.z), GRID)
    assert (cells.zmin, cells.zmax) == (0, 0.75)
    assert list(figure.layout.xaxis.ticktext) == ["input", "1", "2"]
    assert list(figure.layout.yaxis.ticktext) == ["ASR", "SER"]
    assert list(texts.text) == [f"{v:.2f}" for v in GRID.ravel()]


def test_values_are_not_written_where_more_than_25_stand_side_by_side():
    assert len(weights.task_layers(np.full((1, 25), 0.04), ["asr"], 0.05, palette.LIGHT).data) == 2
    assert len(weights.task_layers(np.full((1, 26), 0.04), ["asr"], 0.05, palette.LIGHT).data) == 1


def test_difference_is_centred_at_zero_and_leaves_gaps_where_a_stage_has_fewer_layers():
    grid = np.array([[0.1, -0.3, 0.2], [0.1, -0.1, np.nan]])
    figure = weights.difference(grid, ["encoder", "lm"], palette.LIGHT)
    assert figure.data[0].zmin == -figure.data[0].zmax == pytest.approx(-0.3)
    assert list(figure.data[1].text) == ["+0.100", "-0.300", "+0.200", "+0.100", "-0.100"]


def test_a_difference_of_rounding_noise_does_not_fill_the_scale():
    assert weights.difference(np.array([[1e-9, -1e-9]]), ["lm"], palette.LIGHT).data[0].zmax == 0.01


def test_tokens_are_cut_at_200_and_stay_literal():
    alpha = np.full((300, 3), 1 / 3)
    figure = weights.token_layers(alpha, ["<b>x</b>", *["a"] * 299], 0.5, palette.LIGHT)
    assert np.array(figure.data[0].z).shape == (3, 200)
    assert figure.layout.xaxis.ticktext[0] == "&lt;b&gt;x&lt;/b&gt;"
    assert figure.layout.width == weights.token_width(200) == weights.token_width(300)


def test_training_map_is_thinned_to_200_steps_with_both_ends():
    steps = list(range(0, 5000, 10))
    figure = weights.over_training(steps, np.full((500, 3), 1 / 3), 0.5, palette.LIGHT)
    assert np.array(figure.data[0].z).shape == (3, 200)
    assert (figure.layout.xaxis.ticktext[0], figure.layout.xaxis.ticktext[-1]) == ("0", "4990")


def test_heatmap_refuses_too_many_cells_and_wrong_shapes():
    scale = palette.colour_scale(palette.CIVIDIS)
    with pytest.raises(ValueError, match="at most 200"):
        base.heatmap(np.zeros((1, 201)), ["r"], ["c"] * 201, scale, 0, 1, palette.LIGHT)
    with pytest.raises(ValueError, match="2 rows and 1 columns"):
        base.heatmap(np.zeros((1, 1)), ["a", "b"], ["c"], scale, 0, 1, palette.LIGHT)


def test_probability_bars_print_every_value_and_mark_the_winner():
    figure = classes.probability_bars({"neutral": 0.2, "happy": 0.7, "sad": 0.1}, palette.DARK)
    assert list(figure.data[0].x) == [0.2, 0.7, 0.1]
    assert [t.strip() for t in figure.data[0].text] == ["0.20", "0.70  ◀", "0.10"]
    assert list(figure.layout.yaxis.ticktext) == ["neutral", "happy", "sad"]


def test_confusion_rows_are_shares_and_an_empty_row_is_zero():
    figure = classes.confusion([[3, 1], [0, 0]], ["a", "b"], palette.LIGHT)
    assert np.array(figure.data[0].z).tolist() == [[0.75, 0.25], [0, 0]]
    assert list(figure.layout.yaxis.ticktext) == ["a (4)", "b (0)"]


def test_recall_of_an_absent_class_says_so():
    figure = classes.recall_bars({"a": 0.5, "b": None}, palette.LIGHT)
    assert [t.strip() for t in figure.data[0].text] == ["0.50", "no utterance"]


def test_sound_keeps_the_loudest_of_pooled_frames():
    mel = np.full((4, 5000), -80.0)
    mel[2, 4321] = 0.0
    pooled = sound.pooled_columns(mel, 100)
    assert pooled.shape == (4, 100) and pooled[2].max() == 0.0
    figure = sound.waveform_and_mel(np.array([-0.5, -0.1]), np.array([0.5, 0.1]), mel, 2.0, palette.LIGHT)
    assert np.array(figure.data[2].z).shape == (4, sound.MOST_COLUMNS)
    assert tuple(figure.layout.yaxis.range) == (-0.5, 0.5)


def test_curves_tell_series_apart_without_colour_and_thin_long_ones():
    table = pd.DataFrame(
        {"step": [*range(3000)] * 2, "kind": "loss", "series": ["asr"] * 3000 + ["ser"] * 3000, "value": 1.0}
    )
    figure = training.curves(table, "loss", palette.LIGHT)
    assert [t.name for t in figure.data] == ["asr", "ser"]
    assert len({t.line.dash for t in figure.data}) == 2
    assert all(len(t.x) == training.MOST_POINTS and t.x[-1] == 2999 for t in figure.data)


def test_scores_carry_their_intervals():
    table = pd.DataFrame({"evaluation": ["test"], "key": ["wer"], "value": [0.2], "low": [0.15], "high": [0.3]})
    bar = training.scores_with_intervals(table, palette.LIGHT).data[0].error_x
    assert (bar.array[0], bar.arrayminus[0]) == (pytest.approx(0.1), pytest.approx(0.05))


@pytest.mark.parametrize("theme", THEMES, ids=lambda t: t.name)
def test_every_figure_lies_on_the_page_and_names_no_fixed_background(theme):
    figure = weights.alpha_lines([1, 2], GRID, 0.75, theme)
    assert isinstance(figure, go.Figure)
    look = figure.layout.template.layout
    assert look.paper_bgcolor == look.plot_bgcolor == "rgba(0,0,0,0)" and look.font.color == theme.text
    assert figure.layout.paper_bgcolor is None and figure.layout.font.color is None, "nothing overrides the look"


def test_literal_shortens_and_escapes():
    assert base.literal("<a href=x>" + "y" * 50) == "&lt;a href=x&gt;" + "y" * 29 + "…"
