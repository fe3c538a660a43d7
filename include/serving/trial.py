"""Whether a model can be served: it is loaded and asked as the server does it, in a process that may be killed."""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from include.serving.engine import Engine

SINGLE = 5  # texts that are asked alone, for how long one takes
TOGETHER = 32  # texts of one request after them


@dataclass(frozen=True)
class Tried:
    """What loading and answering took."""

    load_seconds: float  # until the first answer
    answer_seconds: float  # of one text, the median


def main(folder: str, texts: Sequence[str]) -> int:
    """Loads a model's files and lets it answer; prints what that took as JSON, or one line of why it does not.

    Returns the exit code. One thread computes, so that a process that was forked from a busy one cannot hang.
    """
    try:
        import torch

        torch.set_num_threads(1)
        from include.serving.engine import Engine

        begun = time.perf_counter()
        engine = Engine("the model", "", Path(folder))
        loaded = time.perf_counter() - begun
        took = sorted(_seconds(engine, [text]) for text in texts[:SINGLE])
        _seconds(engine, list(texts[:TOGETHER]))
    except Exception as error:
        print(" ".join(str(error).split()) or type(error).__name__, file=sys.stderr)
        return 1
    print(json.dumps(asdict(Tried(loaded, took[len(took) // 2]))))
    return 0


def _seconds(engine: "Engine", texts: list[str]) -> float:
    begun = time.perf_counter()
    answers = engine.probabilities(engine.tokenize(texts).rows)
    if answers.shape != (len(texts), len(engine.labels)) or not (answers >= 0).all():
        raise ValueError(f"it answers {len(texts)} texts with numbers that are no probabilities")
    return time.perf_counter() - begun
