"""The one runner of every corpus: check each entry, refuse with a reason, divide into splits, write atomically.

A first pass checks the entries and keeps the lines in a temporary file, so that memory holds ids and not lines; a
second one gives every line its split. `OUT.jsonl` and `OUT.report.json` appear when all is done, or not at all.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from harmonifuse_core.data.corpora.checking import Checker
from harmonifuse_core.data.corpora.entries import BY_SPEAKER, NONE, OFFICIAL, Corpus, CorpusError, Entry
from harmonifuse_core.data.corpora.reporting import FIRST, NO_SPEAKER, Report
from harmonifuse_core.data.corpora.splitting import ALL, DEV, TRAIN, UNUSED, combine, divide

SHARE = 0.1


@dataclass(frozen=True)
class Settings:
    """What the caller asks of any corpus.

    Args:
        force: replace an existing manifest.
        splits: OFFICIAL, BY_SPEAKER or NONE; "" is what the corpus says.
        split_seed: another seed, other speakers in dev and test.
        dev_share, test_share: of the speakers; None is 0.1 where the splits are made here. With official splits, a
            dev_share takes dev out of train.
        also_disjoint: a manifest field (`sentence`) that no two splits may share either; what this costs is `unused`.
        need_text: leave out utterances without transcript, also where the corpus is one of labels.
        cut: write parts of longer recordings as files of their own; without it they are left out.
        audio_root: a second folder that the raw lists may name audio in.
    """

    force: bool = False
    splits: str = ""
    split_seed: int = 0
    dev_share: float | None = None
    test_share: float | None = None
    also_disjoint: str = ""
    need_text: bool = False
    cut: bool = False
    audio_root: str = ""

    def __post_init__(self):
        if self.splits not in ("", OFFICIAL, BY_SPEAKER, NONE):
            raise CorpusError(f"splits {self.splits!r} is unknown; use {OFFICIAL}, {BY_SPEAKER} or {NONE}")
        shares = [share or 0 for share in (self.dev_share, self.test_share)]
        if min(shares) < 0 or sum(shares) >= 1:
            raise CorpusError(f"dev and test shares {shares}: each must be 0 or more, and together below 1")


def prepare(
    corpus: Corpus,
    raw: str | Path,
    out: str | Path,
    settings: Settings = Settings(),
    options: Mapping[str, Any] | None = None,
) -> Report:
    """Write the manifest of a raw folder and its report. Raises CorpusError, and then leaves no manifest behind."""
    raw, out = Path(raw), Path(out)
    options = corpus.defaults() | dict(options or {})
    _check_request(raw, out, settings)
    published = corpus.published_for(raw, options) if corpus.published_for else corpus.published
    request = {"raw": str(raw), "manifest": str(out), **asdict(settings), **options}
    report = Report(corpus, published, request)
    out.parent.mkdir(parents=True, exist_ok=True)
    checker = Checker(corpus, raw, out, settings.need_text, settings.cut, settings.audio_root, report)
    checked, final = (out.with_name(f".{out.name}.{os.getpid()}.{part}") for part in ("checked", "part"))
    try:
        with checked.open("w", encoding="utf-8") as file:
            for item in tqdm(
                corpus.entries(raw, options | {"out": out, "audio_root": settings.audio_root}),
                unit=" entries",
                disable=None,
                leave=False,
            ):
                if not isinstance(item, Entry):
                    report.leave_out(item)
                elif (row := checker.row(item)) is not None:
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
        if not checker.ids:
            raise CorpusError(_nothing(report, raw))
        _write_with_splits(checked, final, corpus, settings, report)
        report_file = report_path(out)
        temporary = report_file.with_name(f".{report_file.name}.{os.getpid()}.part")
        try:
            text = json.dumps(report.as_json(), indent=1, allow_nan=False)
            temporary.write_text(text + "\n", encoding="utf-8")
            temporary.replace(report_file)
        finally:
            temporary.unlink(missing_ok=True)
        final.replace(out)
    finally:
        checked.unlink(missing_ok=True)
        final.unlink(missing_ok=True)
    return report


def report_path(out: str | Path) -> Path:
    return Path(out).with_suffix(".report.json")


def _check_request(raw: Path, out: Path, settings: Settings):
    if not raw.exists():
        raise CorpusError(f"raw folder {str(raw)!r} does not exist: give the folder that the corpus was unpacked into")
    if out.suffix != ".jsonl":
        raise CorpusError(f"manifest {str(out)!r} must be named .jsonl: its report goes beside it as .report.json")
    if out.is_dir():
        raise CorpusError(f"manifest {str(out)!r} is a folder: name a file in it")
    if out.exists() and not settings.force:
        raise CorpusError(f"{str(out)!r} exists already: give another name, or --force to replace it")


def _nothing(report: Report, raw: Path) -> str:
    if not report.left_out:
        return f"nothing of {report.corpus.title} was found in {raw}; it must hold {report.corpus.layout}"
    told = []
    for reason in sorted(report.left_out):
        first = ", ".join(f"{item.id} ({item.detail})" for item in report.left_out[reason][:FIRST])
        told.append(f"{reason}: {report.total_left_out(reason):,} (first: {first})")
    return f"no utterance of {raw} can be used, so no manifest was written; " + "; ".join(told)


def _rows(path: Path):
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def _write_with_splits(checked: Path, final: Path, corpus: Corpus, settings: Settings, report: Report):
    """Second pass: the split of every line, the counts, the manifest."""
    mode = settings.splits or corpus.splits
    split_of = _splitter(checked, mode, settings, report)
    with final.open("w", encoding="utf-8") as file:
        for row in _rows(checked):
            row["split"] = split_of(row)
            report.count(row)
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _splitter(checked: Path, mode: str, settings: Settings, report: Report):
    """A function from a line to its split."""
    if mode == NONE:
        return lambda row: ALL
    carve = mode == OFFICIAL and bool(settings.dev_share)
    if mode == OFFICIAL and not carve:
        return lambda row: row.get("split") or ALL
    dev = SHARE if settings.dev_share is None else settings.dev_share
    test = 0.0 if carve else SHARE if settings.test_share is None else settings.test_share
    speakers, others, splits = {}, {}, set()
    for row in _rows(checked):
        splits.add(row.get("split"))
        if carve and row.get("split") != TRAIN:
            continue
        if row.get("speaker"):
            speakers.setdefault(row["speaker"], str(row.get("gender", "")))
        else:
            report.remarks[NO_SPEAKER].append(row["id"])
        if settings.also_disjoint:
            others[str(row.get(settings.also_disjoint, ""))] = ""
    if carve and DEV in splits:
        raise CorpusError(
            f"{report.corpus.name} has an official {DEV} split: leave --dev-share out, or use --splits speaker"
        )
    wanted = 1 + (dev > 0) + (test > 0)
    if len(speakers) < wanted:
        report.notices.append(
            f"{len(speakers)} speakers cannot be divided into {wanted} splits without overlap: everything is {TRAIN}"
        )
    if report.remarks.get(NO_SPEAKER):
        report.notices.append(
            f"utterances without speaker are in {TRAIN}; whether their speaker is held out is not known"
        )
    by_speaker = divide(speakers, dev, test, settings.split_seed)
    by_other = divide(others, dev, test, settings.split_seed)
    if settings.also_disjoint and (len(others) < wanted or set(others) == {""}):
        raise CorpusError(
            f"--also-disjoint {settings.also_disjoint}: {len(others)} values cannot be divided into {wanted} splits"
        )

    def split_of(row: dict) -> str:
        if carve and row.get("split") != TRAIN:
            return row.get("split") or ALL
        split = by_speaker.get(row.get("speaker", ""), TRAIN)
        if not settings.also_disjoint:
            return split
        return combine(split, by_other[str(row.get(settings.also_disjoint, ""))])

    if settings.also_disjoint:
        report.notices.append(
            f"speakers and values of {settings.also_disjoint!r} are both held out; utterances of a held-out one "
            f"with a kept other are split {UNUSED!r}"
        )
    return split_of
