"""The explorer's figure: every point once, with its row's place; groups in a constant order; letters stay letters."""

import numpy as np
import pandas as pd
import pytest

from app.figures.scatter import MOST_GROUPS, NONE, OTHER, groups, scatter
from app.palette import DARK, LIGHT, class_colour


def table(**columns) -> pd.DataFrame:
    n = len(next(iter(columns.values())))
    return pd.DataFrame(
        {"x": np.arange(n) / 10, "y": -np.arange(n) / 10, "utterance": [f"u{i}" for i in range(n)]} | columns
    )


def places(figure) -> list[int]:
    return [int(entry[0]) for trace in figure.data for entry in trace.customdata]


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=lambda t: t.name)
def test_every_point_is_drawn_once_and_knows_its_row(theme):
    rows = table(label=["sad", "happy", None, "sad"])
    figure = scatter(rows, "label", ("a", "b"), theme)
    assert sorted(places(figure)) == [0, 1, 2, 3]
    assert [t.name for t in sorted(figure.data, key=lambda t: t.legendrank)] == ["happy (1)", "sad (2)", f"{NONE} (1)"]
    sad = figure.data[0]  # the largest group lies below the others
    assert places(figure)[:2] == [0, 3] and sad.x.tolist() == pytest.approx([0, 0.3])
    assert sad.marker.color == class_colour("sad", 1, theme)


def test_rare_groups_share_one_name():
    values = pd.Series([f"g{i:02d}" for i in range(MOST_GROUPS + 3)] + ["g09"] * 5)
    names, group = groups(values)
    assert len(names) == MOST_GROUPS + 1 and names[-1] == OTHER and "g09" in names and names[:-1] == sorted(names[:-1])
    assert (group >= 0).all() and names[group[-1]] == "g09"


def test_numbers_are_shaded_and_missing_ones_stay_hollow():
    figure = scatter(table(error=[0.0, 0.5, np.nan, 1.0]), "error", ("a", "b"), LIGHT)
    shaded, hollow = figure.data
    assert shaded.marker.color.tolist() == [0.0, 0.5, 1.0] and shaded.marker.showscale
    assert hollow.marker.symbol == "circle-open" and hollow.name == f"{NONE} (1)"
    scatter(table(error=[0.5, 0.5]), "error", ("a", "b"), LIGHT)  # one value: no empty range


def test_names_from_outside_stay_letters(hostile):
    figure = scatter(table(label=[hostile, hostile]).assign(utterance=hostile), "label", ("a", "b"), LIGHT)
    said = str(figure.to_dict())
    assert "<img" not in said and "&lt;img" in said
