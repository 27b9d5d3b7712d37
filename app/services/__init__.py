"""All caches, locks and loads of the dashboard. Pages and components hold nothing themselves.

One copy of a model serves every session; one worker thread runs it, so that answers queue instead of fighting for the
cores (and OpenMP keeps one pool of threads, not one for each visitor). Results are found by the sha256 of the file's
bytes, the run and the prompts: only who has the same bytes can meet the same entry. Recordings stay in their session.

Pages write `from app import services` and find here all that the files of this folder offer.
"""

from app.services.explanations import (
    aligned,
    attributed,
    each_layer_out,
    heard,
    listening_queue,
    logged_utterances,
    neighbours,
    recorded,
    routes,
    saved_rows,
    without_layers,
)
from app.services.folders import (
    REPOSITORY,
    RUNS_VARIABLE,
    card_of,
    config_of,
    environment_of,
    evaluations,
    is_trained,
    metrics_rows,
    run_named,
    runs,
    runs_root,
    seeds_of,
    signatures_of,
    stamp,
)
from app.services.models import Answered, Loaded, Prompts, answer, loaded, model_loads
from app.services.recordings import SAMPLES, Picture, decode, picture, samples
from app.services.routing import (
    group_means,
    logged_utterance,
    routing_facets,
    routing_files,
    routing_index_of,
    routing_page,
    routing_points,
    standing,
    task_difference,
)
from harmonifuse_core.data.audio import SAMPLE_RATE

__all__ = [
    "Answered", "Loaded", "Picture", "Prompts", "REPOSITORY", "RUNS_VARIABLE", "SAMPLES", "SAMPLE_RATE", "answer",
    "card_of", "config_of", "decode", "environment_of", "evaluations", "group_means", "is_trained", "loaded",
    "logged_utterance", "metrics_rows", "model_loads", "picture", "routing_facets", "routing_files",
    "routing_index_of", "routing_page", "routing_points", "run_named", "runs", "runs_root", "samples", "seeds_of",
    "signatures_of", "stamp", "standing", "task_difference",
    "aligned", "attributed", "each_layer_out", "heard", "listening_queue", "logged_utterances", "neighbours",
    "recorded", "routes", "saved_rows", "without_layers",
]  # fmt: skip
