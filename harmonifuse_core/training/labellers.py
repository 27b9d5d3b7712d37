"""Who names the class, or writes the text, of speech that nobody labelled: a run of ours, or emotion2vec."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from harmonifuse_core.data.audio import SAMPLE_RATE, AudioError, load_audio
from harmonifuse_core.inference.predict import PredictOptions
from harmonifuse_core.inference.sources import Source, answer_sources
from harmonifuse_core.runs import RunFolder, load
from harmonifuse_core.tasks import SER

# emotion2vec+ gives its scores in this order (Ma et al. 2024); `disgusted` is our `disgust`
EMOTION2VEC_CLASSES = ("angry", "disgust", "fearful", "happy", "neutral", "other", "sad", "surprised", "unknown")
EMOTION2VEC = "iic/emotion2vec_plus_large"


@dataclass(frozen=True)
class Labelled:
    """One recording's answer. confidence: probability of `label`, of text the geometric mean of its tokens'.

    probabilities: of every class (empty for text). error: why there is none.
    """

    source: Source
    label: str = ""
    confidence: float = 0.0
    probabilities: dict[str, float] = field(default_factory=dict)
    error: str = ""


class Labeller(Protocol):
    """name: for the record, it tells one labeller's answers from another's; field: of the manifest that it fills."""

    name: str
    field: str

    def label(self, sources: Sequence[Source]) -> Iterator[Labelled]: ...


class RunLabeller:
    """A trained run answers `task`."""

    def __init__(self, run: str | Path, task: str, device: str = "cpu"):
        folder = RunFolder(Path(run))
        self.spec = folder.config().model.task(task)
        self.model, self.field = load(folder, device), self.spec.field
        self.name = f"{folder.path.resolve().name}:{task}:{folder.weights_digest()}"

    def label(self, sources: Sequence[Source]) -> Iterator[Labelled]:
        """In the order of `sources`."""
        for item in answer_sources(self.model, sources, PredictOptions(tasks=(self.spec.name,))):
            if item.answers is None:
                yield Labelled(item.source, error=item.error)
                continue
            answer = item.answers[self.spec.name]
            if answer.text is None:
                yield Labelled(item.source, answer.label, answer.probabilities[answer.label], answer.probabilities)
            else:
                certain = math.exp(float(answer.token_logprobs.mean())) if len(answer.token_logprobs) else 0.0
                yield Labelled(item.source, answer.text, certain)


class Emotion2vec:
    """emotion2vec+ through FunASR, an optional extra: `pip install funasr modelscope`. Raises ValueError."""

    def __init__(self, model: str = EMOTION2VEC, device: str = "cpu"):
        try:
            from funasr import AutoModel
        except ImportError:
            raise ValueError(
                "emotion2vec needs funasr, which is not installed: pip install funasr modelscope, or label with --run"
            ) from None
        self.model = AutoModel(model=model, device=device, disable_update=True)
        self.name, self.field = f"emotion2vec:{model}", SER.field

    def label(self, sources: Sequence[Source]) -> Iterator[Labelled]:
        """In the order of `sources`."""
        for source in sources:
            try:
                clip = load_audio(source.utterance.audio, name=source.path)
                probabilities = self._probabilities(clip.waveform)
            except (AudioError, RuntimeError) as error:
                yield Labelled(source, error=str(error))
                continue
            label = max(probabilities, key=probabilities.get)
            yield Labelled(source, label, probabilities[label], probabilities)

    def _probabilities(self, waveform) -> dict[str, float]:
        (answer,) = self.model.generate(waveform, fs=SAMPLE_RATE, granularity="utterance", extract_embedding=False)
        scores = [float(score) for score in answer["scores"]]
        if len(scores) != len(EMOTION2VEC_CLASSES):
            known = len(EMOTION2VEC_CLASSES)
            raise RuntimeError(f"emotion2vec gave {len(scores)} scores, {known} are known: use a plus model")
        return dict(zip(EMOTION2VEC_CLASSES, scores, strict=True))


def row_of(labelled: Labelled, labeller: Labeller, threshold: float) -> str:
    """What is added to a manifest line, as JSON: the label only where it is confident enough, the rest always."""
    name, sure = labeller.field, not labelled.error and labelled.confidence >= threshold
    row = {"id": labelled.source.utterance.id}
    row |= {name: labelled.label} if sure else {}
    if labelled.error:
        return json.dumps(row | {f"{name}_error": labelled.error}, ensure_ascii=False)
    row |= {f"{name}_confidence": round(labelled.confidence, 5), f"{name}_labeller": labeller.name}
    if labelled.probabilities:
        row[f"{name}_probabilities"] = {k: round(v, 5) for k, v in labelled.probabilities.items()}
    return json.dumps(row, ensure_ascii=False)
