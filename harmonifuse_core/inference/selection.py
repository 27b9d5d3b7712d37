"""Which utterances of a manifest: the selectors that `evaluate` and `calibrate` share, and their command line."""

import argparse
import operator
import re
from dataclasses import dataclass, field
from pathlib import Path

from harmonifuse_core.data.manifest import Utterance, read_manifest
from harmonifuse_core.inference.sources import Source, SourceError, manifest_sources

TEXT_RELATIONS = {"=": operator.eq, "!=": operator.ne}
NUMBER_RELATIONS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}


@dataclass(frozen=True)
class Condition:
    """`field` of an utterance compared with `value`: = and != as text, the others as numbers. A missing field fails."""

    field: str
    relation: str
    value: str

    def holds(self, utterance: Utterance) -> bool:
        found = utterance.field(self.field)
        if found is None:
            return False
        if self.relation in TEXT_RELATIONS:
            return TEXT_RELATIONS[self.relation](found, self.value)
        try:
            return NUMBER_RELATIONS[self.relation](float(found), float(self.value))
        except ValueError:
            raise SourceError(f"--where {self}: {self.field} of {utterance.id!r} is {found!r}, not a number") from None

    def __str__(self) -> str:
        return f"{self.field}{self.relation}{self.value}"


@dataclass(frozen=True)
class Selection:
    """Utterances of one manifest.

    speakers, exclude_speakers: keep or drop. ids: regular expression to be found in the id. where: conditions on
    manifest fields. label_map: manifest label -> model label ('' leaves it out). limit: the first N of what is left
    (0: all).
    """

    manifest: str
    split: str = ""
    speakers: tuple[str, ...] = ()
    exclude_speakers: tuple[str, ...] = ()
    ids: str = ""
    where: tuple["Condition", ...] = ()
    label_map: dict[str, str] = field(default_factory=dict)
    limit: int = 0

    def sources(self) -> list[Source]:
        """In the manifest's order. Raises ManifestError or SourceError; a misspelt speaker must not change a result."""
        rows = read_manifest(self.manifest, self.split)
        if named := {*self.speakers, *self.exclude_speakers}:
            known = {u.speaker for u in (read_manifest(self.manifest) if self.split else rows)}
            if unknown := sorted(named - known):
                raise SourceError(f"{Path(self.manifest).name} has no speaker {unknown[0]!r}; it has {_some(known)}")
        rows = [
            u
            for u in rows
            if (not self.speakers or u.speaker in self.speakers) and u.speaker not in self.exclude_speakers
        ]
        rows = [u for u in rows if re.search(self.ids, u.id) and all(c.holds(u) for c in self.where)]
        if not rows:
            raise SourceError(
                f"{Path(self.manifest).name}: no utterance is left; "
                "loosen --speakers, --exclude-speakers, --ids or --where"
            )
        return manifest_sources(self.manifest, rows[: self.limit or None])

    def as_dict(self) -> dict:
        """For the record: the manifest by its name, without the machine's folders."""
        return {
            "manifest": Path(self.manifest).name, "split": self.split, "speakers": list(self.speakers),
            "exclude_speakers": list(self.exclude_speakers), "ids": self.ids, "where": [str(c) for c in self.where],
            "label_map": self.label_map, "limit": self.limit,
        }  # fmt: skip


def _some(names) -> str:
    names = sorted(filter(None, names))
    return (", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")) or "none"


class _SelectionAction(argparse.Action):
    """Gathers selectors in `namespace.selections`; each `--manifest` after the first begins another corpus."""

    def __call__(self, parser, namespace, value, option_string=None):
        gathered = getattr(namespace, "selections", None) or [{}]
        if self.dest in gathered[-1]:
            if self.dest != "manifest":
                parser.error(f"{option_string} stands twice for one --manifest")
            gathered.append({})
        gathered[-1][self.dest] = value
        namespace.selections = gathered


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _pairs(text: str) -> dict[str, str]:
    pairs = {}
    for item in _names(text):
        name, separator, label = item.partition("=")
        if not separator:
            raise argparse.ArgumentTypeError(f"{item!r}: write manifest_label=model_label, e.g. anger=angry")
        pairs[name.strip()] = label.strip()
    return pairs


def _conditions(text: str) -> tuple[Condition, ...]:
    found = []
    for item in _names(text):
        match = re.fullmatch(r"([A-Za-z_]\w*)\s*(>=|<=|!=|=|<|>)\s*(.+)", item)
        if not match:
            raise argparse.ArgumentTypeError(f"{item!r}: write field=value or field>=number, e.g. age>=18")
        condition = Condition(*match.groups())
        if condition.relation in NUMBER_RELATIONS and not re.fullmatch(r"[-+]?\d+(\.\d*)?", condition.value):
            raise argparse.ArgumentTypeError(f"{item!r}: {condition.value!r} is not a number")
        found.append(condition)
    return tuple(found)


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no regular expression ({error})") from None
    return text


def _count(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r}: give a number of utterances, at least 1")
    return int(text)


def add_selection_arguments(parser: argparse.ArgumentParser):
    """`--manifest` and its selectors; read them back with `selections_of`."""

    def add(name, help, **kwargs):
        parser.add_argument(name, action=_SelectionAction, default=argparse.SUPPRESS, help=help, **kwargs)

    add("--manifest", "JSONL manifest; audio paths are relative to it", required=True, metavar="M.jsonl")
    add("--split", "value of the manifest's split field (default: all)")
    add("--speakers", "only these", type=_names, metavar="A,B")
    add("--exclude-speakers", "all but these", type=_names, metavar="A,B")
    add("--ids", "only ids in which this regular expression is found", type=_pattern, metavar="REGEX")
    add("--where", "only where these hold, e.g. 'age>=18,gender=f'", type=_conditions, metavar="FIELD>=VALUE,...")
    add(
        "--label-map",
        "manifest label=model label; an empty model label leaves it out",
        type=_pairs,
        metavar="anger=angry,...",
    )
    add("--limit", "only the first N of what is left", type=_count, metavar="N")


def selections_of(namespace: argparse.Namespace) -> list[Selection]:
    return [Selection(**fields) for fields in namespace.selections]
