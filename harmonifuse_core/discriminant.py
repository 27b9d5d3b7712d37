"""Fit in closed form what a classification reads: `python -m harmonifuse_core.discriminant --run RUN --output NEW`.

Encoder, gates and LM of --run stay as they are, so that its transcripts do not change by a letter. The corpora and the
augmentation of waveforms are those of its config's `data` (without mixup), drawn by their weights and by the seed of
its training. --add brings more, such as read speech that is assumed to be neutral (`configs/corpora/read_speech.yaml`):
a fit that has heard acted speech only gives the rest one of its emotions all the same.
See `training/discriminant.py` for the method. NEW gets the head; `calibrate` sets its temperature.
Exit code: 0, 1 where it cannot be fitted.
"""

import argparse
import math
import sys
from dataclasses import replace

from harmonifuse_core.config import Config, to_dict
from harmonifuse_core.data_config import read_corpora
from harmonifuse_core.model.harmonifuse import HarmoniFuse, build_model
from harmonifuse_core.runs import RunError, RunFolder, load, refuse_existing, save_derived
from harmonifuse_core.tasks import CLASSIFICATION
from harmonifuse_core.training.discriminant import (
    Statistics,
    discriminant,
    fit_head,
    gather,
    standardise,
    unseen_recalls,
    write_reading,
)
from harmonifuse_core.training.draws import Draws


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m harmonifuse_core.discriminant", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--run", required=True, help="run folder whose weights the result keeps")
    parser.add_argument("--output", required=True, help="new run folder")
    parser.add_argument("--task", default="ser", help="a classification task (default ser)")
    parser.add_argument(
        "--samples", type=int, default=6000, help="augmented utterances (6000); a third more for the head"
    )
    parser.add_argument("--shrinkage", type=float, default=0.3, help="of the covariance, 0 to 1 (default 0.3)")
    parser.add_argument("--strength", type=float, default=1.0, help="of the scores in the token, in words (default 1)")
    parser.add_argument(
        "--weights", type=_weights, default={}, metavar="CORPUS=W,...",
        help="share of the draws by the manifest's name, in place of the config's (ravdess=0.9,nemo=0.1)",
    )  # fmt: skip
    parser.add_argument(
        "--add", metavar="FILE", help="YAML file of further corpora for the fit, under `train` as in a config"
    )
    parser.add_argument(
        "--folds", type=int, default=0, metavar="K",
        help="also score the discriminant on speakers left out of it, K fits (0: none); honest where no emotion taught "
        "the encoder (trains_encoder: false)",
    )  # fmt: skip
    return parser


def _weights(text: str) -> dict[str, float]:
    try:
        found = {name: float(value) for name, value in (part.split("=") for part in text.split(","))}
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} names no weights; write ravdess=0.9,nemo=0.1") from None
    if bad := [f"{name}={value:g}" for name, value in found.items() if not 0 < value < math.inf]:
        raise argparse.ArgumentTypeError(f"{bad[0]}: a weight is above 0")
    return found


def score_unseen(draws: Draws, values, found: Statistics, names, shrinkage: float, folds: int) -> dict[str, dict]:
    """{corpus: scores on speakers left out}, told as it goes; empty without folds."""
    if not folds:
        return {}
    speakers, corpora = draws.people(found.ids)
    reports = unseen_recalls(values, found.labels, names, shrinkage, speakers, corpora, folds)
    scores = {}
    for corpus, report in reports.items():
        count = len({s for s, c in zip(speakers, corpora, strict=True) if c == corpus})
        low, high = report.ua_ci
        scores[corpus] = {"ua": report.ua, "ua_ci": [low, high], "utterances": report.utterances, "speakers": count}
        interval = "no interval" if low is None else f"{low:.1%} to {high:.1%}"
        print(
            f"{corpus}: UA {report.ua:.1%} ({interval}) on {report.utterances} augmented utterances of {count} "
            f"speakers, each left out of the fit in one of {folds} folds"
        )
    return scores


def with_reading(run: RunFolder, task: str) -> tuple[HarmoniFuse, Config]:
    """The run's model with a reading of layers that has room for the task's scores. Raises RunError."""
    config, model = run.config(), load(run)
    spec = config.model.task(task)
    if spec.kind != CLASSIFICATION:
        raise RunError(f"task {task!r} is {spec.kind}: a discriminant needs classes")
    if sum(t.kind == CLASSIFICATION for t in config.model.tasks) > 1:
        raise RunError(f"{run.path} classifies more than {task!r}: they would share the one speech token")
    if not config.model.lm.speech_token:
        raise RunError(f"{run.path} has no speech token to add the scores to: lm.kind whisper, lm.speech_token true")
    lm = replace(config.model.lm, speech_token_layers=2 * len(spec.labels))
    config = replace(config, model=replace(config.model, lm=lm))
    built = build_model(
        config.model, encoder_hf=model.encoder.hf_config, lm_hf=model.lm.hf_config, tokenizer=model.tokenizer
    )
    kept = {name: value for name, value in model.state_dict().items() if not name.startswith("summary.")}
    built.load_state_dict(kept, strict=False)
    return built.eval(), config


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        run, output = RunFolder(options.run), RunFolder(options.output)
        refuse_existing(output)
        if not 0 <= options.shrinkage <= 1 or options.strength <= 0 or options.samples < 1:
            raise RunError("--shrinkage goes from 0 to 1; --strength and --samples are above 0")
        model, config = with_reading(run, options.task)
        added = read_corpora(options.add) if options.add else ()
        if other := [corpus for corpus in added if corpus.task != options.task]:
            raise RunError(
                f"--add {options.add}: {other[0].manifest} is for task {other[0].task!r}, not {options.task!r}"
            )
        heard = replace(config, data=replace(config.data, train=(*config.data.train, *added)))
        draws = Draws(heard, options.task, model.tokenizer, options.weights)
        labels = config.model.task(options.task).labels
        found = gather(model, options.task, draws.take(options.samples, "layers"))
        values = standardise(model, found)
        unseen = score_unseen(draws, values, found, labels, options.shrinkage, options.folds)
        weights, offsets = discriminant(values, found.labels, labels, options.shrinkage)
        write_reading(model, weights, offsets, options.strength, config.training.seed)
        explained, same = fit_head(model, options.task, draws.take(-(-options.samples // 3), "head"))
        made = {
            "discriminant_of": str(run.path), "task": options.task, "samples": len(found.labels),
            "shrinkage": options.shrinkage, "strength": options.strength, "seed": config.training.seed,
            "head_explains": round(explained, 4), "head_agrees": round(same, 4), "weights": options.weights,
            "added": to_dict(added),
        } | ({"folds": options.folds, "unseen_speakers": unseen} if unseen else {})  # fmt: skip
        save_derived(model, run, output, config, made)
    except (ValueError, OSError) as error:
        print(f"discriminant: {error}", file=sys.stderr)
        return 1
    print(f"{options.task}: the head explains {explained:.1%} of the scores and names the same class in {same:.1%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
