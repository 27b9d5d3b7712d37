"""From recordings to a result: read features through the cache, fit every probe, write the tables together.

found = survey(sources, parts, ask)          # parts: readers and caches, see `run_parts` and `encoder_parts`
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from harmonifuse_core.analysis.result import AnalysisResult
from harmonifuse_core.model.harmonifuse import HarmoniFuse
from harmonifuse_core.model.speech_encoder import SpeechEncoder
from probes.features import Corpus, FeatureCache, Reader
from probes.folds import check_groups
from probes.probing import Material, Options, Outcome, Representation, majority, prepare, probe
from probes.projection import coordinate_rows
from probes.readers import EncoderReader, ModelReader, RandomTwin, SignalReader
from probes.signal import MEASURES
from probes.tables import Baseline, baseline_rows, best_row, layer_rows, tables_of, target_rows, verdict_of
from probes.targets import TARGETS, Target, label_target, signal_target

QUESTION = "What does each layer hold, in a form that a small probe finds, for speakers it has not heard?"
NAMES = {"logmel": "log-mel", "duration": "duration", "random": "random encoder"}


@dataclass(frozen=True, eq=False)
class Part:
    """A reader with its cache. name: encoder, random, model or signal."""

    name: str
    reader: Reader
    cache: FeatureCache


@dataclass(frozen=True)
class Ask:
    """targets: names, all that the corpus has where empty. states: of encoder and lm. label_map: as in the manifest's
    selection. projections: coordinates of PCA, and of UMAP with `umap`."""

    targets: tuple[str, ...] = ()
    states: tuple[str, ...] = ("encoder",)
    label_map: Mapping[str, str] = field(default_factory=dict)
    options: Options = Options()
    umap: bool = False


def make_parts(
    encoder: SpeechEncoder, folder: Path, model: HarmoniFuse | None = None, states: Sequence[str] = ("encoder",),
    random: bool = True, seed: int = 0, max_seconds: float = 30.0,
) -> list[Part]:  # fmt: skip
    """Readers for what `states` asks, their caches below `folder`. The LM needs a run's model."""
    readers: dict[str, Reader] = {"signal": SignalReader()}
    if "encoder" in states:
        readers["encoder"] = EncoderReader(encoder, max_seconds)
        if random:
            twin = RandomTwin(seed).of(encoder).to(next(encoder.parameters()).device)
            readers["random"] = EncoderReader(twin, max_seconds)
    if "lm" in states:
        if model is None:
            raise ValueError("--states lm needs a run: a bare encoder has no LM; use --states encoder")
        readers["model"] = ModelReader(model)
    return [Part(name, reader, FeatureCache(folder, reader.digest)) for name, reader in readers.items()]


def make_targets(ask: Ask, corpus: Corpus, measured: np.ndarray) -> tuple[list[Target], list[str]]:
    """Targets, and the reasons of those that were left out. Raises ValueError where one that was named is missing."""
    utterances, found, left = [s.utterance for s in corpus.sources], [], []
    for name in ask.targets or TARGETS:
        try:
            if name in MEASURES:
                found.append(signal_target(name, measured))
            else:
                found.append(label_target(name, utterances, ask.label_map))
        except ValueError as error:
            if ask.targets:
                raise
            left.append(str(error))
    if not found:
        raise ValueError(f"no target can be probed here: {'; '.join(left)}")
    return found, left


@dataclass(frozen=True, eq=False)
class Found:
    """result: tables and verdicts; rows: of the Parquet file; material: folds and targets; left: targets left out."""

    result: AnalysisResult
    rows: pd.DataFrame
    material: Material
    left: tuple[str, ...]


def survey(
    name: str, corpus: Corpus, parts: Sequence[Part], ask: Ask, on_step: Callable[[str], None] = lambda what: None
) -> Found:  # fmt: skip
    """Raises ValueError where the corpus cannot answer: too few speakers, no such label."""
    caches = {part.name: part.cache for part in parts}
    signal = caches["signal"].layers("signal", corpus.audio)[0]
    check_groups({s.utterance.speaker or s.utterance.id for s in corpus.sources}, "speaker")
    targets, left = make_targets(ask, corpus, signal)
    material = prepare(targets, [s.utterance for s in corpus.sources], ask.options)
    baselines = fit_baselines(material, corpus, caches, on_step)
    tables: dict[str, list[dict]] = {"targets": list(target_rows(material))}
    tables |= {name: [] for name in ("layers", "best", "baselines")}
    verdicts, linear, seen = [], {}, []
    for representation in representations(corpus, caches):
        seen.append(representation)
        for kind in ask.options.probes:
            on_step(f"{representation.about}, {kind}")
            outcomes = probe(material, representation, kind)
            if kind == "linear":
                linear[representation.stage, representation.task] = outcomes
            for outcome in outcomes:
                own = own_baselines(baselines, outcome, representation.stage)
                tables["layers"] += layer_rows(material, representation, outcome)
                row = best_row(material, representation, outcome, own)
                tables["best"].append(row)
                if kind == "linear":
                    verdicts.append(verdict_of(row, outcome.tally.layers))
    tables["baselines"] = [row for outcome, b in baselines.values() for row in baseline_rows(material, outcome, b)]
    on_step("projections")
    rows = coordinate_rows(
        corpus.sources, targets, [*seen, *alphas(corpus, caches)], linear, ask.umap, ask.options.seed
    )
    speakers = len(set(material.speakers))
    result = AnalysisResult(name, QUESTION, tables_of(tables), tuple(verdicts), len(corpus.sources), speakers)
    return Found(result, rows, material, tuple(left))


def representations(corpus: Corpus, caches: Mapping[str, FeatureCache]):
    """One at a time: a stage's features are in memory only while they are probed (and projected at the end)."""
    if "encoder" in caches:
        yield Representation("encoder", None, caches["encoder"].layers("encoder", corpus.audio))
    if "model" in caches:
        for key in caches["model"].array_names():
            stage, _, task = key.partition("/")
            if stage == "lm":
                yield Representation(stage, task, caches["model"].layers(key, corpus.audio))


def alphas(corpus: Corpus, caches: Mapping[str, FeatureCache]) -> list[Representation]:
    found = []
    for key in caches["model"].array_names() if "model" in caches else ():
        stage, _, task = key.partition("/")
        if stage.endswith("_alpha"):
            found.append(Representation(stage, task, caches["model"].layers(key, corpus.audio)))
    return found


def fit_baselines(
    material: Material, corpus: Corpus, caches: Mapping[str, FeatureCache], on_step: Callable[[str], None]
) -> dict[tuple, tuple[Outcome, Baseline]]:  # fmt: skip
    """{(name, target, probe)}; majority has no probe."""
    signal = caches["signal"]
    features = {"logmel": signal.layers("logmel", corpus.audio)}
    length = signal.layers("signal", corpus.audio)[..., [list(MEASURES).index("duration")]]
    features["duration"] = np.nan_to_num(length)
    if "random" in caches:
        features["random"] = caches["random"].layers("encoder", corpus.audio)
    found = {}
    for name, array in features.items():
        for kind in material.options.probes:
            on_step(f"{NAMES[name]}, {kind}")
            for outcome in probe(material, Representation(NAMES[name], None, array), kind):
                baseline = Baseline(NAMES[name], kind, outcome.tally, outcome.accuracy)
                found[name, outcome.target.name, kind] = outcome, baseline
                if name == "logmel" and ("majority", outcome.target.name, None) not in found:
                    tally = majority(material, outcome.target)
                    found["majority", outcome.target.name, None] = outcome, Baseline("majority", None, tally)
    return found


def own_baselines(baselines: Mapping, outcome: Outcome, stage: str) -> dict[str, Baseline]:
    """Those that this outcome is compared with; LM layers have no random twin, and duration does not predict itself."""
    found = {}
    for name in ("majority", "duration", "logmel", "random"):
        key = (name, outcome.target.name, None if name == "majority" else outcome.probe)
        has_none = (name == "random" and stage != "encoder") or name == outcome.target.name
        if key in baselines and not has_none:
            found[name] = baselines[key][1]
    return found
