"""What came out of a corpus: counts, what was left out and why, and the comparison with the published count."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from harmonifuse_core.data.audio import SAMPLE_RATE
from harmonifuse_core.data.corpora.entries import Corpus, LeftOut, Published, Reason

FIRST = 5  # ids that are printed for each reason; the JSON report has all
MOST_VALUES = 12  # of a field, in the printed counts
LONGEST = 300  # characters of an id or a detail, printed
NAMED_CHOICES = 100_000  # ids kept of what is left out by choice: a threshold on Emilia leaves out millions
CUT_OFF, SHORTER, NO_TEXT, NO_SPEAKER = "cut off", "shorter than stated", "no transcript", "no speaker"
REMARKS = {
    CUT_OFF: "cut off: the file is shorter than its header promises (kept)",
    SHORTER: "shorter than the corpus states (kept)",
    NO_TEXT: "no transcript (kept: the corpus is used for its labels)",
    NO_SPEAKER: "no speaker is named (kept)",
}


@dataclass
class Report:
    """Filled by the runner. `as_json()` is written beside the manifest, `lines()` are for the terminal."""

    corpus: Corpus
    published: Published
    request: dict[str, Any]
    written: int = 0
    seconds: float = 0.0
    counts: dict[str, Counter] = field(default_factory=lambda: defaultdict(Counter))
    hours: Counter = field(default_factory=Counter)
    speakers: dict[str, set] = field(default_factory=lambda: defaultdict(set))
    rates: Counter = field(default_factory=Counter)
    odd_rates: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    left_out: dict[Reason, list[LeftOut]] = field(default_factory=lambda: defaultdict(list))
    choices: Counter = field(default_factory=Counter)
    remarks: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    notices: list[str] = field(default_factory=list)

    def leave_out(self, item: LeftOut):
        if item.reason is Reason.CHOICE:
            self.choices[item.detail] += 1
            if len(self.left_out[Reason.CHOICE]) >= NAMED_CHOICES:
                return
        self.left_out[item.reason].append(item)

    def count(self, row: dict):
        """A line of the manifest, with its final split."""
        self.written += 1
        self.seconds += row["duration"]
        self.rates[row["sample_rate"]] += 1
        if self._unexpected(row["sample_rate"]):
            self.odd_rates[row["sample_rate"]].append(row["id"])
        for name in {"split", *self.corpus.counted, *filter(None, [self.published.by])}:
            if row.get(name) not in (None, ""):
                self.counts[name][str(row[name])] += 1
        if self.published.hours:
            self.hours[str(row.get(self.published.by))] += row["duration"] / 3600
        if row.get("speaker"):
            self.speakers[row["split"]].add(row["speaker"])

    def total_left_out(self, reason: Reason) -> int:
        return self.choices.total() if reason is Reason.CHOICE else len(self.left_out[reason])

    def shared_speakers(self) -> dict[str, list[str]]:
        """Speakers that stand in more than one split, with these splits."""
        splits = defaultdict(list)
        for split in sorted(self.speakers):
            for speaker in self.speakers[split]:
                splits[speaker].append(split)
        return {speaker: where for speaker, where in sorted(splits.items()) if len(where) > 1}

    def comparison(self) -> list[str]:
        """Found against published, in sentences."""
        if self.published.hours:
            return [_against(self.published.hours, self.hours, " h", self.published.note)]
        if not self.published.total and not self.published.parts:
            return [f"published count: not available ({self.published.note or 'the folder is your own'})"]
        published, lines = self.published, []
        found = self.counts[published.by] if published.by else Counter()
        parts = {name: n for name, n in published.parts.items() if found[name] or not published.optional}
        skipped = [name for name in published.parts if name not in parts]
        total = sum(parts.values()) if skipped else published.total or sum(parts.values())
        here = self.written + (self.choices.total() if published.before_choice else 0)
        difference = total - here
        verdict = (
            "complete"
            if not difference
            else f"{difference:,} missing"
            if difference > 0
            else f"{-difference:,} too many"
        )
        included = (
            f" ({self.choices.total():,} of them left out by choice)"
            if published.before_choice and self.choices
            else ""
        )
        what = f" ({published.note})" if published.note else ""
        lines.append(f"published {total:,}{what}, found {here:,}{included}: {verdict}")
        if difference and parts:
            wrong = {name: n - found[name] for name, n in parts.items() if n != found[name]}
            told = ", ".join(f"{name} {parts[name]:,} published, {found[name]:,} found" for name in wrong)
            lines += [f"  by {published.by}: {told}"] if wrong else []
        if skipped:
            lines.append(f"  not in this folder: {', '.join(skipped)}")
        return lines

    def as_json(self) -> dict:
        speakers = {split: len(names) for split, names in sorted(self.speakers.items())}
        return {
            "corpus": self.corpus.name,
            "title": self.corpus.title,
            "licence": self.corpus.licence,
            "source": self.corpus.source,
            "request": self.request,
            "written": self.written,
            "hours": round(self.seconds / 3600, 4),
            "counts": {name: dict(sorted(counter.items())) for name, counter in sorted(self.counts.items())},
            "speakers": {"total": len(set().union(*self.speakers.values())), "by_split": speakers},
            "speakers_in_several_splits": self.shared_speakers(),
            "published": self.comparison(),
            "left_out": {
                str(reason): {
                    "count": self.total_left_out(reason),
                    "items": [{"id": item.id, "detail": item.detail} for item in items],
                }
                for reason, items in sorted(self.left_out.items())
            },
            "left_out_by_choice": dict(self.choices.most_common()),
            "sample_rates": {
                str(rate): {"count": count, "note": self._rate_note(rate)}
                | ({"ids": self.odd_rates[rate]} if self._unexpected(rate) else {})
                for rate, count in sorted(self.rates.items())
            },
            "remarks": {
                kind: {"meaning": REMARKS[kind], "count": len(ids), "ids": ids} for kind, ids in self.remarks.items()
            },
            "notices": self.notices,
        }

    def lines(self) -> list[str]:
        """The report for people: what was written, what was not and why, what to mind."""
        told = [f"{self.corpus.title}: {self.written:,} utterances, {self.seconds / 3600:.2f} hours"]
        for name in ("split", *(n for n in self.corpus.counted if n in self.counts)):
            values = self.counts[name].most_common(MOST_VALUES)
            rest = len(self.counts[name]) - len(values)
            told.append(
                f"  {name}: "
                + ", ".join(f"{_plain(v)} {n:,}" for v, n in values)
                + (f" and {rest} more values" if rest else "")
            )
        by_split = ", ".join(f"{split} {len(names):,}" for split, names in sorted(self.speakers.items()))
        told.append(
            f"  speakers: {len(set().union(*self.speakers.values())):,}" + (f" ({by_split})" if by_split else "")
        )
        for rate, count in sorted(self.rates.items()):
            first = f"; first: {_first(self.odd_rates[rate])}" if self._unexpected(rate) else ""
            told.append(f"  {self._rate_note(rate)}: {count:,}{first}")
        told += self.comparison()
        if shared := self.shared_speakers():
            told.append(f"mind: {len(shared):,} speakers stand in more than one split; first: {_first(list(shared))}")
        for reason in sorted(self.left_out):
            told.append(f"left out, {reason}: {self.total_left_out(reason):,}")
            if reason is Reason.CHOICE:
                told += [f"    {_plain(detail)}: {n:,}" for detail, n in self.choices.most_common(MOST_VALUES)]
            else:
                told += [f"    {_plain(item.id)} ({_plain(item.detail)})" for item in self.left_out[reason][:FIRST]]
        for kind, ids in self.remarks.items():
            told.append(f"{REMARKS[kind]}: {len(ids):,}; first: {_first(ids)}")
        return told + [f"mind: {notice}" for notice in self.notices]

    def _unexpected(self, rate: int) -> bool:
        return rate != (self.corpus.rate or rate)

    def _rate_note(self, rate: int) -> str:
        """`rate 8000 Hz, will be resampled`, and what the authors published where that differs."""
        resampled = "" if rate == SAMPLE_RATE else ", will be resampled"
        return f"rate {rate} Hz{resampled}" + (f" (published: {self.corpus.rate} Hz)" if self._unexpected(rate) else "")


def _against(published, found, unit: str, note: str) -> str:
    parts = [
        f"{name} published {published[name]:,.0f}{unit}, found {found[name]:,.2f}{unit}"
        for name in published
        if found[name]
    ]
    absent = [name for name in published if not found[name]]
    told = "; ".join(parts) or "nothing of what is published was found"
    return told + (f"; not in this folder: {', '.join(absent)}" if absent else "") + (f" ({note})" if note else "")


def _plain(text) -> str:
    """For a terminal: names from a raw folder may hold control and direction characters."""
    return "".join(c for c in str(text) if c.isprintable())[:LONGEST]


def _first(ids) -> str:
    return ", ".join(_plain(i) for i in ids[:FIRST])
