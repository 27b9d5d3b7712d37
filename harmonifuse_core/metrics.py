"""How good is the output? WER/CER counts, UA, WA, macro-F1, with intervals by bootstrap over speakers.

    errors = [word_errors(reference, hypothesis) for reference, hypothesis in pairs]
    transcription_report(errors, speakers).as_dict()
    classification_report(reference_index, probabilities, labels, speakers).as_dict()

Corpus-level always: sum of errors / sum of words, never a mean of utterance rates. Speakers, not utterances, are
resampled: utterances of one speaker succeed and fail together, so an utterance bootstrap claims too much (Bisani & Ney
2004; Cameron, Gelbach & Miller 2008, who also show why few clusters give intervals that are too narrow).
Shapes: `N` utterances, `C` classes, `G` resampled units (speakers), `R` resamples. Inputs are checked: ValueError names
the value and the remedy. Calibration lives in `calibration.py` and is offered here too.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from importlib.metadata import version

import jiwer
import numpy as np
from numpy.typing import ArrayLike

from harmonifuse_core.bootstrap import Comparison, Interval, Units, comparison_of, holm, interval_of, resample, units_of
from harmonifuse_core.calibration import (
    ReliabilityBin,
    expected_calibration_error,
    fit_temperature,
    log_loss,
    reliability_bins,
    validated_probabilities,
    validated_reference,
)

__all__ = [
    "ClassificationReport", "Comparison", "Interval", "ReliabilityBin", "TranscriptionReport", "WordErrors", "holm",
    "classification_report", "expected_calibration_error", "fit_temperature", "log_loss", "normalize_text",
    "normalizer_name", "paired_accuracy_bootstrap", "paired_bootstrap", "reliability_bins", "transcription_report",
    "word_errors",
]  # fmt: skip

NORMALIZERS = ("whisper-english", "basic", "none")


# --- text ---


@cache  # the English normaliser builds its tables anew in every constructor
def _normalizer(name: str):
    # Imported late: whoever needs only UA does not wait for transformers.
    from transformers.models.whisper.english_normalizer import BasicTextNormalizer, EnglishTextNormalizer

    return EnglishTextNormalizer({}) if name == "whisper-english" else BasicTextNormalizer()


def _check_normalizer(normalizer: str) -> None:
    if normalizer not in NORMALIZERS:
        raise ValueError(f"normalizer {normalizer!r} is unknown; use one of {', '.join(NORMALIZERS)}")


def normalize_text(text: str, normalizer: str = "whisper-english") -> str:
    """`text` as it is compared; runs of white space become one space, ends are stripped, whatever the normaliser.

    Args:
        normalizer: `whisper-english` (contractions, numbers, titles, fillers such as "um" removed; British spelling is
            NOT mapped, since Whisper's spelling table is a file of the checkpoint and may be absent offline), `basic`
            (lower case, punctuation and bracketed words removed), `none`.
    """
    _check_normalizer(normalizer)
    if not isinstance(text, str):  # a gap in the data, so ValueError like every other one
        raise ValueError(f"text {text!r} is not a string; leave it out, or give '' for silence")
    return " ".join((text if normalizer == "none" else _normalizer(normalizer)(text)).split())


def normalizer_name(normalizer: str = "whisper-english") -> str:
    """Name and version of the normaliser, to be stored beside every WER: rates under two names do not compare."""
    _check_normalizer(normalizer)
    if normalizer == "none":
        return "none"
    suffix = " without spelling map" if normalizer == "whisper-english" else ""
    return f"{normalizer}{suffix} (transformers {version('transformers')})"


@dataclass(frozen=True)
class WordErrors:
    """Alignment counts of ONE utterance, after normalisation; `normalizer` is what `normalizer_name` gave.

    Characters include the spaces between words (jiwer's definition of CER).
    """

    substitutions: int
    deletions: int
    insertions: int
    hits: int
    reference_words: int
    character_errors: int
    reference_characters: int
    normalizer: str = "not recorded"

    def __post_init__(self):
        for field in fields(self)[:7]:
            if getattr(self, field.name) < 0:
                raise ValueError(f"{field.name} {getattr(self, field.name)} is negative; counts come from word_errors")
        if self.hits + self.substitutions + self.deletions != self.reference_words:
            raise ValueError(
                f"hits {self.hits} + substitutions {self.substitutions} + deletions {self.deletions} is not "
                f"reference_words {self.reference_words}; counts come from word_errors"
            )
        if self.reference_characters < self.reference_words:
            raise ValueError(
                f"reference_characters {self.reference_characters} is below reference_words {self.reference_words}; "
                "counts come from word_errors"
            )

    @property
    def word_errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions


def word_errors(reference: str, hypothesis: str, normalizer: str = "whisper-english") -> WordErrors:
    """Count the errors of one utterance (jiwer 4, Levenshtein alignment).

    An empty reference has 0 words and every hypothesis word is an insertion; an empty hypothesis deletes every word.
    """
    reference, hypothesis = normalize_text(reference, normalizer), normalize_text(hypothesis, normalizer)
    words, characters = jiwer.process_words(reference, hypothesis), jiwer.process_characters(reference, hypothesis)
    return WordErrors(
        substitutions=words.substitutions,
        deletions=words.deletions,
        insertions=words.insertions,
        hits=words.hits,
        reference_words=words.hits + words.substitutions + words.deletions,
        character_errors=characters.substitutions + characters.deletions + characters.insertions,
        reference_characters=characters.hits + characters.substitutions + characters.deletions,
        normalizer=normalizer_name(normalizer),
    )


# --- transcription ---


@dataclass(frozen=True)
class TranscriptionReport:
    """Corpus-level error rates as fractions (0.05 = 5 %; WER may pass 1) and total counts; `wer_ci` is (low, high)."""

    wer: float
    wer_ci: tuple[float | None, float | None]
    cer: float
    substitutions: int
    deletions: int
    insertions: int
    words: int
    utterances: int
    normalizer: str
    speakers: int
    resamples: int
    seed: int
    ci_method: str

    def as_dict(self) -> dict:
        """The fields under their names, ready for JSON."""
        return {**asdict(self), "wer_ci": list(self.wer_ci)}


def _check_errors(errors: Sequence[WordErrors]) -> str:
    """The one normaliser of all utterances."""
    if not errors:
        raise ValueError("0 utterances: give at least one WordErrors (is the manifest or the task's field empty?)")
    names = sorted({e.normalizer for e in errors})
    if len(names) > 1:
        raise ValueError(f"utterances were counted under several normalisers {names}; count them anew under one")
    if not any(e.reference_words for e in errors):
        raise ValueError("0 reference words in all utterances: WER is undefined; add utterances with a transcript")
    return names[0]


def _unit_rates(errors: Sequence[WordErrors], units: Units) -> np.ndarray:
    """(G, 2): word errors and reference words of every unit."""
    sums = np.zeros((units.count, 2))
    np.add.at(sums, units.index, [(e.word_errors, e.reference_words) for e in errors])
    return sums


def _wer(sums: np.ndarray) -> np.ndarray:
    """(..., 2) -> (...): NaN where a draw holds only empty references."""
    words = sums[..., 1]
    return np.divide(sums[..., 0], words, out=np.full(words.shape, np.nan), where=words > 0)


def transcription_report(
    errors: Sequence[WordErrors], speakers: Sequence[str], *, resamples: int = 2000, seed: int = 0
) -> TranscriptionReport:
    """Corpus WER and CER of N utterances, the WER with a 95 % interval over speakers.

    Raises:
        ValueError: no utterance, lengths differ, no reference word at all, or two normalisers mixed.
    """
    normalizer, units = _check_errors(errors), units_of(speakers, len(errors))
    sums = _unit_rates(errors, units)
    interval = interval_of(_wer(sums.sum(axis=0)), _wer(resample(sums, resamples, seed)), units, seed)
    total = {f.name: int(sum(getattr(e, f.name) for e in errors)) for f in fields(WordErrors)[:7]}
    return TranscriptionReport(
        wer=interval.value,
        wer_ci=(interval.low, interval.high),
        cer=total["character_errors"] / total["reference_characters"],
        substitutions=total["substitutions"],
        deletions=total["deletions"],
        insertions=total["insertions"],
        words=total["reference_words"],
        utterances=len(errors),
        normalizer=normalizer,
        speakers=units.speakers,
        resamples=interval.resamples,
        seed=seed,
        ci_method=interval.method,
    )


def paired_bootstrap(
    errors_a: Sequence[WordErrors], errors_b: Sequence[WordErrors], speakers: Sequence[str], *,
    resamples: int = 2000, seed: int = 0,
) -> Comparison:  # fmt: skip
    """WER of A minus WER of B on the same utterances in the same order; negative means that A is better.

    Both are read from the same draws, so what the systems share (hard speakers) cancels (Bisani & Ney 2004).
    """
    if len(errors_a) != len(errors_b):
        raise ValueError(f"{len(errors_a)} utterances of A but {len(errors_b)} of B; pair them by utterance id")
    _check_errors([*errors_a, *errors_b])
    for position, (a, b) in enumerate(zip(errors_a, errors_b, strict=True)):
        if a.reference_words != b.reference_words:
            raise ValueError(
                f"utterance {position} has {a.reference_words} reference words in A but {b.reference_words} in B; "
                "pair them by utterance id"
            )
    units = units_of(speakers, len(errors_a))
    sums = np.hstack([_unit_rates(errors_a, units), _unit_rates(errors_b, units)])  # (G, 4)
    drawn, total = resample(sums, resamples, seed), sums.sum(axis=0)
    value = _wer(total[:2]) - _wer(total[2:])
    return comparison_of("wer", value, _wer(drawn[:, :2]) - _wer(drawn[:, 2:]), units, seed)


# --- classification ---


@dataclass(frozen=True)
class ClassificationReport:
    """Scores of N utterances over C classes; each interval is (low, high).

    `ua` is the macro recall over the classes present in the references, `wa` the accuracy (names as in the Interspeech
    2009 Emotion Challenge), `macro_f1` the mean over classes present in references or predictions (scikit-learn's
    default), `confusion` C rows (reference) of C columns, `per_class_recall` None for an absent class.
    """

    ua: float
    ua_ci: tuple[float | None, float | None]
    wa: float
    wa_ci: tuple[float | None, float | None]
    macro_f1: float
    confusion: tuple[tuple[int, ...], ...]
    labels: tuple[str, ...]
    per_class_recall: dict[str, float | None]
    ece: float
    reliability: tuple[ReliabilityBin, ...]  # the bins behind `ece`
    utterances: int
    speakers: int
    resamples: int
    seed: int
    ci_method: str

    def as_dict(self) -> dict:
        """The fields under their names, tuples as lists, ready for JSON."""
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return plain | {"confusion": [list(row) for row in self.confusion]}


def _unit_confusions(reference: np.ndarray, predicted: np.ndarray, classes: int, units: Units) -> np.ndarray:
    """(N,), (N,) -> (G, C * C): the flat confusion matrix of every unit, rows reference."""
    cell = (units.index * classes + reference) * classes + predicted
    return np.bincount(cell, minlength=units.count * classes**2).reshape(units.count, classes**2).astype(np.float64)


def _accuracies(flat: np.ndarray, classes: int) -> dict[str, np.ndarray]:
    """Flat confusion matrices (..., C * C) -> ua (...) over the classes present in each, and wa (...)."""
    confusion = flat.reshape(*flat.shape[:-1], classes, classes)
    support, hits = confusion.sum(axis=-1), np.diagonal(confusion, axis1=-2, axis2=-1)  # (..., C)
    recall = hits / np.maximum(support, 1)  # an absent class adds 0 here and nothing to the divisor below
    return {"ua": recall.sum(-1) / (support > 0).sum(-1), "wa": hits.sum(-1) / support.sum(-1)}


def classification_report(
    reference_index: ArrayLike, probabilities: ArrayLike, labels: Sequence[str], speakers: Sequence[str], *,
    resamples: int = 2000, seed: int = 0,
) -> ClassificationReport:  # fmt: skip
    """UA, WA, macro-F1, confusion and ECE; UA and WA with 95 % intervals over speakers (from the same draws).

    Args:
        reference_index: (N,) integers into `labels`; probabilities: (N, C) rows that sum to 1 (the prediction is the
            largest, the first of equals); labels: C distinct names; speakers: N ids.
    """
    reference, array = validated_probabilities(reference_index, probabilities)
    classes, labels = array.shape[1], tuple(labels)
    if len(labels) != classes or len(set(labels)) != classes:
        raise ValueError(f"labels {list(labels)} for {classes} columns; give one distinct label a column")
    units = units_of(speakers, len(reference))
    sums = _unit_confusions(reference, array.argmax(axis=1), classes, units)
    drawn, flat = _accuracies(resample(sums, resamples, seed), classes), sums.sum(axis=0)
    ua, wa = (interval_of(_accuracies(flat, classes)[m], drawn[m], units, seed) for m in ("ua", "wa"))
    confusion = flat.reshape(classes, classes)
    support, predicted, hits = confusion.sum(axis=1), confusion.sum(axis=0), np.diagonal(confusion)
    seen = support + predicted > 0
    return ClassificationReport(
        ua=ua.value,
        ua_ci=(ua.low, ua.high),
        wa=wa.value,
        wa_ci=(wa.low, wa.high),
        macro_f1=float((2 * hits[seen] / (support + predicted)[seen]).mean()),
        confusion=tuple(tuple(int(n) for n in row) for row in confusion),
        labels=labels,
        per_class_recall={x: float(hit / n) if n else None for x, hit, n in zip(labels, hits, support, strict=True)},
        ece=expected_calibration_error(reference, array),
        reliability=tuple(reliability_bins(reference, array)),
        utterances=len(reference),
        speakers=units.speakers,
        resamples=ua.resamples,
        seed=seed,
        ci_method=ua.method,
    )


def paired_accuracy_bootstrap(
    reference_index: ArrayLike, predicted_a: ArrayLike, predicted_b: ArrayLike, speakers: Sequence[str], *,
    metric: str = "ua", resamples: int = 2000, seed: int = 0,
) -> Comparison:  # fmt: skip
    """UA (or `metric="wa"`, plain accuracy) of A minus that of B; (N,) class indices each, positive: A is better."""
    if metric not in ("ua", "wa"):
        raise ValueError(f"metric {metric!r} is unknown; use 'ua' or 'wa'")
    arrays = [validated_reference(a, np.iinfo(np.int32).max) for a in (reference_index, predicted_a, predicted_b)]
    if len({len(a) for a in arrays}) > 1:
        raise ValueError(f"lengths of reference, A and B differ: {[len(a) for a in arrays]}; pair them by utterance id")
    # Numbered anew: only the classes that occur take a place in the confusion matrices.
    names, joined = np.unique(np.concatenate(arrays), return_inverse=True)
    reference, *predictions = joined.reshape(3, -1)
    units, classes = units_of(speakers, len(reference)), len(names)
    sums = np.hstack([_unit_confusions(reference, p, classes, units) for p in predictions])  # (G, 2 * C * C)
    drawn = np.vstack([resample(sums, resamples, seed), sums.sum(axis=0)]).reshape(resamples + 1, 2, classes**2)
    scores = _accuracies(drawn, classes)[metric]  # (R + 1, 2): the last row is the data itself
    # Rounded: the same recalls added up in another order are a tie, not a win by 1e-17 in every draw.
    difference = np.round(scores[:, 0] - scores[:, 1], 12)
    return comparison_of(metric, difference[-1], difference[:-1], units, seed)
