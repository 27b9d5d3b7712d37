"""Where a run comes from: its model card, its data and settings, machine and seed."""

import shlex

import pandas as pd
import streamlit as st
import yaml

from app import services
from app.components.export import downloads
from app.components.plain import empty
from harmonifuse_core.config import Config, to_dict
from harmonifuse_core.runs import RunFolder


def card(run: RunFolder) -> None:
    """README.md of the run: our own Markdown, HTML in it stays text."""
    text = services.card_of(run)
    if text.strip():
        st.markdown(text)
        return
    path = shlex.quote(f"runs/{run.name}")
    empty("No model card", "The card tells data, licences, limits and numbers. Write it from the run's own files with:",
          f"python -m harmonifuse_core.card --run {path}")  # fmt: skip


def settings(run: RunFolder, config: Config | None) -> None:
    """What it was trained on, with which settings, on which machine."""
    if config is not None:
        st.subheader("Corpora", anchor=False)
        table = corpora(config)
        if table.empty:
            st.caption("The config names no corpus.")
        else:
            st.dataframe(table, hide_index=True)
            downloads("corpora", f"{run.name}-corpora", table)
    st.subheader("Machine and seed", anchor=False)
    found = services.environment_of(run)
    if found:
        table = machine(found)
        st.dataframe(table, hide_index=True, height=min(420, 40 + 35 * len(table)))
        downloads("machine", f"{run.name}-environment", table)
    else:
        st.caption("Not available: environment.json is missing or damaged. Training writes it.")
    if config is not None:
        st.subheader("Config", anchor=False)
        st.code(yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True), language="yaml", height=420)


def corpora(config: Config) -> pd.DataFrame:
    """One row a corpus entry: role, task, manifest, split, weight and what was kept of it."""
    rows = []
    for role, entries in (("train", config.data.train), ("dev", config.data.dev)):
        for entry in entries:
            kept = [f"{len(entry.speakers)} speakers only"] if entry.speakers else []
            kept += [f"without {len(entry.exclude_speakers)} speakers"] if entry.exclude_speakers else []
            kept += [f"ids matching {entry.ids}"] if entry.ids else []
            kept += ["teacher transcripts"] if entry.teacher else []
            kept += ["augmentation of its own"] if entry.augment else []
            rows.append({"role": role, "task": entry.task, "manifest": entry.manifest, "split": entry.split or "all",
                         "weight": entry.weight, "kept": ", ".join(kept) or "all"})  # fmt: skip
    return pd.DataFrame(rows)


def machine(environment: dict) -> pd.DataFrame:
    rows = []
    for name, value in environment.items():
        if isinstance(value, dict):
            rows += [(f"{name}: {key}", str(inner)) for key, inner in value.items()]
        else:
            rows.append((name, str(value)))
    return pd.DataFrame(rows, columns=["name", "value"])
