"""The dashboard as a visitor meets it: a real server, headless Chromium, a tiny run with a real model."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import quote

import pytest
from factories import tone, write_wav

from harmonifuse_core.report import report_html

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PATIENCE = 120_000  # ms; the machine may be busy
TRANSCRIPT = "[class*=st-key-transcript]"
TITLES = re.findall(r'st\.Page\(.*title="([^"]+)"', (ROOT / "app" / "main.py").read_text())
SERIOUS = {"serious", "critical"}
pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def chromium():
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install playwright"
    )
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server(built_run, tmp_path_factory):
    """Address of a fresh server, which nobody has visited."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log.txt"
    command = [sys.executable, "-m", "streamlit", "run", "app/main.py", "--server.port", str(port)]
    variables = os.environ | {"HARMONIFUSE_RUNS": str(built_run.path.parent), "OMP_NUM_THREADS": "1"}
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=variables, stdout=output, stderr=subprocess.STDOUT)
        try:
            wait_for(f"http://127.0.0.1:{port}/healthz", process, log)
            yield f"http://127.0.0.1:{port}/"
        finally:
            process.terminate()
            process.wait(20)
    assert "Traceback" not in log.read_text(), log.read_text()


def wait_for(address: str, process: subprocess.Popen, log: Path) -> None:
    for _ in range(600):
        assert process.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    pytest.fail(f"the server did not start: {log.read_text()}")


class Visitors:
    """Pages of the dashboard, each a session of its own. What they ask of other machines is noted, and dialogs are.

    Visitors of one colour scheme share a browser's cache, unless `stranger`: Streamlit's scripts are then read once.
    """

    def __init__(self, chromium, server: str):
        self.chromium, self.server = chromium, server
        self.contexts, self.walks, self.elsewhere, self.dialogs = {}, {}, [], []

    def open(self, path: str = "", width: int = 1440, scheme: str = "light", stranger: bool = False):
        key = len(self.contexts) if stranger else scheme
        if key not in self.contexts:
            self.contexts[key] = self.chromium.new_context(color_scheme=scheme, reduced_motion="reduce")
        page = self.contexts[key].new_page()
        page.set_viewport_size({"width": width, "height": 900})
        page.set_default_timeout(PATIENCE)
        own = (self.server, "data:", "blob:", "ws:")
        page.on("request", lambda request: request.url.startswith(own) or self.elsewhere.append(request.url))
        page.on("dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss()))
        page.goto(self.server + path, wait_until="commit")
        page.wait_for_selector("h1")
        return page

    def walk(self, title: str, scheme: str = "light"):
        """One visitor of a scheme goes from page to page by the links of the sidebar."""
        if scheme not in self.walks:
            self.walks[scheme] = self.open("overview?run=full", scheme=scheme)
        page = self.walks[scheme]
        page.set_viewport_size({"width": 1440, "height": 900})
        page.get_by_test_id("stSidebarNavItems").get_by_role("link", name=title, exact=True).click()
        page.locator("h1").get_by_text(title, exact=True).wait_for()
        settled(page)
        return page


@pytest.fixture(scope="module")
def visitors(chromium, server):
    found = Visitors(chromium, server)
    yield found
    for context in found.contexts.values():
        context.close()
    assert found.elsewhere == [] and found.dialogs == []


@pytest.fixture
def visit(visitors):
    """`visit(path)` opens a page that is closed after the test."""
    pages = []

    def open_page(*arguments, **more):
        pages.append(visitors.open(*arguments, **more))
        return pages[-1]

    yield open_page
    for page in pages:
        page.close()
    assert visitors.elsewhere == [] and visitors.dialogs == []


def settled(page) -> None:
    """The app has come to its last line, in the sidebar, and its figures are drawn."""
    page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]")
    page.get_by_text("One copy serves all visitors").wait_for(state="attached")
    page.wait_for_timeout(500)


def upload(page, name: str, data: bytes) -> None:
    file = {"name": name, "mimeType": "audio/wav", "buffer": data}
    page.set_input_files("input[type=file]", file)


def wav_bytes(tmp_path: Path, seconds: float = 1.0) -> bytes:
    return write_wav(tmp_path / "made.wav", tone(seconds)).read_bytes()


def test_the_first_visitor_of_a_server_may_come_by_a_deep_link(visit):
    page = visit(f"run?run=full&utt={quote('u-1')}")
    page.get_by_text("Link to this utterance").wait_for()
    assert page.locator("h1").inner_text() == "Run"
    page.locator("code").filter(has_text="utt=u-1").wait_for()
    page.get_by_role("link", name="Listen").click()
    page.get_by_text("No recording yet").wait_for()
    assert "run=full" in page.url


@pytest.fixture(scope="module")
def listener(visitors, hostile, tmp_path_factory):
    """Listen, with a recording of a hostile name answered."""
    page = visitors.open()
    page.get_by_text("No recording yet").wait_for()
    upload(page, f"{hostile}.wav", wav_bytes(tmp_path_factory.mktemp("made")))
    page.wait_for_selector(TRANSCRIPT)
    return page


def test_a_recording_becomes_text_emotion_and_alpha_and_a_prompt_moves_it(listener):
    page = listener
    assert page.locator(TRANSCRIPT).inner_text().strip()
    emotions = page.locator("[class*=st-key-classes-ser], .stPlotlyChart").first
    emotions.get_by_text("surprised").wait_for()
    values = [float(v) for v in re.findall(r"\b[01]\.\d\d\b", emotions.inner_text())]
    assert len(values) == 8 and sum(values) == pytest.approx(1.0, abs=0.05)
    assert re.search(r"Answered in \d+\.\d s for 1\.0 s of audio on CPU", page.inner_text("body"))
    assert page.get_by_text("What changed against the default prompt").count() == 0
    prompt = page.get_by_label("Prompt", exact=True).last
    prompt.fill("Something else entirely, please")
    prompt.press("Control+Enter")
    page.get_by_text("What changed against the default prompt").wait_for()
    told = re.compile(r"LM alpha: largest change (0\.\d+)")
    page.get_by_text(told).first.wait_for()  # the heading is drawn before it
    change = told.search(page.inner_text("body"))
    assert change and float(change[1]) > 0.001
    page.get_by_role("button", name="Back to the default").last.click()
    page.get_by_text("These are the default prompts").wait_for()


def test_a_hostile_file_name_stays_text(listener, hostile):
    assert listener.locator("[class*=st-key-facts-recording]").get_by_text(hostile).count() == 1
    assert listener.locator("img[src='x']").count() == 0


def test_a_second_visitor_on_a_phone_shares_the_model_sees_no_foreign_recording_and_nothing_sticks_out(
    listener, visit, hostile
):
    page = visit(width=390, stranger=True)
    page.get_by_text("No recording yet", exact=True).wait_for()
    page.get_by_text("Model loads since start: 1.").wait_for(state="attached")
    assert hostile not in page.inner_text("body")
    page.get_by_role("button", name="Quick").click()
    page.wait_for_selector(TRANSCRIPT)
    page.wait_for_timeout(500)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_layer_is_knocked_out_and_every_layer_measured(listener):
    page = listener
    page.get_by_text("Nothing is removed. Choose a layer").wait_for()
    page.get_by_role("combobox", name="Remove a layer of the language model").click()
    page.get_by_role("option", name="2", exact=True).click()
    page.get_by_text(re.compile(r"(still|now) \w+ \([01]\.\d\d\)")).wait_for()
    page.get_by_text("Remove every layer once").click()
    page.locator("[class*=st-key-damage-encoder]").wait_for()
    values = re.findall(r"[+−-]\d\.\d\d", page.locator("[class*=st-key-damage-encoder]").inner_text())
    assert len(values) >= 6  # two tasks, three states


def test_a_corrupt_file_gives_a_message_and_the_app_goes_on(listener, hostile, tmp_path):
    upload(listener, "broken.wav", b"RIFF\x24\x00\x00\x00WAVEfmt nonsense")
    listener.get_by_text("This recording cannot be used").wait_for()
    assert "broken.wav: " in listener.inner_text("body") and listener.locator(TRANSCRIPT).count() == 0
    upload(listener, f"{hostile}.wav", wav_bytes(tmp_path))
    listener.wait_for_selector(TRANSCRIPT)
    assert listener.get_by_text("This recording cannot be used").count() == 0


def test_several_files_become_a_list_that_opens_each_of_them(visit, tmp_path):
    page = visit()
    page.get_by_text("No recording yet").wait_for()
    page.get_by_role("tab", name="Several files").click()
    several = page.locator("[class*=st-key-several] input[type=file]")
    made = [{"name": f"{n}.wav", "mimeType": "audio/wav", "buffer": wav_bytes(tmp_path, n / 10)} for n in (5, 6)]
    several.set_input_files([*made, {"name": "broken.wav", "mimeType": "audio/wav", "buffer": b"RIFF no"}])
    page.get_by_role("button", name="Listen to all of them").click()
    page.get_by_text("3 of 3 done").wait_for()
    assert page.get_by_role("button", name="Cancel").is_disabled()
    table = page.locator("[class*=st-key-queue-table] canvas").first
    table.scroll_into_view_if_needed()
    place = table.bounding_box()
    page.mouse.click(place["x"] + 12, place["y"] + 35 + 17)  # the first row's box; a layer above takes the click
    page.wait_for_selector(TRANSCRIPT)
    assert page.locator("[class*=st-key-facts-recording]").get_by_text("5.wav").count() == 1
    page.get_by_role("button", name="Close the list").click()
    page.get_by_text("3 of 3 done").wait_for(state="detached")


def test_the_report_draws_its_figures_without_a_network(chromium, built_run, tmp_path):
    file = tmp_path / "report.html"
    file.write_text(report_html(built_run), encoding="utf-8")
    page, asked, errors = chromium.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(file.as_uri())
    page.wait_for_selector(".js-plotly-plot .main-svg")
    figures = page.locator("[data-figure]").count()
    page.wait_for_function(f"document.querySelectorAll('.js-plotly-plot').length === {figures}")
    assert figures >= 8 and [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert errors == [] and page.locator("img[src='x']").count() == 0
    page.close()


@pytest.fixture(scope="session")
def axe() -> str:
    """The script of axe-core, as the pip package brings it."""
    package = pytest.importorskip("axe_playwright_python.base", reason="pip install axe-playwright-python")
    return package.AXE_SCRIPT


def serious(page, axe: str) -> list[str]:
    """What axe-core finds on the page as it stands."""
    page.evaluate(axe)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    return [
        f"{v['id']}: {v['help']}: {node['html'][:200]} {node.get('failureSummary', '')[:200]}"
        for v in found if v["impact"] in SERIOUS for node in v["nodes"]
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("title", "scheme"), [*((t, "light") for t in TITLES), ("Overview", "dark"), ("Routing explorer", "dark")]
)
def test_axe_finds_nothing_serious_and_on_a_phone_nothing_sticks_out(visitors, axe, title, scheme):
    page = visitors.walk(title, scheme)
    told = serious(page, axe)
    assert told == [], "\n".join(told)
    page.set_viewport_size({"width": 390, "height": 900})
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_explorer_selects_by_lasso_and_its_link_brings_the_view_back(visit):
    page = visit("explorer?run=full&task=ser&stage=lm&place=shape&speaker=speaker-1")
    page.get_by_text("2 answers fit the filter").wait_for()
    page.get_by_text("All 2 points").wait_for()
    settled(page)
    box = page.locator(".nsewdrag").first.bounding_box()
    left, top, right, low = box["x"] + 2, box["y"] + 2, box["x"] + box["width"] - 2, box["y"] + box["height"] - 2
    page.mouse.move(left, top)
    page.mouse.down()
    for x, y in ((right, top), (right, low), (left, low), (left, top + 5)):
        page.mouse.move(x, y, steps=6)
    page.mouse.up()
    page.get_by_text("2 selected").wait_for()
    page.get_by_role("combobox", name="Colour").click()
    page.get_by_role("option", name="Speaker").click()
    page.wait_for_url(re.compile("colour=speaker"))
    again = visit(page.url.split("/", 3)[3])
    again.get_by_text("2 answers fit the filter").wait_for()
    assert again.get_by_role("combobox", name="Colour").input_value() == "Speaker"


def test_filter_boxes_opened_by_keyboard_narrow_the_explorer_and_another_colour_drops_the_selection(visit, axe):
    page = visit("explorer?run=full&task=ser&stage=lm&place=shape")
    page.get_by_text("All 7 points").wait_for()
    page.locator("summary", has_text="Filter").focus()
    page.keyboard.press("Enter")
    page.get_by_role("combobox", name="Speaker", exact=True).wait_for()
    settled(page)
    page.get_by_role("combobox", name="Speaker", exact=True).click()
    page.get_by_role("option", name="speaker-1", exact=True).click()
    page.get_by_text("2 answers fit the filter").wait_for()
    page.get_by_text("All 2 points").wait_for()
    page.wait_for_url(re.compile("speaker=speaker-1"))
    settled(page)
    box = page.locator(".nsewdrag").first.bounding_box()
    page.mouse.move(box["x"] + 2, box["y"] + 2)
    page.mouse.down()
    for x, y in ((1, 0), (1, 1), (0, 1), (0, 0.02)):
        page.mouse.move(box["x"] + 2 + x * (box["width"] - 4), box["y"] + 2 + y * (box["height"] - 4), steps=6)
    page.mouse.up()
    page.get_by_text("2 selected").wait_for()
    page.get_by_role("combobox", name="Colour").click()
    page.get_by_role("option", name="Speaker", exact=True).click()
    page.get_by_text("All 2 points").wait_for()
    settled(page)
    assert serious(page, axe) == []
    page.get_by_role("combobox", name="Speaker", exact=True).click()
    page.get_by_role("option", name="any", exact=True).click()
    page.get_by_text("7 answers fit the filter").wait_for()
    assert "speaker=" not in page.url and "colour=speaker" in page.url


def test_a_table_behind_a_line_is_made_when_the_keyboard_opens_it(visit, axe):
    page = visit("layers?run=full")
    page.get_by_text("Table of numbers").wait_for()
    settled(page)
    assert page.get_by_test_id("stDataFrame").count() == 0
    page.locator("summary", has_text="Table of numbers").focus()
    page.keyboard.press("Enter")
    page.locator("[data-testid=stDataFrame] canvas").first.wait_for()
    settled(page)
    assert serious(page, axe) == []
    page.keyboard.press("Enter")
    page.get_by_test_id("stDataFrame").wait_for(state="detached")


@pytest.mark.parametrize(
    ("title", "wanted"), [("Overview", "Search"), ("Layer weights", "Tasks"), ("Routing explorer", "Task")]
)
def test_the_keyboard_reaches_what_a_page_offers(visitors, title, wanted):
    """Tab leads from the sidebar through the main part."""
    page = visitors.walk(title)
    reached = []
    while len(reached) < 60 and not any(wanted in name for name in reached):
        page.keyboard.press("Tab")
        name = page.evaluate(
            "() => { const e = document.activeElement; return e.closest('[data-testid=stMain]') ? "
            "(e.getAttribute('aria-label') || e.textContent || e.tagName).slice(0, 40) : '' }"
        )
        reached.append(name)
    assert wanted in reached[-1], reached
