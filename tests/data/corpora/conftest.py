"""Look-alike trees of 0.2 s files, built in a temporary folder, and one call that prepares them and reads them back."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from harmonifuse_core.data.corpora.registry import CORPORA
from harmonifuse_core.data.corpora.reporting import Report
from harmonifuse_core.data.corpora.writing import Settings, prepare, report_path
from harmonifuse_core.data.manifest import Utterance, read_manifest

SECONDS, RATE = 0.2, 16_000


class Tree:
    """A raw folder. Paths are given below it; the parent folders come by themselves."""

    def __init__(self, root: Path):
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def __truediv__(self, path: str) -> Path:
        return self.root / path

    def _place(self, path: str) -> Path:
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        return place

    def audio(self, *paths: str, rate: int = RATE, seconds: float = SECONDS):
        """Noise in the format that each suffix names."""
        for path in paths:
            noise = np.random.default_rng(len(path)).uniform(-0.3, 0.3, round(rate * seconds)).astype("f4")
            sf.write(self._place(path), noise, rate)

    def text(self, path: str, *lines: str):
        self._place(path).write_text("".join(line + "\n" for line in lines), encoding="utf-8")

    def bytes(self, path: str, content: bytes):
        self._place(path).write_bytes(content)

    def header_only(self, path: str):
        """A WAV file whose samples got lost."""
        self.audio(path)
        self.bytes(path, (self.root / path).read_bytes()[:44])

    def cut_off(self, path: str):
        """A WAV file of which half is there."""
        self.audio(path)
        content = (self.root / path).read_bytes()
        self.bytes(path, content[: len(content) // 2])


@dataclass
class Prepared:
    """What came out: the report, its JSON, the utterances as the rest of the program reads them, the raw lines."""

    report: Report
    json: dict
    utterances: dict[str, Utterance]
    rows: dict[str, dict]
    out: Path

    @property
    def ids(self) -> list[str]:
        return sorted(self.rows)

    def why(self) -> dict[str, str]:
        """id -> reason for all that was left out."""
        return {item["id"]: reason for reason, part in self.json["left_out"].items() for item in part["items"]}

    def detail(self, item: str) -> str:
        found = [i["detail"] for part in self.json["left_out"].values() for i in part["items"] if i["id"] == item]
        assert len(found) == 1, f"{item} is left out {len(found)} times"
        return found[0]


@pytest.fixture
def tree(tmp_path) -> Tree:
    return Tree(tmp_path / "raw")


@pytest.fixture
def run(tree, tmp_path):
    """run(name, raw=..., settings..., **options) -> Prepared; the manifest is not in the raw folder."""

    def _run(name: str, raw: Path | None = None, settings: dict | None = None, **options) -> Prepared:
        out = tmp_path / "made" / f"{name}.jsonl"
        report = prepare(CORPORA[name], raw or tree.root, out, Settings(**(settings or {})), options)
        utterances = {u.id: u for u in read_manifest(out)}
        rows = {row["id"]: row for row in map(json.loads, out.read_text(encoding="utf-8").splitlines())}
        assert list(utterances) == list(rows)
        for utterance in utterances.values():
            assert utterance.audio.is_file()
            assert utterance.duration == pytest.approx(sf.info(utterance.audio).duration, abs=2e-3)
        assert all(not Path(row["audio_filepath"]).is_absolute() for row in rows.values())
        assert not list(out.parent.glob(".*")), "a temporary file is left over"
        return Prepared(report, json.loads(report_path(out).read_text()), utterances, rows, out)

    return _run
