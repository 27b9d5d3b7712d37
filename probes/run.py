"""What does each layer hold? `python -m probes.run --run RUN --manifest M.jsonl [--targets emotion,words,...]`.

`--encoder NAME_OR_FOLDER --output FOLDER` instead of `--run` probes any supported Hugging Face speech encoder.
`--manifest` with its selectors may stand several times. Features are pooled while the encoder runs and kept in a cache:
the same command, or one with other targets, goes on where a killed one stopped. Writes probes/NAME.json (tables with
their definitions), NAME.parquet (coordinates and answers an utterance and layer) and NAME.html (a page to read).
Exit code: 0, 1 where the corpus has too little to go on, 2 for wrong arguments.
"""

import argparse
import json
import shlex
import shutil
import sys
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import sklearn
import torch
from tqdm import tqdm

from harmonifuse_core.analysis.result import AnalysisResult, plain, short, write_rows
from harmonifuse_core.config import EncoderConfig
from harmonifuse_core.inference.selection import Selection, add_selection_arguments, selections_of
from harmonifuse_core.inference.sources import Source
from harmonifuse_core.model.encoder import build_encoder
from harmonifuse_core.model.harmonifuse import HarmoniFuse
from harmonifuse_core.model.speech_encoder import SpeechEncoder
from harmonifuse_core.runs import RunFolder, environment, load, write_json, write_text
from probes.crossvalidation import KINDS
from probes.erasing_run import erase, erase_layers
from probes.features import Corpus, FeatureCache, extract
from probes.probing import Options
from probes.projection import umap_record
from probes.report import report_html
from probes.summary import summary
from probes.survey import Ask, Found, Part, make_parts, survey
from probes.targets import TARGETS

STATES = ("encoder", "lm")


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m probes.run", description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--run", help="run folder, e.g. runs/default")
    what.add_argument("--encoder", help="hub name or folder of a WavLM, HuBERT, wav2vec 2.0 or Whisper")
    add_selection_arguments(parser)
    known = f"of {', '.join(TARGETS)}, or manifest fields (default: all that the corpus has)"
    parser.add_argument("--targets", default="", metavar="NAME,...", help=known)
    parser.add_argument("--states", default="", help="encoder, lm or encoder,lm (default: both of a run)")
    parser.add_argument("--probes", default=",".join(KINDS), help="linear, mlp or both (default)")
    parser.add_argument("--folds", type=int, default=5, help="of speakers, outer (default 5)")
    parser.add_argument("--inner-folds", type=int, default=3, help="that choose the penalty (default 3)")
    parser.add_argument("--no-random", action="store_true", help="no baseline of the encoder with fresh weights")
    parser.add_argument("--umap", action="store_true", help="UMAP coordinates too (PCA always)")
    parser.add_argument(
        "--erase", default="", metavar="CONCEPT", help="erase this target's classes and measure the run"
    )
    parser.add_argument(
        "--erase-layers", default="", metavar="K,...,all", help="encoder layers (default: each, and all)"
    )
    parser.add_argument("--erase-limit", type=int, default=96, metavar="N", help="utterances to erase on (default 96)")
    parser.add_argument("--no-words", action="store_true", help="erasure without transcripts: UA only, much faster")
    parser.add_argument("--name", default="", help="of the results (default: manifest and split)")
    parser.add_argument("--output", default="", metavar="FOLDER", help="for results and cache; needed with --encoder")
    parser.add_argument("--seed", type=int, default=0, help="of folds, controls, fresh weights, bootstrap and UMAP")
    parser.add_argument("--resamples", type=int, default=2000, metavar="R", help="of the bootstrap over speakers")
    parser.add_argument("--fresh", action="store_true", help="forget cached features of these weights")
    parser.add_argument("--json", action="store_true", help="the result as one JSON object on stdout")
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser


def names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


@dataclass(frozen=True)
class Place:
    """Where results and caches go. run: None for a bare encoder."""

    run: RunFolder | None
    folder: Path
    name: str

    def file(self, suffix: str) -> Path:
        return self.run.part("probes", f"{self.name}{suffix}") if self.run else self.folder / f"{self.name}{suffix}"


def place_of(options, selections: list[Selection]) -> Place:
    """Raises ValueError for a name that is no plain file name, and for an encoder without --output."""
    first = selections[0]
    name = options.name or "-".join(filter(None, (Path(first.manifest).stem, first.split)))
    if Path(name).name != name or name.startswith(".") or name == "joined":
        raise ValueError(f"--name {name!r}: give a plain file name, other than 'joined'")
    if options.run and options.output:
        raise ValueError(f"--output {options.output!r}: results of a run go into the run; leave it out")
    if options.run:
        run = RunFolder(options.run)
        return Place(run, run.part("probes"), name)
    if not options.output:
        raise ValueError("--encoder needs --output FOLDER for the results")
    return Place(None, Path(options.output), name)


def ask_of(options, selections: list[Selection]) -> Ask:
    """Raises ValueError for values out of range."""
    states = names(options.states) or (STATES if options.run else ("encoder",))
    for what, given, known in (("states", states, STATES), ("probes", names(options.probes), KINDS)):
        if not given or set(given) - set(known):
            raise ValueError(f"--{what} {','.join(given)!r}: choose from {', '.join(known)}")
    bounds = {"folds": (options.folds, 2), "inner-folds": (options.inner_folds, 2)}
    bounds |= {"resamples": (options.resamples, 1), "erase-limit": (options.erase_limit, 4)}
    for what, (value, least) in bounds.items():
        if value < least:
            raise ValueError(f"--{what} {value}: give at least {least}")
    label_map = {k: v for selection in selections for k, v in selection.label_map.items()}
    probing = Options(names(options.probes), options.folds, options.inner_folds, options.resamples, options.seed)
    return Ask(names(options.targets), states, label_map, probing, options.umap)


def gather(selections: list[Selection]) -> list[Source]:
    """Raises ValueError where an id stands in two manifests."""
    sources = [source for selection in selections for source in selection.sources()]
    seen = set()
    for source in sources:
        if source.utterance.id in seen:
            raise ValueError(f"utterance id {source.utterance.id!r} stands in two manifests: make it unique")
        seen.add(source.utterance.id)
    return sources


def subject(options) -> tuple[SpeechEncoder, HarmoniFuse | None]:
    if options.run:
        model = load(options.run, options.device)
        return model.encoder, model
    encoder = build_encoder(EncoderConfig(name=options.encoder)).to(options.device).eval()
    return encoder, None


def main(arguments: list[str] | None = None) -> int:
    options, started = parser().parse_args(arguments), time.perf_counter()
    try:
        selections = selections_of(options)
        place, ask = place_of(options, selections), ask_of(options, selections)
        if options.erase and not options.run:
            raise ValueError("--erase measures a run's answers: give --run")
        sources = gather(selections)
        encoder, model = subject(options)
        limit = model.config.max_seconds if model else 30.0
        parts = make_parts(encoder, place.folder, model, ask.states, not options.no_random, options.seed, limit)
        layers = erase_layers(options.erase_layers, encoder.layers) if options.erase else []
        if options.fresh:
            for part in parts:
                shutil.rmtree(part.cache.folder, ignore_errors=True)
            parts = [Part(p.name, p.reader, FeatureCache(place.folder, p.reader.digest)) for p in parts]
    except (ValueError, OSError) as error:
        print(f"probes: {error}", file=sys.stderr)
        return 2
    try:
        corpus = read(sources, parts, options.quiet)
        found = fit(place.name, corpus, parts, ask, options.quiet)
        result = found.result
        if options.erase:
            result = with_erasure(result, model, corpus, found, ask, options, layers)
    except ValueError as error:
        print(f"probes: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("probes: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    stored = short(result.as_dict()) | plain(record(options, arguments, selections, ask, corpus, parts, found.left))
    stored["seconds"] = round(time.perf_counter() - started, 1)
    save(place, stored, found)
    print(json.dumps(stored, ensure_ascii=False, allow_nan=False) if options.json else summary(stored))
    if not options.json:
        print(f"\n  written: {place.file('.json')}, .parquet, .html")
    return 0


def read(sources: list[Source], parts: list[Part], quiet: bool) -> Corpus:
    """Every recording through every reader whose cache lacks it. Raises ValueError where none could be read."""
    with tqdm(total=len(sources), unit="recording", desc="read", disable=quiet, file=sys.stderr) as bar:
        corpus = extract(sources, [p.reader for p in parts], [p.cache for p in parts], bar.update)
        for failure in corpus.failed:
            bar.write(f"probes: left out: {failure.path}: {failure.error}", file=sys.stderr)
    if not corpus.sources:
        raise ValueError("no recording could be read; the reasons stand above")
    return corpus


def fit(name: str, corpus: Corpus, parts: list[Part], ask: Ask, quiet: bool) -> Found:
    lm_stages = sum(key.startswith("lm/") for p in parts if p.name == "model" for key in p.cache.array_names())
    stages = ("encoder" in ask.states) + lm_stages + 2 + any(p.name == "random" for p in parts)
    total = stages * len(ask.options.probes) + 1
    with tqdm(total=total, desc="probe", disable=quiet, file=sys.stderr) as bar:

        def on_step(what: str):
            bar.set_postfix_str(what, refresh=False)
            bar.update()

        return survey(name, corpus, parts, ask, on_step)


def with_erasure(result: AnalysisResult, model, corpus: Corpus, found: Found, ask: Ask, options, layers):
    with tqdm(desc="erase", unit="recording", disable=options.quiet, file=sys.stderr) as bar:
        table = erase(
            model, corpus, found.material, options.erase, layers, options.erase_limit, not options.no_words,
            ask.label_map, bar.update,
        )  # fmt: skip
    return replace(result, tables=(*result.tables, table))


def record(options, arguments, selections, ask: Ask, corpus: Corpus, parts: list[Part], left) -> dict:
    """What made the result: enough to make it again."""
    words = sys.argv[1:] if arguments is None else arguments
    model = f"run {Path(options.run).resolve().name}" if options.run else f"encoder {options.encoder}"
    return {
        "command": shlex.join(["python", "-m", "probes.run", *words]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": options.seed, "resamples": options.resamples, "folds": options.folds,
        "inner_folds": options.inner_folds, "model": model, "states": list(ask.states),
        "weights": {p.name: p.reader.digest for p in parts}, "probes": list(ask.options.probes),
        "selections": [s.as_dict() for s in selections], "label_map": dict(ask.label_map),
        "failed": [vars(f) for f in corpus.failed], "not_probed": list(left),
        "environment": environment(), "umap": umap_record(ask.umap, options.seed),
        "pca": {"version": sklearn.__version__, "of": "scikit-learn PCA (randomized, seeded) of standardised features"},
    }  # fmt: skip


def save(place: Place, stored: dict, found: Found):
    """All three files, the JSON last, so that it never stands without the others."""
    place.file(".parquet").parent.mkdir(parents=True, exist_ok=True)
    write_rows(place.file(".parquet"), found.rows)
    write_text(place.file(".html"), report_html(stored))
    write_json(place.file(".json"), stored)


if __name__ == "__main__":
    sys.exit(main())
