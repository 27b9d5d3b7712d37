"""The dashboard through Streamlit's own test runner: open a page, read what it says, press a button."""

from pathlib import Path

from streamlit.testing.v1 import AppTest

MAIN = Path(__file__).resolve().parents[1] / "app" / "main.py"
PATIENCE = 300  # seconds; the machine may be busy
KINDS = ("title", "header", "subheader", "markdown", "caption", "text", "code", "error", "warning", "info", "badge")


def opened(page: str = "listen", **query: str) -> AppTest:
    """The dashboard at a page, without any exception on it."""
    at = AppTest.from_file(str(MAIN), default_timeout=PATIENCE)
    if page != "listen":  # a page can be chosen once the navigation is known
        at.run()
        at.switch_page(f"views/{page}.py")
    for name, value in query.items():
        at.query_params[name] = value
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


def charts(at: AppTest) -> int:
    return len(at.get("plotly_chart"))
