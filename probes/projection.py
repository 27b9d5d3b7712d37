"""Two coordinates an utterance, for every layer and for the alpha vectors: PCA always, UMAP where asked.

Seeded UMAP still differs between machines: coordinates are saved with the versions that made them, and are for looking
at, not for measuring. Shapes: `M` layers, `N` utterances, `F` features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
import pandas as pd
import torch
from sklearn.decomposition import PCA

from harmonifuse_core.inference.sources import Source
from probes.probing import Outcome, Representation
from probes.targets import Target

COMPONENTS = 50  # that UMAP reads
NEIGHBOURS, SPREAD = 15, 0.1


@dataclass(frozen=True, eq=False)
class Coordinates:
    """pca, umap (N, 2), umap None where it was not asked for or N is too small; share (2,): of the variance."""

    pca: np.ndarray
    share: np.ndarray
    umap: np.ndarray | None = None


def project(features: np.ndarray, umap: bool = False, seed: int = 0) -> Coordinates:
    """(N, F) -> coordinates of the standardised features."""
    std = features.std(0)
    x = (features - features.mean(0)) / np.where(std > 0, std, 1)
    most = min(COMPONENTS if umap else 2, *x.shape)
    fitted = PCA(most, svd_solver="randomized", random_state=seed)
    with np.errstate(invalid="ignore", divide="ignore"):  # all utterances alike: no variance to share
        scores = fitted.fit_transform(x)
    share = np.nan_to_num(fitted.explained_variance_ratio_[:2])
    pca, share = (np.pad(v, [*[(0, 0)] * (v.ndim - 1), (0, max(0, 2 - v.shape[-1]))]) for v in (scores[:, :2], share))
    return Coordinates(pca, share, _umap(scores, seed) if umap and len(x) > NEIGHBOURS else None)


def _umap(scores: np.ndarray, seed: int) -> np.ndarray:
    from umap import UMAP  # compiles for seconds: only where asked

    threads = torch.get_num_threads()
    try:
        found = UMAP(n_neighbors=NEIGHBOURS, min_dist=SPREAD, random_state=seed, n_jobs=1).fit_transform(scores)
    finally:  # numba shares torch's OpenMP and sets it to all cores, whatever OMP_NUM_THREADS says
        torch.set_num_threads(threads)
    return np.asarray(found, np.float64)


def umap_record(asked: bool, seed: int) -> dict | None:
    if not asked:
        return None
    return {"version": version("umap-learn"), "neighbours": NEIGHBOURS, "min_dist": SPREAD, "seed": seed}


def coordinate_rows(
    sources: Sequence[Source], targets: Sequence[Target], representations: Sequence[Representation],
    outcomes: Mapping[tuple, Sequence[Outcome]], umap: bool = False, seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """One row an utterance, representation and layer; of alphas, which are one vector, `layer` is missing.

    outcomes: {(stage, task): linear outcomes}, for the columns predicted_TARGET.
    """
    utterances = [s.utterance for s in sources]
    common = {
        "utterance": [u.id for u in utterances],
        "speaker": [u.speaker or u.id for u in utterances],
        "dataset": [u.dataset or None for u in utterances],
        "audio": [s.path for s in sources],
    }
    shown = [t for t in targets if t.kind != "words"]
    labels = {f"target_{t.name}": t.names(t.labels if t.is_number else t.labels[:, 0]) for t in shown}
    frames = []
    for representation in representations:
        is_alpha = representation.stage.endswith("_alpha")
        for layer, features in enumerate(representation.features):
            found = project(features, umap, seed)
            columns = {"stage": representation.stage, "task": representation.task, "layer": None if is_alpha else layer}
            for axis in range(2):
                columns |= {f"pca_{axis + 1}": found.pca[:, axis], f"pca_share_{axis + 1}": found.share[axis]}
            for axis in range(2):
                columns |= {f"umap_{axis + 1}": None if found.umap is None else found.umap[:, axis]}
            for target in shown:
                columns[f"predicted_{target.name}"] = None
            for outcome in outcomes.get((representation.stage, representation.task), ()):
                if outcome.target in shown:
                    answers = outcome.answers.predicted[layer, :, 0]
                    columns[f"predicted_{outcome.target.name}"] = outcome.target.names(answers)
            frames.append(pd.DataFrame(common | columns | labels))
    return typed(pd.concat(frames, ignore_index=True), shown)


def typed(frame: pd.DataFrame, targets: Sequence[Target]) -> pd.DataFrame:
    """Columns that may be wholly empty get their type all the same."""
    kinds = {"layer": "Int64", "task": "string", "dataset": "string", "umap_1": "Float64", "umap_2": "Float64"}
    for target in targets:
        kind = "Float64" if target.is_number else "string"
        kinds |= {f"target_{target.name}": kind, f"predicted_{target.name}": kind}
    return frame.astype(kinds)
