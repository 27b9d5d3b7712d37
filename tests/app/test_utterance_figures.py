"""Figures of one utterance: cells lie at the tokens' times, scores and damage keep their numbers."""

import numpy as np
import pytest

from app.figures.utterance import attribution_timeline, damage, timeline_width, token_cells, token_timeline
from app.palette import DARK, LIGHT

WAVE = np.linspace(-0.5, 0.5, 20)
SPANS = np.array([[0.0, 0.4], [0.4, 0.4], [0.9, 1.2]])


def test_cells_cover_the_tokens_and_leave_gaps_open():
    edges, columns = token_cells(SPANS)
    assert columns == [0, 1, -1, 2] and (np.diff(edges) > 0).all()
    assert edges == pytest.approx([0.0, 0.4, 0.401, 0.9, 1.2])


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_each_tokens_alpha_stands_in_its_cell(theme):
    alpha = np.array([[0.1, 0.9], [0.2, 0.8], [0.3, 0.7]])
    figure = token_timeline(WAVE - 1, WAVE, 2.0, SPANS, alpha, ["<b>a</b>", " ", "c"], 1.0, theme)
    cells = next(trace for trace in figure.data if trace.type == "heatmap")
    assert pytest.approx(alpha) == np.array(cells.z)[:, [0, 1, 3]].T and np.isnan(np.array(cells.z)[:, 2]).all()
    assert figure.layout.xaxis2.ticktext == ("&lt;b&gt;a&lt;/b&gt;", "␣", "c")
    assert figure.layout.xaxis2.tickvals == pytest.approx(SPANS.mean(1))
    assert figure.layout.width == timeline_width(3, 2.0)


def test_damage_and_scores_are_centred_at_zero():
    grid = np.array([[0.5, -0.1, 0.0]])
    figure = damage(grid, ["ser"], 0.5, LIGHT)
    assert (figure.data[0].zmin, figure.data[0].zmax) == (-0.5, 0.5) and np.allclose(figure.data[0].z, grid)
    over = attribution_timeline(WAVE - 1, WAVE, 1.0, np.array([[0, 0.5], [0.5, 1.0]]), np.array([2.0, -1.0]), LIGHT)
    bars = next(trace for trace in over.data if trace.type == "bar")
    assert list(bars.y) == [2.0, -1.0] and list(bars.width) == [0.5, 0.5]
    assert bars.marker.color[0] != bars.marker.color[1]
    low, high = over.layout.yaxis2.range
    assert low == -high and high > 2


def test_without_a_waveform_the_scores_stand_alone():
    figure = attribution_timeline([], [], 1.0, np.array([[0.0, 1.0]]), np.array([1.0]), LIGHT)
    assert len(figure.data) == 3
