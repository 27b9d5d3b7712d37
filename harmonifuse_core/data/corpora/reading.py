"""Reading a corpus's own lists: lines, tables, JSON lines. A line that cannot be used becomes a LeftOut, never a crash.

Every reader takes `root`, the raw folder: a list that is a link out of it is left out and named.
"""

import csv
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harmonifuse_core.data.corpora.entries import CorpusError, LeftOut, Reason

GENDERS = {
    "m": "m", "male": "m", "man": "m", "male_masculine": "m", "masculine": "m",
    "f": "f", "female": "f", "woman": "f", "female_feminine": "f", "feminine": "f",
    "w": "f", "other": "other", "o": "other", "non-binary": "other", "transgender": "other",
}  # fmt: skip


@dataclass(frozen=True)
class Line:
    """A line of a list. where: file below the raw folder and line number."""

    text: str
    where: str


@dataclass(frozen=True)
class Row:
    """A row of a table: value by column name, stripped; a missing column gives ""."""

    values: Mapping[str, Any]
    where: str

    def __getitem__(self, column: str) -> str:
        return self.values.get(column, "")


def inside(path: Path, root: Path) -> bool:
    """Whether a path, with its links followed, lies in `root`."""
    try:
        real, base = os.path.realpath(path), os.path.realpath(root)
    except ValueError:  # a NUL in the path
        return False
    return real == base or real.startswith(base.rstrip(os.sep) + os.sep)


def shown(path: Path, root: Path) -> str:
    try:
        return path.relative_to(root).as_posix()
    except ValueError:
        return path.name


def gender(word: str) -> str:
    """`m`, `f`, `other`, or "" where nothing is known."""
    return GENDERS.get(word.strip().lower(), "")


def number(text: str) -> float | None:
    """A finite number, None for anything else."""
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if abs(value) < float("inf") else None


def whole(text: str) -> int | str:
    """A whole number (an age), "" for anything else."""
    value = number(text)
    return int(value) if value is not None and value == int(value) else ""


def visible(paths) -> list[Path]:
    """Sorted paths without hidden ones: macOS leaves a `._NAME` beside every NAME, which looks like data and is not."""
    return sorted(path for path in paths if not path.name.startswith("."))


def audio_below(folder: Path, suffixes: Sequence[str] = (".wav",)) -> list[Path]:
    """Audio files below a folder, in order; links to folders are not followed."""
    return visible(path for path in folder.rglob("*") if path.suffix.lower() in suffixes)


def first_folder(raw: Path, candidates: Sequence[str], probe: str) -> Path | None:
    """`raw` or the first sub-folder of it that has something matching the pattern `probe`."""
    for name in ("", *candidates):
        for folder in visible(raw.glob(name)) if name else [raw]:
            if folder.is_dir() and any(visible(folder.glob(probe))):
                return folder
    return None


def _stray(path: Path, root: Path) -> LeftOut | None:
    """A list that is a link out of the raw folder is not opened."""
    if inside(path, root):
        return None
    return LeftOut(shown(path, root), Reason.OUTSIDE, "a link out of the raw folder: put the file itself there")


def _open(path: Path):
    try:
        # undecodable bytes become surrogates, so that one bad line does not cost the file
        return path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")
    except OSError as error:
        raise CorpusError(f"{path} cannot be read ({error.strerror}): check path and rights") from error


def _damaged(where: str, what: str) -> LeftOut:
    return LeftOut(where, Reason.DAMAGED, what)


def _utf8(text: str) -> bool:
    return not any("\ud800" <= c <= "\udfff" for c in text)


def lines(path: Path, root: Path) -> Iterator[Line | LeftOut]:
    """Lines that are not blank, stripped."""
    if stray := _stray(path, root):
        yield stray
        return
    with _open(path) as file:
        for count, text in enumerate(file, 1):
            where = f"{shown(path, root)}, line {count}"
            if not _utf8(text):
                yield _damaged(where, "not UTF-8 text")
            elif text.strip():
                yield Line(text.strip(), where)


def table(path: Path, root: Path, required: Sequence[str], *, tabs: bool = False) -> Iterator[Row | LeftOut]:
    """Rows of a CSV file, or of a TSV file (which knows no quotes). Raises CorpusError where a column is missing.

    A row is a line: a quote that is never closed costs its own line, and does not swallow the rest of the file.
    """
    if stray := _stray(path, root):
        yield stray
        return
    header: list[str] = []
    with _open(path) as file:
        for count, text in enumerate(file, 1):
            where = f"{shown(path, root)}, line {count}"
            text = text.rstrip("\r\n")
            if not text.strip():
                continue
            if not _utf8(text):
                yield _damaged(where, "not UTF-8 text")
                continue
            try:
                cells = text.split("\t") if tabs else next(csv.reader([text], strict=True))
            except csv.Error as error:
                yield _damaged(where, f"not a row of a CSV file ({error})")
                continue
            cells = [cell.strip() for cell in cells]
            if not header:
                header = cells
                if missing := [name for name in required if name not in header]:
                    raise CorpusError(
                        f"{where} has no column {missing[0]!r}; its columns are: {', '.join(header) or 'none'}"
                    )
            elif len(cells) != len(header):
                yield _damaged(where, f"{len(cells)} columns, the header has {len(header)}")
            else:
                yield Row(dict(zip(header, cells, strict=True)), where)


def objects(path: Path, root: Path) -> Iterator[Row | LeftOut]:
    """Objects of a JSON-lines file; values keep their JSON types."""
    for line in lines(path, root):
        if isinstance(line, LeftOut):
            yield line
        else:
            yield as_object(line.text, line.where)


def as_object(text: str, where: str) -> Row | LeftOut:
    """One JSON object with its place; LeftOut for anything else."""
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        return _damaged(where, f"not a JSON object ({getattr(error, 'msg', 'too deep')})")
    return Row(value, where) if isinstance(value, dict) else _damaged(where, "not a JSON object")


def pairs(path: Path, root: Path, broken: list[LeftOut]) -> list[tuple[str, str, str]]:
    """A Kaldi table: (first word, the rest of the line, where), in order; none where the file does not exist."""
    if not path.is_file():
        return []
    found = []
    for line in lines(path, root):
        if isinstance(line, LeftOut):
            broken.append(line)
        else:
            key, *rest = line.text.split(None, 1)
            found.append((key, rest[0] if rest else "", line.where))
    return found
