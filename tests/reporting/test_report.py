"""The one-file report: whole, offline, and deaf to whatever a run's files say."""

import html
import json
import re

import numpy as np
import pytest
from factories import tiny_config

from harmonifuse_core.config import save_yaml
from harmonifuse_core.report import main, report_html
from harmonifuse_core.reporting import figures
from harmonifuse_core.reporting import page as page_module
from harmonifuse_core.reporting.page import Figure, ReportError, Section, Table, literal, plotly_script, render
from harmonifuse_core.routing import RoutingRecord, RoutingWriter
from harmonifuse_core.runs import RunError, RunFolder, write_json, write_text

HOSTILE = "</script><img src=x onerror=alert(1)>"
SCRIPT = re.compile(r"<script(?: type=\"application/json\" id=\"([\w-]+)\")?>(.*?)</script>", re.DOTALL)


@pytest.fixture
def run(tmp_path) -> RunFolder:
    """A run whose every text is hostile, without a model."""
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    save_yaml(tiny_config("whisper", title=HOSTILE, description=f"{HOSTILE}\n\nmore"), run.config_file)
    rows = [
        {"step": step, "tasks": {"asr": {"loss": 3.0 / step, "encoder_alpha": [0.2, 0.8], "lm_alpha": [0.5, 0.5]}},
         "dev": {HOSTILE: 0.5}}
        for step in (10, 20)
    ]  # fmt: skip
    write_text(run.metrics_file, "".join(json.dumps(row) + "\n" for row in rows))
    scores = {"ser": {"ua": 0.4321, "ua_ci": [0.3, 0.6], "utterances": 12, "speakers": 3, "ci_method": HOSTILE}}
    write_json(run.part("evaluation", f"{HOSTILE.replace('/', '')}.json"), scores)
    stored = {
        "name": HOSTILE, "question": f"Why {HOSTILE}?", "utterances": 5, "speakers": 2, "caution": HOSTILE,
        "verdicts": [{"about": HOSTILE, "verdict": "faithful", "evidence": HOSTILE}],
        "tables": {"layers": {"definition": "", "rows": [
            {"stage": "encoder", "target": HOSTILE, "probe": "linear", "metric": "ua", "layer": k, "score": 0.1 * k}
            for k in range(3)]}},
    }  # fmt: skip
    write_json(run.part("analysis", "faithfulness.json"), stored)
    write_json(run.part("probes", "probe.json"), stored)
    with RoutingWriter(run.part("routing", "test.parquet")) as writer:
        for alpha in ((0.25, 0.75), (0.35, 0.65)):
            writer.write([
                RoutingRecord(utterance="u", task=HOSTILE, prompt="", stage=stage, alpha=alpha, bias=alpha, score=alpha,
                              share=alpha[::-1], prediction=HOSTILE)
                for stage in ("encoder", "lm")
            ])  # fmt: skip
    return run


def outside_of_scripts(page: str) -> str:
    return SCRIPT.sub("", page)


def test_the_report_has_every_part_with_its_numbers(run):
    page = outside_of_scripts(report_html(run))
    for part in ("What this run is", "Results", "Which layers the tasks use", "Training", "Analysis: faithfulness",
                 "Probes: probe", "How to read this", "faithful", "Loss of each task", "Score by layer"):  # fmt: skip
        assert part in page
    assert "0.4321" in page and "0.6000" in page and "0.3000" in page  # UA, its interval, mean alpha of layer 0
    specs = [json.loads(text) for name, text in SCRIPT.findall(report_html(run)) if name]
    maps = [s for s in specs if s["data"][0]["type"] == "heatmap"]
    assert np.allclose(maps[0]["data"][0]["z"], [[0.3, 0.7]]) and np.allclose(maps[1]["data"][0]["z"], [[0.7, 0.3]])


def test_nothing_is_fetched_and_the_page_forbids_it(run):
    page = report_html(run)
    bare = outside_of_scripts(page)
    assert not re.search(r"(src|href|action|data|url)\s*[=(]\s*[\"']?\s*(https?:)?//", bare, re.IGNORECASE)
    assert "<link" not in bare and "@import" not in bare and "<iframe" not in bare
    assert "default-src 'none'" in bare and "unsafe-eval" not in bare
    assert page.count(plotly_script()) == 1


def test_hostile_text_stays_text(run):
    page = report_html(run)
    bare = outside_of_scripts(page)
    assert "<img" not in bare and html.escape(HOSTILE) in bare
    for name, text in SCRIPT.findall(page):
        if name:
            assert "<" not in text
            json.loads(text)
    scripts = [text for name, text in SCRIPT.findall(page) if not name]
    assert len(scripts) == 2  # plotly's and the one that starts it
    labels = json.dumps([json.loads(text) for name, text in SCRIPT.findall(page) if name])
    assert "<img" not in labels and "&lt;img" in labels  # plotly would read tags


def test_an_empty_run_says_what_to_do(tmp_path):
    run = RunFolder(tmp_path / "bare")
    run.path.mkdir()
    save_yaml(tiny_config("whisper", title="Bare"), run.config_file)
    page = outside_of_scripts(report_html(run))
    assert "This run is untrained" in page and "harmonifuse_core.train" in page
    assert page.count("harmonifuse_core.evaluate") == 2 and "Analysis:" not in page


def test_damaged_files_are_named_and_the_rest_is_told(run):
    write_text(run.part("evaluation", "bad.json"), "{")
    write_text(run.part("analysis", "list.json"), "[1]")
    run.part("routing", "bad.parquet").write_bytes(b"PAR1")
    write_text(run.metrics_file, '{"step": 1, "tasks": 3, "dev": []}\n[2]\n{"step": "x"}\n{"st')
    page = outside_of_scripts(report_html(run))
    for file in ("evaluation/bad.json", "analysis/list.json", "routing/bad.parquet"):
        assert file in page
    assert "0.4321" in page
    write_text(run.config_file, "model: [")
    with pytest.raises(RunError, match="is damaged"):
        report_html(run)


def test_the_command_writes_the_file_and_names_what_is_wrong(run, tmp_path, capsys):
    output = tmp_path / "out" / "report.html"
    assert main([str(run.path), "--output", str(output)]) == 0
    assert output.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert main([str(tmp_path / "nothing"), "--output", str(output)]) == 1
    assert "is not a run folder" in capsys.readouterr().err


def test_without_plotly_the_remedy_is_named(run, monkeypatch, capsys):
    monkeypatch.setattr(page_module, "find_spec", lambda name: None)
    with pytest.raises(ReportError, match="plotly is not installed"):
        report_html(run)
    assert main([str(run.path)]) == 1 and "pip install" in capsys.readouterr().err


def test_values_that_json_does_not_know_are_left_out_of_figures():
    spec = figures.lines({"a": ([1, 2, 3], [0.5, float("nan"), 1.0])}, "x", "y")
    assert spec["data"][0]["y"] == [0.5, None, 1.0]
    page = render("t", (), [Section("s", figures=(Figure("f", spec, "alt"),), tables=(Table("", ("a",), ((None,),)),))])
    assert "not available" in page


def test_long_series_are_thinned_with_their_ends():
    spec = figures.over_steps(list(range(5000)), np.full((5000, 3), 1 / 3), 0.5)
    assert len(spec["data"][0]["z"]) == 3 and len(spec["data"][0]["z"][0]) == figures.MOST_COLUMNS
    assert spec["data"][0]["customdata"][0][-1][1] == "4999"
    assert literal("<b>x</b>  y") == "&lt;b&gt;x&lt;/b&gt; y" and len(literal("x" * 99)) == 60


def test_no_two_series_look_alike():
    spec = figures.lines({f"s{k}": ([1, 2], [0.0, 1.0]) for k in range(30)}, "x", "y")
    assert len({(trace["line"]["color"], trace["line"]["dash"]) for trace in spec["data"]}) == 30
