"""Prepare data for training: a raw corpus to a manifest, the soft targets of a teacher, or labels by a model.

python -m harmonifuse_core.prepare --list
python -m harmonifuse_core.prepare ravdess RAW_FOLDER data/ravdess.jsonl [--split-seed 0] [--force]
python -m harmonifuse_core.prepare teacher --whisper FOLDER --manifest M.jsonl --output FOLDER
python -m harmonifuse_core.prepare pseudo-label --run RUN --task ser --manifest M.jsonl --output OUT.jsonl
"""

import argparse
import sys

from harmonifuse_core.data.corpora.entries import BY_SPEAKER, NONE, OFFICIAL, Corpus, Option
from harmonifuse_core.data.corpora.registry import CORPORA, listing
from harmonifuse_core.data.corpora.writing import Settings, prepare, report_path

COMMON = tuple(Settings.__dataclass_fields__)


class ListCorpora(argparse.Action):
    """`--list`: print the corpora and leave."""

    def __call__(self, parser, namespace, values, option_string=None):
        print("\n".join(listing()))
        parser.exit()


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m harmonifuse_core.prepare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--list", action=ListCorpora, nargs=0, help="the corpora, their published counts and licences")
    commands = parser.add_subparsers(dest="command", required=True, metavar="NAME")
    teacher = commands.add_parser("teacher", help="transcripts and soft targets of untrained Whisper on 30 s windows")
    teacher.add_argument("--whisper", required=True, help="Whisper checkpoint: folder or hub name")
    teacher.add_argument("--manifest", required=True)
    teacher.add_argument("--split", default="", help="manifest split (default: all)")
    teacher.add_argument("--output", required=True, help="folder to write")
    teacher.add_argument("--beams", type=int, default=1, help="beam width of the teacher (1: greedy)")
    _add_pseudo_label(commands)
    for corpus in CORPORA.values():
        _add_corpus(commands, corpus)
    return parser


def _add_pseudo_label(commands):
    command = commands.add_parser("pseudo-label", help="labels by a run of ours or emotion2vec, with probabilities")
    who = command.add_mutually_exclusive_group(required=True)
    who.add_argument("--run", help="run folder whose model answers --task")
    who.add_argument("--emotion2vec", metavar="MODEL", nargs="?", const="", help="through funasr (default: plus large)")
    command.add_argument("--task", default="ser", help="of --run (default: %(default)s)")
    command.add_argument("--manifest", required=True)
    command.add_argument("--split", default="", help="manifest split (default: all)")
    command.add_argument("--output", required=True, metavar="OUT.jsonl", help="manifest to write")
    command.add_argument("--threshold", type=float, default=0.0, help="least probability of a label (default: 0, all)")
    command.add_argument(
        "--num-shards", type=int, default=1, metavar="N", help="of N processes that share the work ..."
    )
    command.add_argument("--shard-index", type=int, default=0, metavar="I", help="... this is number I, from 0")
    command.add_argument("--device", default="cpu")


def _add_corpus(commands, corpus: Corpus):
    command = commands.add_parser(
        corpus.name,
        help=f"{corpus.title}: raw folder to manifest",
        description=sys.modules[corpus.entries.__module__].__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("raw", metavar="RAW_FOLDER", help=f"holds {corpus.layout}")
    command.add_argument("out", metavar="OUT.jsonl", help="manifest to write; its report goes to OUT.report.json")
    command.add_argument("--force", action="store_true", help="replace OUT.jsonl if it exists")
    command.add_argument(
        "--splits",
        default="",
        choices=(OFFICIAL, BY_SPEAKER, NONE),
        help=f"who divides (default here: {corpus.splits})",
    )
    command.add_argument("--split-seed", type=int, default=0, help="another seed, other speakers in dev and test")
    command.add_argument("--dev-share", type=float, help="of the speakers (default 0.1 where the splits are made here)")
    command.add_argument(
        "--test-share", type=float, help="of the speakers (default 0.1 where the splits are made here)"
    )
    command.add_argument(
        "--also-disjoint", default="", metavar="FIELD", help="hold out values of this field too: sentence"
    )
    command.add_argument("--need-text", action="store_true", help="leave out what has no transcript")
    command.add_argument("--cut", action="store_true", help="write parts of longer recordings as files in OUT.audio/")
    command.add_argument("--audio-root", default="", metavar="FOLDER", help="a second folder that may hold the audio")
    for option in corpus.options:
        _add_option(command, option)


def _add_option(command, option: Option):
    several = option.kind is list
    command.add_argument(
        "--" + option.name.replace("_", "-"),
        type=_values if several else option.kind,
        default=option.default,
        choices=option.choices or None,
        metavar=None if option.choices else "A,B" if several else option.kind.__name__.upper(),
        help=option.help + ("" if option.default in ("", (), 0.0) else f" (default: {_told(option.default)})"),
    )


def _values(text: str) -> tuple[str, ...]:
    return tuple(value.strip() for value in text.split(",") if value.strip())


def _told(value) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)


def _prepare_corpus(corpus: Corpus, options: argparse.Namespace):
    settings = Settings(**{name: getattr(options, name) for name in COMMON})
    own = {option.name: getattr(options, option.name) for option in corpus.options}
    report = prepare(corpus, options.raw, options.out, settings, own)
    print("\n".join(report.lines()))
    print(f"{options.out} written; all that was left out is named in {report_path(options.out)}")


def _pseudo_label(options: argparse.Namespace):
    from harmonifuse_core.training.labellers import EMOTION2VEC, Emotion2vec, RunLabeller
    from harmonifuse_core.training.pseudo_label import write_pseudo_labels

    if options.run:
        labeller = RunLabeller(options.run, options.task, options.device)
    else:
        labeller = Emotion2vec(options.emotion2vec or EMOTION2VEC, options.device)
    done = write_pseudo_labels(
        labeller, options.manifest, options.output, split=options.split, threshold=options.threshold,
        num_shards=options.num_shards, shard_index=options.shard_index,
    )  # fmt: skip
    print(f"{done.labelled} labelled, {done.unsure} below the threshold, {done.failed} failed, {done.kept} had a label")
    print(
        f"{done.manifest} written" if done.manifest else "other shards are not done: the last one writes the manifest"
    )


def spelled(arguments: list[str]) -> list[str]:
    """The corpus named first, as it is spelled here: CREMA-D, crema-d and CremaD are crema_d."""

    def bare(name: str) -> str:
        return "".join(c for c in name.lower() if c.isalnum())

    known = {bare(name): name for name in (*CORPORA, "pseudo-label", "teacher")}
    return [known.get(bare(arguments[0]), arguments[0]), *arguments[1:]] if arguments else []


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(spelled(sys.argv[1:] if arguments is None else list(arguments)))
    try:
        if options.command in CORPORA:
            _prepare_corpus(CORPORA[options.command], options)
        elif options.command == "pseudo-label":
            _pseudo_label(options)
        else:
            from harmonifuse_core.training.teacher import write_teacher

            count = write_teacher(options.whisper, options.manifest, options.split, options.output, options.beams)
            print(f"{count} utterances written to {options.output}")
    except (ValueError, OSError) as error:
        print(f"prepare: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("prepare: stopped; pseudo-label goes on where it was, else nothing was written", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
