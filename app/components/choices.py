"""Widgets whose value stands in the address, so that a link brings back the view.

Where `then` is given it is called after a change, with the new value in the address: a page that draws in parts makes
only those again that the choice bears on (`st.rerun` with their keys).
"""

from collections.abc import Callable, Sequence

import streamlit as st

from app import state
from app.components.plain import notes

ANY = "any"


def select(
    label: str, name: str, options: Sequence[str], default: str, titles: Callable = str,
    then: Callable[[], None] | None = None, **more,
) -> str:  # fmt: skip
    """A select box; `name` is its word in the address. Session keys are the page's and the word's."""
    key, broken = _start(name, options, default)
    value = st.selectbox(
        label, options, key=key, format_func=titles, on_change=_changed, args=(key, name, default, then), **more
    )  # fmt: skip
    notes(f"choice-{name}", broken)
    return value


def segments(label: str, name: str, options: Sequence[str], default: str, titles: Callable = str, **more) -> str:
    """Few options side by side, one of them always chosen."""
    key, broken = _start(name, options, default)
    value = st.segmented_control(
        label, options, key=key, format_func=titles, required=True, on_change=state.keep_choice,
        args=(key, name, default), **more,
    )  # fmt: skip
    notes(f"choice-{name}", broken)
    return value


def slider(label: str, name: str, options: Sequence[str], default: str, **more) -> str:
    key, broken = _start(name, options, default)
    value = st.select_slider(
        label, options, key=key, on_change=state.keep_choice, args=(key, name, default), **more
    )  # fmt: skip
    notes(f"choice-{name}", broken)
    return value


def text(label: str, name: str, then: Callable[[], None] | None = None, **more) -> str:
    key = f"{state.CHOICE}{name}"
    state.start_text(key, name)
    return st.text_input(label, key=key, max_chars=200, on_change=_changed, args=(key, name, "", then), **more)


def _changed(key: str, name: str, default: str, then: Callable[[], None] | None) -> None:
    state.keep_choice(key, name, default)
    if then is not None:
        then()


def _start(name: str, options: Sequence[str], default: str) -> tuple[str, list[str]]:
    key = f"{state.CHOICE}{name}"
    broken = state.start_choice(key, name, options, default)
    return key, [broken] if broken else []
