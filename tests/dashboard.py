"""The dashboard through Streamlit's own test runner: open a page, read what it says, press a button."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from streamlit.testing.v1 import AppTest

from app.components.closed import KEY

MAIN = Path(__file__).resolve().parents[1] / "app" / "main.py"
PATIENCE = 300  # seconds; the machine may be busy
KINDS = ("title", "header", "subheader", "markdown", "caption", "text", "code", "error", "warning", "info", "badge")


_pages: dict = {}  # of the navigation, once Streamlit knows it


def opened(page: str = "listen", state: Mapping = MappingProxyType({}), **query: str) -> AppTest:
    """The dashboard at a page, as a link opens it, without any exception on it. state: of the session."""
    at = AppTest.from_file(str(MAIN), default_timeout=PATIENCE)
    if page != "listen":  # AppTest lets a page be chosen once it has seen the navigation, which is the same for all
        if not _pages:
            _pages.update(sound(at.run())._registered_pages)
            at = AppTest.from_file(str(MAIN), default_timeout=PATIENCE)
        at._registered_pages = dict(_pages)
        at.switch_page(f"views/{page}.py")
    for name, value in query.items():
        at.query_params[name] = value
    for name, value in state.items():
        at.session_state[name] = value
    return sound(at.run())


def sound(at: AppTest) -> AppTest:
    """The same page, which has no exception on it."""
    assert not at.exception, at.exception[0].message
    return at


def shown(at: AppTest) -> str:
    """Everything that the page says."""
    return "\n".join(str(element.value) for kind in KINDS for element in at.get(kind))


def press(at: AppTest, key: str) -> AppTest:
    return sound(at.button(key=key).click().run())


def switch(at: AppTest, label: str) -> AppTest:
    """Turn on the toggle with this label."""
    return sound(next(toggle for toggle in at.toggle if toggle.label == label).set_value(True).run())


def unfolded(at: AppTest) -> AppTest:
    """The same page with all tables open that are made only then."""
    for key in [key for key in at.session_state._state.filtered_state if str(key).startswith(KEY)]:
        at.session_state[key] = True
    return sound(at.run())


def charts(at: AppTest) -> int:
    return len(at.get("plotly_chart"))
