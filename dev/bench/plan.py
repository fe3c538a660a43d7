"""What is measured, in which order, and what follows from the samples."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypedDict


@dataclass(frozen=True)
class Recipe:
    """What every side is told alike. The last two are the trainer's own constants, told to the baselines."""

    epochs: int = 1
    learning_rate: float = 2e-4
    batch_size: int = 32  # texts per optimizer step
    max_length: int = 128  # tokens; run_classification's default
    seed: int = 42
    weight_decay: float = 0.01
    warmup: float = 0.1  # of all steps


@dataclass(frozen=True)
class Plan:
    """How much is measured: a full run is to end within some twenty minutes on two cores.

    Args:
        samples: Runs of each side, in turns.
        texts: Trained on in each run; the first optimizer step is not timed.
        trial_texts: For choosing the quickest arguments.
        validation_texts: Evaluated at the end of each run, untimed.
        model_texts: For the classifier that scoring is measured with.
        model_epochs: Of the same; predictions of a model that has learnt nothing are all near ties.
        score_texts: The texts to test on, again and again; the pipeline at its defaults gets as many as for choosing.
        score_trial_texts: For choosing the quickest batch size.
    """

    samples: int = 3
    texts: int = 960
    trial_texts: int = 256
    validation_texts: int = 96
    model_texts: int = 6_000
    model_epochs: int = 4
    score_texts: int = 10_000
    score_trial_texts: int = 500


class Ratio(TypedDict):
    """How many times as fast, and the samples (texts per second) that say so."""

    ratio: float
    samples: dict[str, list[float]]


def in_turns(sides: Sequence[str], samples: int) -> Iterator[str]:
    """A B C A B C …: what slows the machine down for a while slows all sides down."""
    for _ in range(samples):
        yield from sides


def ratio(samples: dict[str, list[float]], ours: str, other: str) -> Ratio:
    """The ratio of two sides' medians. Raises ValueError if a side has no samples."""
    if not samples[ours] or not samples[other]:
        raise ValueError(f"no samples of {ours} or {other}")
    value = median(samples[ours]) / median(samples[other])
    return {"ratio": round(value, 2), "samples": {name: samples[name] for name in (ours, other)}}
