"""Every colour of the dashboard, for light and dark. Pure: no streamlit, no plotly.

Alpha and accuracies: Cividis from 0 to a shared maximum. Signed values: a diverging map centred at 0. Classes:
Okabe-Ito (made for colour-blind readers), always with the class's name beside the colour.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# Nunez, Anderton & Renslow 2018, sampled: dark blue to yellow, even in lightness, alike for most colour visions
CIVIDIS = (
    "#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#e1cc55", "#fee838",
)  # fmt: skip
DIVERGING_LIGHT = ("#0b4a8f", "#3f7fc0", "#9dc3e6", "#f4f4f2", "#f3b48a", "#d1682f", "#8a3206")
DIVERGING_DARK = ("#7cc0ff", "#3f86c9", "#26517a", "#24262b", "#7d4526", "#d2743a", "#ffb27a")
STEPS = (0.05, 0.1, 0.2, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Theme:
    """Colours of one mode. Text on `surface` has a contrast of at least 4.5 : 1 (tests measure it)."""

    name: str
    surface: str
    text: str
    muted: str
    grid: str
    accent: str
    neutral_class: str
    diverging: tuple[str, ...]
    tasks: tuple[str, ...]


LIGHT = Theme(
    "light", "#ffffff", "#060b14", "#566070", "#e3e7ed", "#1f5fa8", "#33383f", DIVERGING_LIGHT,
    ("#1f5fa8", "#a8480a", "#0b7a5c", "#8a3c78", "#5c5c00", "#3f4a5a"),
)  # fmt: skip
DARK = Theme(
    "dark", "#14171c", "#e8ebf0", "#a5afbd", "#2e343d", "#7fb6f2", "#d9dde3", DIVERGING_DARK,
    ("#7fb6f2", "#f0a15e", "#4fc3a1", "#d99ac8", "#d6cf5a", "#b8c2d0"),
)  # fmt: skip
THEMES = {theme.name: theme for theme in (LIGHT, DARK)}

OKABE_ITO = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")
EMOTION_COLOURS = {
    "calm": "#56b4e9", "happy": "#f0e442", "sad": "#0072b2", "angry": "#d55e00", "fearful": "#cc79a7",
    "disgust": "#009e73", "surprised": "#e69f00",
}  # fmt: skip
SYMBOLS = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "star", "x")
LINE_STYLES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")


def class_colour(label: str, index: int, theme: Theme) -> str:
    """Okabe-Ito colour of a class: emotions have theirs, other labels take one by their place in the label list."""
    if label == "neutral":
        return theme.neutral_class
    return EMOTION_COLOURS.get(label) or OKABE_ITO[index % len(OKABE_ITO)]


def class_symbol(index: int) -> str:
    return SYMBOLS[index % len(SYMBOLS)]


def task_colour(index: int, theme: Theme) -> str:
    return theme.tasks[index % len(theme.tasks)]


def line_style(index: int) -> str:
    return LINE_STYLES[index % len(LINE_STYLES)]


def colour_scale(colours: Sequence[str]) -> list[list]:
    """Evenly spaced stops, as plotly takes them."""
    last = len(colours) - 1
    return [[index / last, colour] for index, colour in enumerate(colours)]


def shared_maximum(values: Iterable[float]) -> float:
    """Upper end of a colour range for weights: the least round number that holds all of them, so that maps compare."""
    largest = max((float(v) for v in values if math.isfinite(v)), default=0.0)
    return next((step for step in STEPS if largest <= step), 1.0)


def shared_extent(values: Iterable[float], least: float = 0.01) -> float:
    """Half width of a range centred at 0. At least `least`, so that rounding noise never fills the whole scale."""
    return max(least, max((abs(float(v)) for v in values if math.isfinite(v)), default=0.0))


def scale_colour(scale: Sequence[Sequence], place: float) -> str:
    """The `#rrggbb` of a colour scale at `place`, 0 to 1, mixed as plotly mixes it."""
    place = min(1.0, max(0.0, place))
    for (low, first), (high, second) in zip(scale, scale[1:], strict=False):
        if place <= high:
            share = (place - low) / (high - low)
            pairs = ((int(first[i : i + 2], 16), int(second[i : i + 2], 16)) for i in (1, 3, 5))
            return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in pairs)
    return scale[-1][1]


def legible_on(background: str) -> str:
    """Black or white: one of the two always has a contrast of at least 4.5 : 1."""
    return max(("#000000", "#ffffff"), key=lambda colour: contrast(colour, background))


def contrast(first: str, second: str) -> float:
    """WCAG 2 contrast ratio of two `#rrggbb` colours, 1 to 21."""
    lighter, darker = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
