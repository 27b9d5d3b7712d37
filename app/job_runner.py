"""The process of one job: `python -m app.job_runner FOLDER`. Runs what FOLDER/job.json names, writes FOLDER/end.json.

It stays when the command is stopped by Ctrl-C's signal, so that the exit code is written whatever happens to it.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from app.jobs import END, JOB, Command, write

NICENESS = 10  # visitors' answers come first


def main(folder: Path) -> int:
    """The command's exit code; 128 + N where signal N ended it, as a shell says it."""
    row = json.loads((folder / JOB).read_text(encoding="utf-8"))
    command = Command(row["kind"], tuple(row["arguments"]))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)  # a handler, not "ignore": the command starts with its own again
    os.nice(NICENESS)
    code = subprocess.run([sys.executable, *command.words], stdin=subprocess.DEVNULL).returncode
    code = code if code >= 0 else 128 - code
    write(folder / END, {"code": code})
    return code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
