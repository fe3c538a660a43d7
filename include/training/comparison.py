"""Whether a job that was trained again gave the same model, and where the two first part."""
# ruff: noqa: TID253 - imported where two models are compared, inside functions

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict
from safetensors import safe_open

from include.training.job import DECISIVE, Job, Result

TOLERANCE = 0.02
"""How far accuracy and macro-F1 on the validation rows may lie apart where weights need not be the same; on few rows it
is two of them."""
METRICS = ("validation_accuracy", "validation_macro_f1")
RUNTIME = ("batches", "pooling", "precision", "device", "layers", "processes")
WEIGHTS = "model.safetensors"


class Difference(BaseModel):
    """One thing that was not the same."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["setting", "base model", "code", "data", "library", "image", "machine", "tensor"]
    name: str
    original: str
    repeated: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}: {self.original} before, {self.repeated} now"


class Comparison(BaseModel):
    """What came of training a job again.

    ``same``: every tensor is. ``within_tolerance``: something that may change the last digits is another, and the
    metrics are no further apart than that allows. ``different``: they are, or nothing explains another tensor.
    """

    model_config = ConfigDict(frozen=True)

    verdict: Literal["same", "within_tolerance", "different"]
    explanation: str
    differences: list[Difference]  # the first one is the first in the order in which they come to bear
    unknown: list[str]  # what the original did not say of itself
    tolerance: float
    metrics: dict[str, tuple[float, float]]  # before, now

    @property
    def first_difference(self) -> Difference | None:
        """What differs first, in the order in which it comes to bear; None if nothing does."""
        return self.differences[0] if self.differences else None


def compare(jobs: tuple[Job, Job], results: tuple[Result, Result], models: tuple[Path, Path]) -> Comparison:
    """Compares an original (each time the first) with its repetition; ``models`` are the folders of their files."""
    before, now = (_known(job, result) for job, result in zip(jobs, results, strict=True))
    differences = [
        Difference(kind=kind, name=name, original=value, repeated=now.get((kind, name), "none"))
        for (kind, name), value in before.items()
        if value and value != now.get((kind, name))
    ]
    unknown = [f"{kind} {name}" for (kind, name), value in now.items() if value and not before.get((kind, name))]
    tensor = first_other_tensor(models[0] / WEIGHTS, models[1] / WEIGHTS)
    metrics = {
        name: (results[0].metrics.get(name, 0.0), results[1].metrics.get(name, 0.0))
        for name in METRICS
        if name in results[0].metrics
    }
    tolerance = max(TOLERANCE, 2 / max(1, results[0].rows.get("validation", 1)))
    apart = max((abs(one - other) for one, other in metrics.values()), default=0.0)
    verdict, explanation = _verdict(tensor, apart, tolerance, _excuse(results, differences, unknown))
    if differences:
        explanation += f". The first difference: {differences[0]}"
    return Comparison(
        verdict=verdict,
        explanation=explanation,
        differences=differences + ([tensor] if tensor else []),
        unknown=unknown,
        tolerance=tolerance,
        metrics=metrics,
    )


def first_other_tensor(original: Path, repeated: Path) -> Difference | None:
    """The first tensor, by name, in which two files of weights differ; None if they hold the same."""
    with safe_open(str(original), "pt") as before, safe_open(str(repeated), "pt") as now:
        names = sorted({*before.keys(), *now.keys()})
        for name in names:
            missing = [name not in file.keys() for file in (before, now)]  # noqa: SIM118 - it is no mapping
            if any(missing):
                there, gone = ("there", "missing") if missing[1] else ("missing", "there")
                return Difference(kind="tensor", name=name, original=there, repeated=gone)
            if (said := _unlike(before.get_tensor(name), now.get_tensor(name))) is not None:
                return Difference(kind="tensor", name=name, original=said[0], repeated=said[1])
    return None


def _unlike(one: torch.Tensor, other: torch.Tensor) -> tuple[str, str] | None:
    if one.shape != other.shape or one.dtype != other.dtype:
        return f"{one.dtype} {list(one.shape)}", f"{other.dtype} {list(other.shape)}"
    if torch.equal(one, other):
        return None
    apart = (one.double() - other.double()).abs()
    at = int(apart.argmax())
    return f"{one.flatten()[at]:.9g} at {at}", f"{other.flatten()[at]:.9g} (the furthest apart, by {apart.max():.2g})"


def _known(job: Job, result: Result) -> dict[tuple[Any, str], str]:
    """All that may decide an outcome, in the order in which it comes to bear."""
    return dict(_facts(job, result))


def _facts(job: Job, result: Result) -> Iterator[tuple[tuple[str, str], str]]:
    for name in DECISIVE:
        if name != "hyperparameters":
            yield ("setting", name), str(getattr(job, name))
    yield from _all("setting", job.hyperparameters.model_dump())
    yield ("base model", "revision"), result.base_model_revision
    yield ("code", "include/training"), result.trainer_hash
    yield from _all("data", result.dataset_files)
    yield from _all("library", result.versions)
    yield ("image", "of the trainer"), result.image
    yield from _all("machine", result.machine)
    yield from _all("machine", {name: result.extra[name] for name in RUNTIME if name in result.extra})


def _all(kind: str, values: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], str]]:
    yield from (((kind, name), str(value)) for name, value in values.items())


def _excuse(results: tuple[Result, Result], differences: list[Difference], unknown: list[str]) -> str:
    """Why the weights need not be the same; empty if they have to be."""
    if differences:
        return f"a {differences[0].kind} is another"
    if unknown:
        return f"the original does not say its {unknown[0]}"
    if any(result.resumed_from_step for result in results):
        return "one of the two went on from a checkpoint"
    if results[0].extra.get("device", "cpu") != "cpu":
        return "a GPU adds in no fixed order"
    return ""


def _verdict(tensor: Difference | None, apart: float, tolerance: float, excuse: str) -> tuple[Any, str]:
    if tensor is None:
        return "same", "every tensor is the same"
    if not excuse:
        return "different", (
            f"the machine, the versions and all settings are the same, and the weights are not: {tensor}"
        )
    if apart <= tolerance:
        return "within_tolerance", (
            f"the weights are not the same, since {excuse}; the metrics are {apart:.4f} apart, within the tolerance of "
            f"{tolerance:.4f}; {tensor}"
        )
    return (
        "different",
        f"the metrics are {apart:.4f} apart, beyond the tolerance of {tolerance:.4f}; {excuse}; {tensor}",
    )
