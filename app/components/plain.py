"""Text that stays text. Names, transcripts and messages from outside never pass through Markdown or HTML."""

import html
from collections.abc import Sequence
from itertools import groupby

import streamlit as st

from app.comparison import ADDED, REMOVED
from app.palette import Theme
from harmonifuse_core.word_alignment import DELETED, INSERTED, SUBSTITUTED, WordStep

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


def aligned_words(steps: Sequence[WordStep], theme: Theme) -> None:
    """A transcript against its reference: each kind of error has its sign and its colour."""
    colours = {SUBSTITUTED: theme.tasks[3], DELETED: theme.tasks[1], INSERTED: theme.tasks[0]}
    parts = []
    for step in steps:
        old, new = html.escape(step.reference), html.escape(step.hypothesis)
        if step.kind not in colours:
            parts.append(old)
            continue
        body = {
            SUBSTITUTED: f"≠&nbsp;<del>{old}</del>&nbsp;<ins>{new}</ins>",
            DELETED: f"−&nbsp;<del>{old}</del>",
            INSERTED: f"+&nbsp;<ins>{new}</ins>",
        }[step.kind]
        parts.append(f'<span class="hf-error" style="color:{colours[step.kind]}">{body}</span>')
    st.html(f'<p class="hf-diff">{" ".join(parts) or "(no words)"}</p>')
