"""A task: its name, the prompts that convey it to the language model, its labels or text output, its loss and metric.

ASR and SER are two entries of `BUILTIN_TASKS`; further tasks are added in the YAML file alone (`model.tasks`).
"""

from dataclasses import dataclass

TRANSCRIPTION, CLASSIFICATION = "transcription", "classification"
EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")


@dataclass(frozen=True)
class TaskConfig:
    """One task of the model.

    Args:
        name: short key, used in files and charts (`asr`).
        kind: `transcription` (text, token by token) or `classification` (one of `labels`).
        prompts: paraphrases of the instruction; the first is the default at inference, training draws one a sample.
        labels: class names in their fixed order; empty for transcription.
        field: manifest field that holds the target (`text`, `emotion`, `speaker`, ...).
        loss_weight: factor of this task's loss in the sum.
        label_smoothing: in [0, 1).
        absent_weight: of the penalty on probability beyond chance of classes that the corpus lacks (0: none).
    """

    name: str
    kind: str = CLASSIFICATION
    prompts: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    field: str = "emotion"
    loss_weight: float = 1.0
    label_smoothing: float = 0.0
    absent_weight: float = 0.0

    def __post_init__(self):
        if not self.name.isidentifier():
            raise ValueError(f"task name {self.name!r}: use letters, digits and underscores")
        if self.kind not in (TRANSCRIPTION, CLASSIFICATION):
            raise ValueError(
                f"task {self.name}: kind {self.kind!r} is unknown; use {TRANSCRIPTION} or {CLASSIFICATION}"
            )
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
        return "whisper-english"

    @property
    def measure(self) -> str:
        """Error rate of a task that writes text."""
        return "wer"

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
