"""Runs a program that uses transformers' Trainer under a stopwatch.

``python -m dev.bench.timed report.json program [argument …]``; the program is a module or a Python file. Every
Trainer of the process gets the same callback, so that all sides are timed alike, scripts from elsewhere included.
"""

import importlib
import runpy
import sys
from pathlib import Path


def main(report: Path, program: str, arguments: list[str]) -> None:
    """Runs the program in this process."""
    is_file = program.endswith(".py")
    if not is_file:
        # Before transformers brings torch in: a package may set up the environment that torch reads when it is loaded.
        importlib.import_module(program)
    from transformers import trainer

    from dev.bench.stopwatch import Stopwatch

    trainer.DEFAULT_CALLBACKS.append(Stopwatch(report))
    sys.argv = [program, *arguments]
    if is_file:
        runpy.run_path(program, run_name="__main__")
    else:
        runpy.run_module(program, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
