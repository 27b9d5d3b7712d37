"""Figures are drawn once for equal arguments, and again for anything that differs."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from app.figures import memory


@dataclass(frozen=True)
class Row:
    name: str
    value: float | None


@pytest.fixture
def draw():
    memory._kept.clear()
    calls = []

    @memory.remembered
    def drawn(*args, **kwargs) -> go.Figure:
        calls.append(args)
        return go.Figure()

    drawn.calls = calls
    yield drawn
    memory._kept.clear()


EQUAL = [
    lambda: (np.eye(2), ["a", "b"], 0.5), lambda: (pd.DataFrame({"x": [1.0, None], "y": ["a", "b"]}),),
    lambda: ((Row("a", 1.0), Row("b", None)),), lambda: ({"a": [1, 2], "b": None}, True, range(3), np.float32(2)),
]  # fmt: skip


@pytest.mark.parametrize("make", EQUAL)
def test_equal_arguments_are_drawn_once(draw, make):
    assert draw(*make(), theme="light") is draw(*make(), theme="light") and len(draw.calls) == 1
    draw(*make(), theme="dark")
    assert len(draw.calls) == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.eye(2), np.eye(2).T + 1e-12), (np.zeros(4), np.zeros((2, 2))), (np.zeros(2), np.zeros(2, np.float32)),
        ([1, 2], [12]), (["ab", "c"], ["a", "bc"]), (1, 1.0), (1, True), (None, "None"), ({"a": 1}, {"b": 1}),
        (Row("a", 1.0), Row("a", 2.0)), (pd.DataFrame({"x": [1]}), pd.DataFrame({"y": [1]})), ([[1], 2], [[1, 2]]),
        (float("nan"), 0.0), ((), []),
    ],
)  # fmt: skip
def test_what_differs_is_drawn_anew(draw, one, other):
    draw(one), draw(other)
    assert len(draw.calls) == 2


def test_large_and_strange_arguments_are_not_kept(draw):
    big = np.zeros(memory.LARGEST)
    draw(big), draw(big), draw(object()), draw(np.array([object()])), draw("x" * 2 * memory.LARGEST)
    assert len(draw.calls) == 5 and not memory._kept


def test_only_the_latest_are_kept(draw):
    for number in range(memory.MOST + 5):
        draw(number)
    draw(memory.MOST + 4)
    assert len(memory._kept) == memory.MOST and len(draw.calls) == memory.MOST + 5
    draw(0)
    assert len(draw.calls) == memory.MOST + 6
