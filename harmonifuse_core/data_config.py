"""What is heard: corpora by role, and how training changes their sound. Offered by `config.py` too."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from harmonifuse_core.fields import check_choice, from_dict, read_values, to_dict

WAVEFORM_AUGMENTS = (
    "speed", "noise_probability", "noise_snr_db", "babble_probability", "babble_snr_db", "gain_db", "room_probability",
    "band_probability", "trim_probability",
)  # fmt: skip


@dataclass(frozen=True)
class CorpusConfig:
    """Utterances of one manifest that train or validate one task.

    Args:
        manifest: JSONL file, relative to the working directory or absolute.
        task: which task these utterances teach.
        split: value of the manifest's `split` field; empty takes all.
        speakers, exclude_speakers: keep or drop these speakers.
        ids: regular expression that must be found in the id; empty takes all (nEMO's ids end in the sentence number).
        weight: relative share of draws among the corpora of the same task.
        label_map: manifest label -> model label; an empty model label drops the utterance.
        text_style: `asis`, or `sentence` (capital, full stop; the style of Whisper's own output).
        teacher: transcripts, soft token targets and encoder states come from the folder `data.teacher`.
        assumed_label: the model label of every utterance that has none in the manifest (read speech as `neutral`): an
            assumption, which the model card names. Needs a classification task.
        label_noise: share of training labels that are replaced by another class of the corpus (classification).
        augment: fields of `data.augment` that change the waveform and have another value for this corpus.
    """

    manifest: str
    task: str
    split: str = ""
    speakers: tuple[str, ...] = ()
    exclude_speakers: tuple[str, ...] = ()
    ids: str = ""
    weight: float = 1.0
    label_map: dict = field(default_factory=dict)
    text_style: str = "asis"
    teacher: bool = False
    assumed_label: str = ""
    label_noise: float = 0.0
    augment: dict = field(default_factory=dict)

    def __post_init__(self):
        if unknown := set(self.augment) - set(WAVEFORM_AUGMENTS):
            known = ", ".join(WAVEFORM_AUGMENTS)
            raise ValueError(f"{self.manifest}: augment names {min(unknown)!r}; of one corpus can be set {known}")
        AugmentConfig().changed(self.augment, f"{self.manifest}: augment")
        if not 0 <= self.label_noise < 1:
            raise ValueError(f"{self.manifest}: label_noise {self.label_noise} is a share; use 0 to below 1")
        try:
            re.compile(self.ids)
        except re.error as error:
            raise ValueError(f"corpus {self.manifest}: ids {self.ids!r} is no regular expression ({error})") from None
        check_choice("corpus", "text_style", self.text_style, ("asis", "sentence"))
        if self.weight <= 0:
            raise ValueError(f"{self.manifest}: weight {self.weight} must be positive; leave the corpus out instead")


@dataclass(frozen=True)
class AugmentConfig:
    """Probabilities and ranges of waveform and feature augmentation (training only).

    Args:
        noise_probability: of coloured noise at a signal-to-noise ratio from `noise_snr_db`.
        babble_probability: of 3 to 6 other voices of the batch behind the speech, together at a ratio from
            `babble_snr_db` (Snyder, Chen and Povey 2015).
        trim_probability: of cutting the silence before and behind the speech down to at most 0.3 s.
        mixup_probability: of adding another utterance of the same corpus to a classified one, labels in the same
            shares (Zhang et al. 2018; Tokozume et al. 2018 for sound).
        frequency_warp: a classified utterance's mel axis is stretched by up to this share (Jaitly and Hinton 2013).
    """

    speed: tuple[float, ...] = ()
    noise_probability: float = 0.0
    noise_snr_db: tuple[float, float] = (5.0, 30.0)
    babble_probability: float = 0.0
    babble_snr_db: tuple[float, float] = (5.0, 25.0)
    gain_db: float = 0.0
    room_probability: float = 0.0
    band_probability: float = 0.0
    trim_probability: float = 0.0
    mixup_probability: float = 0.0
    frequency_warp: float = 0.0
    time_masks: int = 0
    time_mask_frames: int = 20
    frequency_masks: int = 0
    frequency_mask_bins: int = 12

    def __post_init__(self):
        probabilities = ("noise", "babble", "room", "band", "trim", "mixup")
        for name in (f"{kind}_probability" for kind in probabilities):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"augment.{name} is {getattr(self, name)}; use 0 to 1")
        if not 0 <= self.frequency_warp <= 0.5:
            raise ValueError(f"augment.frequency_warp is {self.frequency_warp}; use 0 to 0.5")
        if any(not 0.5 <= factor <= 2 for factor in self.speed):
            raise ValueError(f"augment.speed is {list(self.speed)}; use factors from 0.5 to 2")
        for name in ("noise_snr_db", "babble_snr_db"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"augment.{name} is [{low:g}, {high:g}]; give the lower value first")

    def changed(self, changes: dict, where: str = "augment") -> "AugmentConfig":
        """With other values, as YAML gives them, for some fields. Raises ValueError that names the field."""
        return from_dict(AugmentConfig, to_dict(self) | changes, where) if changes else self

    @property
    def changes_sound(self) -> str:
        """The first field that changes what the encoder hears, time masks aside; empty where none does."""
        if any(factor != 1 for factor in self.speed):
            return "speed"
        probabilities = (f"{kind}_probability" for kind in ("noise", "babble", "room", "band", "trim", "mixup"))
        names = (*probabilities, "gain_db", "frequency_warp", "frequency_masks")
        return next((name for name in names if getattr(self, name)), "")


@dataclass(frozen=True)
class DataConfig:
    """Corpora by role; `teacher` is a folder written by `python -m harmonifuse_core.prepare teacher`.

    Utterances outside `min_seconds` to `max_seconds` are left out of training and counted in its log. Decoded audio is
    kept in memory up to `cache_megabytes`. With a frozen encoder and unaugmented sound, `state_cache` names a
    folder that keeps its states, up to `state_cache_gigabytes`: the encoder then hears every utterance once.
    """

    train: tuple[CorpusConfig, ...] = ()
    dev: tuple[CorpusConfig, ...] = ()
    teacher: str = ""
    augment: AugmentConfig = AugmentConfig()
    min_seconds: float = 0.3
    max_seconds: float = 20.0
    cache_megabytes: int = 2000
    state_cache: str = ""
    state_cache_gigabytes: float = 20.0

    def __post_init__(self):
        if not 0 <= self.min_seconds < self.max_seconds:
            raise ValueError(f"data.min_seconds {self.min_seconds} must be below data.max_seconds {self.max_seconds}")
        for corpus in (*self.train, *self.dev):
            if corpus.teacher and not self.teacher:
                raise ValueError(f"corpus {corpus.manifest} has a teacher: write data.teacher with `prepare teacher`")
        settings = (self.augment, *(self.augment.changed(corpus.augment) for corpus in self.train))
        if self.state_cache and (changing := next(filter(None, (s.changes_sound for s in settings)), "")):
            raise ValueError(
                f"data.augment.{changing} changes the sound, so that data.state_cache would see no utterance twice: "
                "switch it off (time_masks may stay), or empty data.state_cache"
            )


def read_corpora(path: str | Path) -> tuple[CorpusConfig, ...]:
    """The corpora under `train` of a YAML file that holds nothing else. Raises ValueError."""
    values = read_values(path)
    if set(values) != {"train"}:
        other = ", ".join(sorted(set(values) - {"train"})) or "nothing"
        raise ValueError(f"{path}: a list of corpora under `train` is expected, and found is {other}")
    return from_dict(DataConfig, values, str(path)).train
