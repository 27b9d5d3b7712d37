"""The first screen of Run: what this run is, its main numbers, and whether they can be trusted."""

import shlex

import pandas as pd
import streamlit as st

from app import tables
from app.checks import BAD, CARE, GOOD, Check
from app.components.plain import empty
from harmonifuse_core.config import Config
from harmonifuse_core.runs import RunFolder

ICONS = {GOOD: ":material/check_circle:", CARE: ":material/info:", BAD: ":material/error:"}
WORDS = {GOOD: "Good", CARE: "Mind", BAD: "Missing"}
MOST_CARDS = 4


def identity(run: RunFolder, config: Config | None) -> None:
    """Title, first paragraph of the description and the facts that name the model; text from the config stays text."""
    with st.container(key="plain-identity", gap="xsmall"):
        if config is None:
            st.text(f"Run {run.name}")
            return
        with st.container(key="plain-run-title"):
            st.text(config.title or run.name)
        if first := " ".join(config.description.split("\n\n")[0].split()):
            st.text(first)
        st.caption(facts(config))


def facts(config: Config) -> str:
    """One line of constants and numbers; names from the config are kept to harmless characters."""
    model = config.model
    encoder = "".join(c for c in model.encoder.name.rstrip("/").rsplit("/", 1)[-1] if c.isalnum() or c in "-.")
    tasks = ", ".join(task.name.upper() for task in model.tasks)
    parts = (
        f"Encoder {encoder} ({model.encoder.finetune})", f"gate {model.gate.mode.replace('_', ' ')}",
        f"LM {model.lm.kind}, fusion {model.lm.fusion}", f"tasks {tasks}",
    )  # fmt: skip
    return " · ".join(parts)


def main_numbers(scores: pd.DataFrame) -> None:
    """The first rows of `main_scores`, each with its evaluation, interval and size."""
    rows = scores.head(MOST_CARDS)
    if rows.empty:
        return
    for column, row in zip(st.columns(len(rows)), rows.itertuples(), strict=True):
        with column, st.container(border=True, key=f"facts-card-{row.Index}"):
            st.text(f"{row.key.upper()} · {row.evaluation}")
            st.markdown(f"### {tables.percent(row.value)}")
            st.caption(f"{tables.interval((row.low, row.high))} · n = {row.utterances:.0f}, {speakers(row.speakers)}")


def speakers(count: float) -> str:
    return "speakers not recorded" if pd.isna(count) else f"{count:.0f} speakers"


def trust(found: list[Check]) -> None:
    st.subheader("Can its numbers be trusted?", anchor=False)
    with st.container(key="plain-trust", gap="xsmall"):
        for check in found:
            with st.container(horizontal=True, vertical_alignment="center", gap="small"):
                st.badge(
                    WORDS[check.level],
                    icon=ICONS[check.level],
                    color={GOOD: "green", CARE: "gray", BAD: "red"}[check.level],
                )
                st.text(check.text, width="stretch")


def no_results(run: RunFolder) -> None:
    path = shlex.quote(f"runs/{run.name}")
    empty(
        "No evaluation is saved in this run",
        "Score it on a manifest with labels; `--save` keeps scores and routing in the run folder:",
        f"python -m harmonifuse_core.evaluate --run {path} --manifest M.jsonl --split test --save test",
    )
