"""How long a visitor waits: page changes and filters in headless Chromium, on `runs/default` and 100,000 utterances.

    python -m pytest tests/benchmarks/test_page_speed.py -m slow -s     (an idle machine, two cores)

A page change is the time from the click on its link until its heading stands and the script rests; a filter, from the
choice of an option until the script rests. Every page is visited once before: the first visit of a server also imports.
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
PAGES = dict(re.findall(r'title="([^"]+)", icon="[^"]+", url_path="([^"]+)"', (ROOT / "app" / "main.py").read_text()))
RESTS = "[data-testid=stApp][data-test-script-state=notRunning]"
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
    """Seconds from the click until the page's heading stands and the script rests."""
    seconds = {}
    for title in titles:
        link = page.get_by_test_id("stSidebarNav").get_by_role("link", name=title, exact=True)
        started = time.perf_counter()
        link.click()
        page.locator("h1", has_text=title).wait_for()
        page.wait_for_selector(RESTS)
        seconds[title] = time.perf_counter() - started
    return seconds


def filters(page, boxes: dict[str, int]) -> list[float]:
    """Seconds of a choice: label of the box, number of options to try."""
    seconds = []
    for label, count in boxes.items():
        for k in range(count):
            page.get_by_role("combobox", name=label, exact=True).click()
            option = page.get_by_role("option").nth(k)
            option.wait_for()
            started = time.perf_counter()
            option.click()
            page.wait_for_timeout(30)  # the script is told of the choice
            page.wait_for_selector(RESTS)
            seconds.append(time.perf_counter() - started)
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
        choices = {"Colour": 4, "Task": 2, "Stage": 2, "Corpus": 3, "Right or wrong": 2, "Plane": 1}
        narrowed = filters(page, choices)
        megabytes = server.memory_info().rss / 2**20
    changes = [value for found in rounds for value in found.values()]
    worst = {title: round(max(found[title] for found in rounds), 2) for title in titles}
    print(f"\n{name}: first visits { ({k: round(v, 2) for k, v in first.items()}) }\nlater, worst of {ROUNDS}: {worst}")
    change, choice = np.quantile(changes, 0.95), np.quantile(narrowed, 0.95)
    print(f"95th percentile: page change {change:.2f} s, filter {choice:.2f} s; server {megabytes:.0f} MB")
    return change, choice, megabytes


def test_pages_of_the_default_run(tmp_path):
    change, choice, _ = measured(ROOT / "runs", "default", PAGES)
    assert change < 0.5 and choice < 0.3


def test_pages_of_a_hundred_thousand_utterances(tmp_path):
    shutil.copytree(ROOT / "runs" / "default", tmp_path / "big", ignore=shutil.ignore_patterns("routing"))
    write_big_routing(tmp_path / "big" / "routing" / "big.parquet", 100_000, layers=5)
    change, choice, megabytes = measured(tmp_path, "big", [t for t in PAGES if t != "Utterance"])
    assert change < 1.0 and choice < 0.5 and megabytes < 1000
