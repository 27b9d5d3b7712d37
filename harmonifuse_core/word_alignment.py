"""Which words were heard right, taken for others, missed or put in: jiwer's alignment as words in reading order."""

from dataclasses import dataclass

import jiwer

from harmonifuse_core.metrics import normalize_text

EQUAL, SUBSTITUTED, DELETED, INSERTED = "equal", "substitute", "delete", "insert"


@dataclass(frozen=True)
class WordStep:
    """kind: one of the four above. reference, hypothesis: the word on either side, empty where there is none."""

    kind: str
    reference: str
    hypothesis: str


def align_words(reference: str, hypothesis: str, normalizer: str = "whisper-english") -> tuple[WordStep, ...]:
    """Word by word after normalisation, as `metrics.word_errors` counts: the steps that are not `equal` are its errors.

    An empty reference makes every word of the hypothesis an insertion, and the reverse. Raises ValueError for an
    unknown normaliser or a text that is none.
    """
    reference, hypothesis = normalize_text(reference, normalizer), normalize_text(hypothesis, normalizer)
    found = jiwer.process_words(reference, hypothesis)
    before, after = found.references[0], found.hypotheses[0]
    steps: list[WordStep] = []
    for chunk in found.alignments[0]:
        old = before[chunk.ref_start_idx : chunk.ref_end_idx]
        new = after[chunk.hyp_start_idx : chunk.hyp_end_idx]
        width = max(len(old), len(new))
        old, new = (words + [""] * (width - len(words)) for words in (list(old), list(new)))
        steps += [WordStep(chunk.type, a, b) for a, b in zip(old, new, strict=True)]
    return tuple(steps)
