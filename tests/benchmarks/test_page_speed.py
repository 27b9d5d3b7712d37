"""How long a visitor waits: page changes and filters in headless Chromium, on `runs/default` and 100,000 utterances.

    python -m pytest tests/benchmarks/test_page_speed.py -m slow -s     (an idle machine, two cores)

Measured by the browser's own clock, as a visitor waits. A page change: from the click on its link until its heading
stands, every figure and table of it is drawn, the script rests and the browser has painted that. A filter: from the
click on an option until its effect is to be seen (other words, no figure of before), every figure is drawn, the script
rests and that is painted. The first visit of a server also imports and reads; it is printed, and not judged.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
from benchmarks.big_routing import write_big_routing

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PAGES = re.findall(r'title="([^"]+)", icon=', (ROOT / "app" / "main.py").read_text())
RESTS = "[data-testid=stApp][data-test-script-state=notRunning]"
DRAWN = """
    const main = document.querySelector('[data-testid=stMain]');
    const rests = document.querySelector('[data-testid=stApp]').dataset.testScriptState === 'notRunning';
    const seen = place => [...main.querySelectorAll(place)].filter(one => !one.closest('details:not([open])'));
    const filled = (place, inside) => seen(place).every(one => one.querySelector(inside));
    const drawn = rests && filled('[data-testid=stPlotlyChart]', '.main-svg .cartesianlayer *')
        && filled('[data-testid=stDataFrame]', 'canvas');
"""
CHANGED = f"title => {{ {DRAWN} return drawn && main.querySelector('h1')?.textContent.trim() === title; }}"
REMEMBER = """() => {
    const main = document.querySelector('[data-testid=stMain]');
    main.querySelectorAll('.js-plotly-plot').forEach(one => { one.dataset.old = '1'; });
    window.wordsBefore = main.textContent;
}"""
NARROWED = (
    f"() => {{ {DRAWN} return drawn && main.textContent !== window.wordsBefore && !main.querySelector('[data-old]') }}"
)
CLICKED = """() => document.addEventListener(
    'click', () => { window.clicked = performance.now(); }, {capture: true, once: true})"""
PAINTED = """() => new Promise(done => requestAnimationFrame(() => setTimeout(
    () => done((performance.now() - window.clicked) / 1000), 0)))"""
CHOICES = {
    "Colour": range(4),
    "Task": range(2),
    "Stage": range(2),
    "Corpus": range(3),
    "Right or wrong": range(3),
    "Plane": (2, 0),
}  # box: places of the options to try; the UMAP is computed once, for half a minute, and is no filter
ROUNDS = 3
pytestmark = [pytest.mark.slow, pytest.mark.browser]


@contextmanager
def opened(runs: Path):
    """(page, server process): the Overview of a fresh server."""
    from playwright.sync_api import sync_playwright

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", "app/main.py", "--server.port", str(port)]
    server = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"HARMONIFUSE_RUNS": str(runs)})
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5).close()
                break
            except OSError:
                time.sleep(0.2)
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            page.set_default_timeout(120_000)
            page.goto(f"http://127.0.0.1:{port}/overview")
            page.wait_for_selector(RESTS)
            yield page, psutil.Process(server.pid)
            browser.close()
    finally:
        server.terminate()
        server.wait(20)


def page_changes(page, titles) -> dict[str, float]:
    """Seconds from the click until the page stands."""
    seconds = {}
    for title in titles:
        link = page.get_by_test_id("stSidebarNav").get_by_role("link", name=title, exact=True)
        page.evaluate(CLICKED)
        link.click()
        page.wait_for_function(CHANGED, arg=title)
        seconds[title] = page.evaluate(PAINTED)
    return seconds


def filters(page) -> list[tuple[str, float]]:
    """What was chosen, and the seconds from the choice until its effect stands."""
    seconds = []
    for label, places in CHOICES.items():
        for k in places:
            box = page.get_by_role("combobox", name=label, exact=True)
            box.click()
            option = page.get_by_role("option").nth(k)
            option.wait_for()
            if (name := option.inner_text().strip()) == box.input_value().strip():
                page.keyboard.press("Escape")
                continue
            page.evaluate(REMEMBER)
            page.evaluate(CLICKED)
            option.click()
            page.wait_for_function(NARROWED)
            seconds.append((f"{label}: {name}", page.evaluate(PAINTED)))
    return seconds


def measured(runs: Path, name: str, titles) -> tuple[float, float, float]:
    """95th percentiles of page change and filter, and the server's megabytes."""
    with opened(runs) as (page, server):
        page.goto(page.url.replace("/overview", f"/overview?run={name}"))
        page.wait_for_selector(RESTS)
        first = page_changes(page, titles)
        rounds = [page_changes(page, titles) for _ in range(ROUNDS)]
        page_changes(page, ["Routing explorer"])
        page.locator("summary", has_text="Filter").click()
        early, narrowed = filters(page), [step for _ in range(ROUNDS) for step in filters(page)]
        megabytes = server.memory_info().rss / 2**20
    changes = [value for found in rounds for value in found.values()]
    worst = {title: round(max(found[title] for found in rounds), 2) for title in titles}
    print(f"\n{name}: first visits { ({k: round(v, 2) for k, v in first.items()}) }\nlater, worst of {ROUNDS}: {worst}")
    print(f"filters first: { ({k: round(v, 2) for k, v in early}) }")
    print(f"slowest later: {[(name, round(v, 2)) for name, v in sorted(narrowed, key=lambda step: -step[1])[:4]]}")
    choices = [value for _, value in narrowed]
    print(f"medians: page change {np.median(changes):.2f} s, filter {np.median(choices):.2f} s")
    change, choice = np.quantile(changes, 0.95), np.quantile(choices, 0.95)
    print(f"95th percentile: page change {change:.2f} s, filter {choice:.2f} s; server {megabytes:.0f} MB")
    return change, choice, megabytes


def test_pages_of_the_default_run(tmp_path):
    change, choice, _ = measured(ROOT / "runs", "default", PAGES)
    assert change < 0.5 and choice < 0.3


def test_pages_of_a_hundred_thousand_utterances(tmp_path):
    shutil.copytree(ROOT / "runs" / "default", tmp_path / "big", ignore=shutil.ignore_patterns("routing"))
    write_big_routing(tmp_path / "big" / "routing" / "big.parquet", 100_000, layers=5)
    change, choice, megabytes = measured(tmp_path, "big", PAGES)
    assert change < 1.0 and choice < 0.5 and megabytes < 1000
