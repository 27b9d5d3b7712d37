"""The page's address and the session's keys. `parse` is pure; nothing from a URL is used before it passed there."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

import streamlit as st

from app.palette import LIGHT, THEMES, Theme

RUN, UTTERANCE, TASK, LAYER = "run", "utt", "task", "layer"
STAGE, VIEW, OTHER, STUDY, RESULT = "stage", "view", "versus", "study", "result"  # of the pages that read results
CHOICE = "choice-"  # start of the session keys of widgets whose value stands in the address
RECORDING = "recording"  # session key of the Clip that this visitor chose; never in a cache
RECORDING_PROBLEM = "recording_problem"
LONGEST_NAME, LONGEST_ID, MOST_LAYERS = 200, 500, 1000
TASK_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
VIEW_NAME = re.compile(r"[a-z-]{1,40}")


@dataclass(frozen=True)
class Link:
    """A validated deep link `?run=&utt=&task=&layer=`. problems: what was ignored, and why.

    stage: `encoder` or `lm`. view: part of a page. versus: a second run. study, result: names of folders and files.
    """

    run: str | None = None
    utterance: str | None = None
    task: str | None = None
    layer: int | None = None
    stage: str | None = None
    view: str | None = None
    versus: str | None = None
    study: str | None = None
    result: str | None = None
    problems: tuple[str, ...] = ()


def parse(parameters: Mapping[str, str]) -> Link:
    """Keep what is well-formed, name what is not. Whether a run or utterance exists is the page's question."""
    problems: list[str] = []
    return Link(
        _checked(parameters, RUN, _run_name, "is not a plain folder name", problems),
        _checked(parameters, UTTERANCE, _identifier, "is not an utterance id", problems),
        _checked(parameters, TASK, _task, "is not a task name", problems),
        _checked(parameters, LAYER, _layer, f"is not a layer number from 0 to {MOST_LAYERS - 1}", problems),
        _checked(parameters, STAGE, _stage, "is not a stage (encoder or lm)", problems),
        _checked(parameters, VIEW, _view, "is not the name of a view", problems),
        _checked(parameters, OTHER, _run_name, "is not a plain folder name", problems),
        _checked(parameters, STUDY, _run_name, "is not a plain folder name", problems),
        _checked(parameters, RESULT, _run_name, "is not a plain file name", problems),
        tuple(problems),
    )


def _checked(parameters: Mapping[str, str], name: str, check, why: str, problems: list[str]):
    value = parameters.get(name)
    if value in (None, ""):
        return None
    kept = check(value)
    if kept is None:
        problems.append(f"{name}={shortened(value)} {why}: ignored")
    return kept


def shortened(value: str, most: int = 60) -> str:
    """A value from outside, printable and short."""
    clean = "".join(c if unicodedata.category(c)[0] != "C" else "?" for c in str(value))
    return clean if len(clean) <= most else clean[: most - 1] + "…"


def _printable(value: str, longest: int) -> bool:
    return len(value) <= longest and all(unicodedata.category(c)[0] != "C" for c in value)


def _run_name(value: str) -> str | None:
    plain = "/" not in value and "\\" not in value and not value.startswith(".") and value.strip() == value
    return value if plain and _printable(value, LONGEST_NAME) else None


def _identifier(value: str) -> str | None:
    return value if _printable(value, LONGEST_ID) else None


def _task(value: str) -> str | None:
    return value if TASK_NAME.fullmatch(value) else None


def _stage(value: str) -> str | None:
    return value if value in ("encoder", "lm") else None


def _view(value: str) -> str | None:
    return value if VIEW_NAME.fullmatch(value) else None


def _layer(value: str) -> int | None:
    return int(value) if value.isascii() and value.isdigit() and len(value) <= 4 and int(value) < MOST_LAYERS else None


def address(page: str = "", **values: str | int | None) -> str:
    """A link inside the dashboard, relative to its root: `run?run=default&utt=ab%20c`."""
    query = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in values.items() if value is not None)
    return f"{page}?{query}" if query else page


# --- the session (everything below needs a running page) ---


def link() -> Link:
    return parse(st.query_params.to_dict())


def set_link(**values: str | int | None) -> None:
    """Put values into the address; None takes one out."""
    for name, value in values.items():
        if value is None:
            if name in st.query_params:
                del st.query_params[name]
        elif st.query_params.get(name) != str(value):
            st.query_params[name] = str(value)


def start_choice(key: str, name: str, options: Sequence[str], default: str) -> str:
    """Give the widget `key` its value: the session's, else the address's, else `default`. Returns a note, or nothing,
    on an address that holds no such value."""
    wanted = st.query_params.get(name)
    if st.session_state.get(key) not in options:
        st.session_state[key] = chosen(name, options, default)
    if wanted in (None, "", *options):
        return ""
    return f"{name}={shortened(wanted)} in the link is not to be had here: ignored"


def chosen(name: str, options: Sequence[str], default: str) -> str:
    """What a choice stands at, its widget made or not: the session's, else the address's, else `default`."""
    candidates = (st.session_state.get(f"{CHOICE}{name}"), st.query_params.get(name))
    return next((value for value in candidates if value in options), default)


def keep_choice(key: str, name: str, default: str) -> None:
    """A widget's callback: its value into the address; the default needs no room there."""
    value = st.session_state.get(key)
    set_link(**{name: None if value in (None, "", default) else value})


def start_text(key: str, name: str) -> None:
    """The same for a line of text, which may be anything printable."""
    if key not in st.session_state:
        st.session_state[key] = text_of(name)


def text_of(name: str) -> str:
    """The line of text that a visitor wrote, else that of the address, if it is printable."""
    written, wanted = st.session_state.get(f"{CHOICE}{name}"), st.query_params.get(name, "")
    return written if isinstance(written, str) else wanted if _printable(wanted, LONGEST_NAME) else ""


def only_run(name: str) -> None:
    """Another run: what the address and the choices on the page say of the old one goes."""
    st.query_params.from_dict({RUN: name})
    for key in [key for key in st.session_state if str(key).startswith(CHOICE)]:
        del st.session_state[key]


def theme() -> Theme:
    """The mode that the visitor's browser shows."""
    return THEMES.get(st.context.theme.type or "", LIGHT)


def recording():
    """The `Clip` that this session chose, or None."""
    return st.session_state.get(RECORDING)


def choose_recording(clip, problem: str = "") -> None:
    """Replace this session's recording; `problem` says why there is none."""
    st.session_state[RECORDING], st.session_state[RECORDING_PROBLEM] = clip, problem
