"""What is asked of the layers: targets from labels (emotion, speaker, gender, age, language, words, any manifest field)
and from the signal (pitch, energy, rate, duration, snr).

Shapes: `N` utterances, `W` problems of a target (1; of words one a word).
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from harmonifuse_core.data.manifest import Utterance
from harmonifuse_core.inference.evaluation import model_label
from harmonifuse_core.metrics import normalize_text
from harmonifuse_core.tasks import EMOTIONS
from probes.signal import MEASURES

LEAST_SPEAKERS, LEAST_UTTERANCES = 3, 6  # of a class, to be learnt, chosen and tested on different speakers
MOST_WORDS, RAREST = 12, 0.1  # words, and the least share of utterances with (and without) a word
AGES = ((0, 12, "child"), (13, 17, "teenager"), (18, 59, "adult"), (60, 200, "senior"))
LABELS = {
    "emotion": "The manifest's emotion, names of one emotion united.",
    "speaker": "Who speaks, among the corpus's speakers; tested on other texts of the same speakers.",
    "gender": "The manifest's gender.",
    "age": "Age group: child to 12, teenager to 17, adult to 59, senior from 60 years.",
    "language": "The manifest's language.",
    "words": "Is the word spoken? One yes-no problem for each of the most frequent words that vary; mean over them.",
}
TARGETS = (*LABELS, *MEASURES)
METRICS = {"classes": "ua", "words": "word_ua", "number": "r2"}


@dataclass(frozen=True, eq=False)
class Target:
    """labels: (N, W) class codes with -1 for none, or (N,) numbers with NaN. classes: names; of words the words.
    left_out: {label: utterances} of classes with too few speakers or utterances."""

    name: str
    kind: str
    source: str
    definition: str
    labels: np.ndarray
    classes: tuple[str, ...] = ()
    unit: str = ""
    left_out: Mapping[str, int] = field(default_factory=dict)
    caution: str = ""

    @property
    def is_number(self) -> bool:
        return self.kind == "number"

    @property
    def metric(self) -> str:
        return METRICS[self.kind]

    @property
    def problems(self) -> int:
        return 1 if self.is_number else self.labels.shape[1]

    @property
    def width(self) -> int:
        """Classes of each problem; 1 of numbers."""
        return {"number": 1, "words": 2}.get(self.kind, len(self.classes))

    @property
    def known(self) -> np.ndarray:
        """(N,) bool: utterances that have the label."""
        return np.isfinite(self.labels) if self.is_number else (self.labels >= 0).all(1)

    @property
    def counts(self) -> list[int]:
        if self.is_number:
            return []
        if self.kind == "words":
            return (self.labels == 1).sum(0).tolist()
        return np.bincount(self.labels[self.known, 0], minlength=len(self.classes)).tolist()

    @property
    def chance(self) -> float:
        return 0.0 if self.is_number else 1 / self.width

    def names(self, codes: np.ndarray) -> list:
        """Class names or numbers for (N,) codes, None where there is none."""
        if self.is_number:
            return [None if not np.isfinite(v) else float(v) for v in codes]
        return [None if c < 0 else self.classes[c] for c in codes]


def label_target(
    name: str, utterances: Sequence[Utterance], label_map: Mapping[str, str] | None = None,
    least: tuple[int, int] = (LEAST_SPEAKERS, LEAST_UTTERANCES),
) -> Target:  # fmt: skip
    """Raises ValueError where fewer than two classes have enough speakers. Other names are manifest fields."""
    if name == "words":
        return word_target(utterances)
    raw = [_value(name, u, label_map or {}) for u in utterances]
    if not any(v is not None for v in raw):
        have = sorted({k for u in utterances for k in (*u.labels, *(f for f in ("text", "speaker") if u.field(f)))})
        raise ValueError(f"target {name}: no utterance has it; the manifest has {', '.join(have) or 'no labels'}")
    speakers: dict[str, set] = {}
    for value, utterance in zip(raw, utterances, strict=True):
        if value is not None:
            speakers.setdefault(value, set()).add(utterance.speaker or utterance.id)
    counts = Counter(v for v in raw if v is not None)
    least_speakers = 1 if name == "speaker" else least[0]
    kept = sorted(v for v in counts if len(speakers[v]) >= least_speakers and counts[v] >= least[1])
    kept = [e for e in EMOTIONS if e in kept] + [v for v in kept if v not in EMOTIONS] if name == "emotion" else kept
    left_out = {v: n for v, n in sorted(counts.items()) if v not in kept}
    if len(kept) < 2:
        raise ValueError(
            f"target {name}: {len(kept)} of {len(counts)} classes have {least_speakers} speakers and {least[1]} "
            "utterances; two are needed: take a manifest with more, or leave the target out"
        )
    codes = np.array([kept.index(v) if v in kept else -1 for v in raw])[:, None]
    definition = LABELS.get(name, f"The manifest's field {name}.")
    return Target(name, "classes", "label", definition, codes, tuple(kept), left_out=left_out)


def _value(name: str, utterance: Utterance, label_map: Mapping[str, str]) -> str | None:
    raw = utterance.field(name)
    if raw is None:
        return None
    if name == "emotion":
        found = model_label(raw, EMOTIONS, label_map)
        return found if found or raw in label_map else raw
    if name == "age":
        try:
            years = float(raw)
        except ValueError:
            return raw
        return next((group for low, high, group in AGES if low <= years < high + 1), None)
    return label_map.get(raw, raw) or None


def word_target(utterances: Sequence[Utterance]) -> Target:
    """Raises ValueError where no word varies. Words that always come and go together are one problem."""
    texts = [u.text if u.text else None for u in utterances]
    words = [None if t is None else set(re.findall(r"[^\W\d_]+(?:'\w+)?", normalize_text(t))) for t in texts]
    known = [w for w in words if w is not None]
    if not known:
        raise ValueError("target words: no utterance has a text; leave the target out")
    counts = Counter(w for spoken in known for w in spoken)
    most = (1 - RAREST) * len(known)
    candidates = [w for w, c in sorted(counts.items(), key=lambda x: (-x[1], x[0])) if RAREST * len(known) <= c <= most]
    columns, names = {}, []
    for word in candidates:
        column = np.array([-1 if w is None else int(word in w) for w in words])
        keys = column.tobytes(), np.where(column < 0, -1, 1 - column).tobytes()
        if not any(key in columns for key in keys):
            columns[keys[0]] = column
            names.append(word)
        if len(names) == MOST_WORDS:
            break
    if not names:
        raise ValueError(
            f"target words: no word is in {RAREST:.0%} to {1 - RAREST:.0%} of the {len(known)} texts; leave it out"
        )
    shared = _shared_texts(utterances)
    caution = (
        f"{shared:.0%} of the utterances have a text that other speakers say too: a probe may know the sentence, "
        "not the word"
        if shared > 0.1
        else ""
    )
    codes = np.stack(list(columns.values()), 1)
    return Target("words", "words", "label", LABELS["words"], codes, tuple(names), caution=caution)


def _shared_texts(utterances: Sequence[Utterance]) -> float:
    speakers: dict[str, set] = {}
    for u in utterances:
        if u.text:
            speakers.setdefault(normalize_text(u.text), set()).add(u.speaker or u.id)
    known = [u for u in utterances if u.text]
    return sum(len(speakers[normalize_text(u.text)]) > 1 for u in known) / len(known)


def signal_target(name: str, measured: np.ndarray) -> Target:
    """measured (N, measures): columns as in `signal.MEASURES`. Raises ValueError where it does not vary."""
    column, measure = list(MEASURES).index(name), MEASURES[name]
    values = measured[:, column].astype(float)
    if np.isfinite(values).sum() < 2 * LEAST_UTTERANCES or np.nanstd(values) < 1e-6:
        raise ValueError(f"target {name}: {np.isfinite(values).sum()} utterances have it, or it does not vary")
    return Target(name, "number", "signal", measure.definition, values, unit=measure.unit)
