"""A task: its name, the prompts that convey it to the language model, its labels or text output, its loss and metric.

ASR and SER are two entries of `BUILTIN_TASKS`; further tasks are added in the YAML file alone (`model.tasks`).
"""

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass

TRANSCRIPTION, CLASSIFICATION, CTC = "transcription", "classification", "ctc"
CHARACTERS, SYMBOLS = "characters", "symbols"
ALPHABET = (" ", "'", *"abcdefghijklmnopqrstuvwxyz")
EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")


@dataclass(frozen=True)
class TaskConfig:
    """One task of the model.

    Args:
        name: short key, used in files and charts (`asr`).
        kind: `transcription` (text, token by token), `classification` (one of `labels`), `ctc` (`labels` in a row,
            frame by frame: phonemes, letters).
        prompts: paraphrases of the instruction; the first is the default at inference, training draws one a sample.
        labels: class names in their fixed order, or the units of `ctc` (empty: the English alphabet); empty for
            transcription.
        field: manifest field that holds the target (`text`, `emotion`, `speaker`, ...).
        loss_weight: factor of this task's loss in the sum.
        label_smoothing: in [0, 1).
        edges: class borders of a number in `field`, rising; a value from edge k on is of class k + 1 (`[18]` with
            labels `[child, adult]` makes an age group).
        units: of `ctc`: `characters` of a text, or `symbols` between spaces (phonemes).
        absent_weight: of the penalty on probability beyond chance of classes that the corpus lacks (0: none).
        trains_encoder: false keeps this task's loss from a fine-tuned encoder: it trains gates, LM and heads only. Few
            speakers teach an encoder to tell them apart.
    """

    name: str
    kind: str = CLASSIFICATION
    prompts: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    field: str = "emotion"
    loss_weight: float = 1.0
    label_smoothing: float = 0.0
    edges: tuple[float, ...] = ()
    units: str = CHARACTERS
    absent_weight: float = 0.0
    trains_encoder: bool = True

    def __post_init__(self):
        if not self.name.isidentifier():
            raise ValueError(f"task name {self.name!r}: use letters, digits and underscores")
        if self.kind not in (TRANSCRIPTION, CLASSIFICATION, CTC):
            raise ValueError(
                f"task {self.name}: kind {self.kind!r} is unknown; use {TRANSCRIPTION}, {CLASSIFICATION} or {CTC}"
            )
        self._check_units()
        if not self.prompts or not all(p.strip() for p in self.prompts):
            raise ValueError(f"task {self.name}: give at least one non-empty prompt")
        if self.kind == CLASSIFICATION and len(set(self.labels)) < 2:
            raise ValueError(f"task {self.name}: a classification task needs at least two distinct labels")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError(f"task {self.name}: a label stands twice in {list(self.labels)}")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"task {self.name}: label_smoothing {self.label_smoothing} is outside [0, 1)")
        if self.absent_weight < 0:
            raise ValueError(f"task {self.name}: absent_weight {self.absent_weight} is negative; 0 is none")

    def _check_units(self):
        if self.units not in (CHARACTERS, SYMBOLS):
            raise ValueError(f"task {self.name}: units {self.units!r} are unknown; use {CHARACTERS} or {SYMBOLS}")
        if self.kind == CTC and not self.labels:
            if self.units == SYMBOLS:
                raise ValueError(f"task {self.name}: labels are empty; name every symbol that the corpora hold")
            object.__setattr__(self, "labels", ALPHABET)
        if self.kind == CTC and self.units == CHARACTERS and (long := [x for x in self.labels if len(x) != 1]):
            raise ValueError(f"task {self.name}: label {long[0]!r} is no single character; use units: {SYMBOLS}")
        if not self.edges:
            return
        if self.kind != CLASSIFICATION or len(self.labels) != len(self.edges) + 1:
            raise ValueError(
                f"task {self.name}: {len(self.edges)} edges make {len(self.edges) + 1} classes, labels name "
                f"{len(self.labels)}; they belong to a classification"
            )
        if any(a >= b for a, b in zip(self.edges, self.edges[1:], strict=False)):
            raise ValueError(f"task {self.name}: edges {list(self.edges)} do not rise")

    def class_of(self, raw: str) -> str:
        """A manifest's value as a label: itself, or the class between whose `edges` it lies. Raises ValueError."""
        if not self.edges:
            return raw
        try:
            number = float(raw)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(f"{self.field} {raw!r} is not a number, so task {self.name} cannot divide it by its edges")
        return self.labels[bisect_right(self.edges, number)]

    def split_units(self, text: str, unit_map: Mapping[str, str] | None = None) -> tuple[str, ...]:
        """A text as units of a `ctc` task, `unit_map` applied to each ('' drops one). Raises ValueError for others."""
        parts = " ".join(text.lower().split()) if self.units == CHARACTERS else text.split()
        mapped = [(unit_map or {}).get(part, part) for part in parts]
        if unknown := sorted({unit for unit in mapped if unit and unit not in self.labels}):
            raise ValueError(
                f"{unknown[0]!r} is no unit of task {self.name}; map it in label_map, or map it to '' to leave it out"
            )
        return tuple(unit for unit in mapped if unit)

    def join_units(self, units) -> str:
        """Units as text."""
        return ("" if self.units == CHARACTERS else " ").join(units)

    @property
    def is_transcription(self) -> bool:
        return self.kind == TRANSCRIPTION

    @property
    def writes_text(self) -> bool:
        """The answer is text: a transcript, or the units of CTC."""
        return self.kind != CLASSIFICATION

    @property
    def normalizer(self) -> str:
        """How texts are made comparable before their errors are counted, see `metrics.NORMALIZERS`."""
        if self.kind == CTC:
            return "basic" if self.units == CHARACTERS else "none"
        return "whisper-english"

    @property
    def measure(self) -> str:
        """Error rate of a task that writes text: of words, of characters, or of symbols (each counted as a word)."""
        return "cer" if self.kind == CTC and self.units == CHARACTERS else "wer"

    @property
    def default_prompt(self) -> str:
        return self.prompts[0]


ASR = TaskConfig(
    name="asr",
    kind=TRANSCRIPTION,
    field="text",
    prompts=(
        "Transcribe the speech.",
        "Write down what the speaker says.",
        "What words are spoken?",
        "Convert this recording into text.",
    ),
)
SER = TaskConfig(
    name="ser",
    kind=CLASSIFICATION,
    field="emotion",
    labels=EMOTIONS,
    prompts=(
        "Recognize the speaker's emotion.",
        "How does the speaker feel?",
        "Which emotion does the voice express?",
        "Name the emotional state of the person talking.",
    ),
)
BUILTIN_TASKS = {task.name: task for task in (ASR, SER)}
