"""Prepare data: `python -m harmonifuse_core.prepare teacher --whisper FOLDER --manifest M.jsonl --output FOLDER`."""

import argparse
import sys


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m harmonifuse_core.prepare", description="Prepare data for training."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    teacher = commands.add_parser("teacher", help="transcripts and soft targets of untrained Whisper on 30 s windows")
    teacher.add_argument("--whisper", required=True, help="Whisper checkpoint: folder or hub name")
    teacher.add_argument("--manifest", required=True)
    teacher.add_argument("--split", default="", help="manifest split (default: all)")
    teacher.add_argument("--output", required=True, help="folder to write")
    teacher.add_argument("--beams", type=int, default=1, help="beam width of the teacher (1: greedy)")
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        from harmonifuse_core.training.teacher import write_teacher

        count = write_teacher(options.whisper, options.manifest, options.split, options.output, options.beams)
        print(f"{count} utterances written to {options.output}")
    except ValueError as error:
        print(f"prepare: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
