"""Saved evaluations: every measure with its interval, confusion, recall and calibration."""

import numpy as np
import pandas as pd
import streamlit as st

from app import state
from app.components import chart
from app.components.closed import closed_table
from app.components.export import downloads
from app.figures import classes, training
from app.figures.base import literal

MOST_CLASSES = 60
HOW_TO_READ = """
- **WER** and **CER**: errors over reference words or characters, of the whole corpus; lower is better; they may pass 1.
- **UA** is the mean recall over classes, **WA** the share of right answers; higher is better.
- **Intervals** are 95 % bootstrap intervals over speakers. With few speakers they are too narrow; the column *interval*
  says so. An interval speaks of other speakers of the same kind, not of another corpus.
- **ECE** is the mean distance between confidence and accuracy; 0 is calibrated.
"""


def show(results: pd.DataFrame, run_name: str) -> None:
    figures = {}
    for title, keys in (
        ("Error rates (lower is better)", ("wer", "cer")),
        ("Accuracies (higher is better)", ("ua", "wa")),
    ):
        rows = results[results["key"].isin(keys)]
        if len(rows):
            st.subheader(title, anchor=False)
            figures[title] = figure = training.scores_with_intervals(rows, state.theme())
            chart.show(figure, f"scores-{keys[0]}", f"{title} with 95 % intervals; the table below has the numbers")
    shown = {name: st.column_config.NumberColumn(format="%.4f") for name in ("value", "low", "high")}
    whole = {name: st.column_config.NumberColumn(format="%d") for name in ("utterances", "speakers")}
    st.dataframe(results.drop(columns="key"), hide_index=True, column_config=shown | whole)
    downloads("results", f"{run_name}-results", results, figures)
    with st.expander("How to read this"):
        st.markdown(HOW_TO_READ)


def class_results(evaluations: dict[str, dict], run_name: str) -> None:
    """Confusion, recall and reliability of one evaluation's class task, chosen above them."""
    found = {f"{name} · {task}": scores for name, result in evaluations.items() for task, scores in result.items()
             if isinstance(scores, dict) and valid_confusion(scores)}  # fmt: skip
    if not found:
        st.info("No saved evaluation scored a task with classes.", icon=":material/grid_off:")
        return
    st.subheader("Which classes are taken for which?", anchor=False)
    scores = found[st.selectbox("Evaluation", list(found), key="confusion_of")]
    labels, theme, figures = [str(label) for label in scores["labels"]], state.theme(), {}
    left, right = st.columns([0.55, 0.45], gap="medium")
    with left:
        figures["Confusion"] = figure = classes.confusion(scores["confusion"], labels, theme)
        alt = "Confusion matrix; the table below has the counts"
        chart.show(figure, "confusion", alt, 190 + 42 * len(labels))
    with right:
        recall = scores.get("per_class_recall")
        if isinstance(recall, dict):
            st.markdown("**Recall of each class**")
            figures["Recall"] = figure = classes.recall_bars(recall, theme)
            chart.show(figure, "recall", "Recall of each class, values beside the bars")
        bins = scores.get("reliability")
        if isinstance(bins, list) and bins:
            st.markdown("**Are the probabilities honest?**")
            figures["Reliability"] = figure = classes.reliability(bins, theme)
            chart.show(figure, "reliability", "Accuracy against confidence, with the count of each point")
    table = pd.DataFrame(scores["confusion"], columns=labels)
    table.insert(0, "reference", labels)
    closed_table("Table of counts (rows: reference, columns: predicted)", "confusion", table)
    downloads("confusion", f"{run_name}-confusion", table, figures)


def valid_confusion(scores: dict) -> bool:
    """C labels and C rows of C counts."""
    labels, rows = scores.get("labels"), scores.get("confusion")
    if not isinstance(labels, list) or not isinstance(rows, list) or not 1 < len(labels) <= MOST_CLASSES:
        return False
    try:
        return np.asarray(rows, dtype=float).shape == (len(labels), len(labels)) and len(
            set(map(literal, labels))
        ) == len(labels)
    except (ValueError, TypeError):
        return False
