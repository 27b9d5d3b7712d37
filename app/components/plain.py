"""Text that stays text. Names, transcripts and messages from outside never pass through Markdown or HTML."""

import html
from collections.abc import Sequence
from itertools import groupby

import streamlit as st

from app.comparison import ADDED, REMOVED

NOT_AVAILABLE = "not available"


def problem(key: str, title: str, *details: str) -> None:
    """What went wrong: a fixed title, and details that may hold anything."""
    with st.container(key=f"plain-{key}", border=True):
        st.error(title, icon=":material/error:")
        for detail in details:
            st.text(detail)


def notes(key: str, lines: Sequence[str]) -> None:
    """Remarks that may hold text from outside, one a line; nothing where there are none."""
    if lines:
        with st.container(key=f"plain-{key}"):
            for line in lines:
                st.text(f"Note: {line}")


def empty(title: str, why: str, *commands: str) -> None:
    """An empty state: what is missing, why, and the exact commands that fill it."""
    with st.container(border=True):
        st.markdown(f"**{title}**")
        st.markdown(why)
        for line in commands:
            st.code(line, language=None, wrap_lines=True)  # coloured code falls below a contrast of 4.5 : 1


def word_changes(words: Sequence[tuple[str, str]]) -> None:
    """A word difference: removed words struck out behind a minus, added ones underlined behind a plus."""
    parts = []
    for kind, group in groupby(words, key=lambda step: step[0]):
        text = html.escape(" ".join(word for _, word in group))
        if kind == REMOVED:
            text = f"<span>−&nbsp;<del>{text}</del></span>"
        elif kind == ADDED:
            text = f"<span>+&nbsp;<ins>{text}</ins></span>"
        parts.append(text)
    st.html(f'<p class="hf-diff">{" ".join(parts) or "(no words)"}</p>')


def lines(key: str, texts: Sequence[str]) -> None:
    """Sentences that may hold text from outside, one below the other."""
    with st.container(key=f"plain-{key}", gap="xsmall"):
        for text in texts:
            st.text(text)
