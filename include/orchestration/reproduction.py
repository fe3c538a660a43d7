"""Trains a version again and compares: ``python -m include.orchestration.reproduction --version 7``.

What the version was made of comes from its job, or where the registry has lost it from the ledger. The job that trains
it again is one of its own, in an MLflow experiment of its own; nothing is registered, and no alias moves.
"""

import argparse
import subprocess
import sys
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import uuid4

from pydantic import BaseModel

from include import lake, objects
from include.orchestration.forked import PROJECT
from include.orchestration.warehouse import warehouse
from include.registry import ledger, models
from include.settings import settings
from include.training import provenance
from include.training.job import Job, Result

ALL_ENTRIES = 100_000

Document = TypeVar("Document", bound=BaseModel)


class NotReproducible(RuntimeError):
    """What a version was made of is not there any more; the message says what is missing."""


@dataclass(frozen=True)
class Origin:
    """What a version was made of."""

    version: str
    model_uri: str  # the folder of its files
    job: Job
    result: Result


def origin(model_name: str, version: str) -> Origin:
    """What a version was made of, by the registry or else by the ledger. Raises NotReproducible."""
    registered = models.by_version(model_name, version)
    job_id = registered.tags.get(models.JOB_ID, "") if registered else ""
    if not job_id:
        job_id = next((entry.job_id for entry in entries(model_name, version) if entry.job_id), "")
    if not job_id:
        raise NotReproducible(f"neither the registry nor the ledger knows a version {version} of {model_name}")
    uri = registered.uri if registered else lake.model(model_name, version).rstrip("/")
    return Origin(version, uri, _read(job_id, "job.json", Job), _read(job_id, "result.json", Result))


def entries(model_name: str, version: str) -> list[ledger.Entry]:
    """The ledger's entries about a version, the newest first."""
    found = ledger.entries(warehouse(), model_name, limit=ALL_ENTRIES)
    return [entry for entry in found if entry.version == version]


def rebuild(model_name: str, version: str, purpose: str) -> str:
    """Submits the job that trains a version again; asked for the same purpose, it is the same job. Returns its URI.

    Raises NotReproducible if what the version was made of is gone.
    """
    found = origin(model_name, version)
    for split in ("train", "validation"):
        uri = f"{found.job.dataset_uri.rstrip('/')}/{split}.parquet"
        if not objects.exists(uri):
            raise NotReproducible(f"version {version} was trained on a dataset that is gone: there is no {uri}")
    if not objects.exists(f"{found.model_uri}/model.safetensors"):
        raise NotReproducible(
            f"the files of version {version} are gone: there is no {found.model_uri}/model.safetensors"
        )
    facts = {
        "base_model_revision": found.job.base_model_revision or found.result.base_model_revision,
        "trainer_hash": provenance.trainer_hash(),
        "repeats": f"{found.job.job_id} {purpose}",
        "mlflow_tracking_uri": settings().mlflow_tracking_uri,
        "mlflow_experiment": f"{model_name}-reproductions",
        "mlflow_run_name": f"{model_name} version {version} again",
    }
    return found.job.model_copy(update=facts).submit()


def judge(model_name: str, version: str, result_uri: str) -> Any:
    """Compares a version with what training it again gave; the ``Comparison``, which then lies beside that result."""
    from include.training.comparison import compare

    found = origin(model_name, version)
    result = Result.model_validate(objects.read_json(result_uri))
    job = Job.model_validate(objects.read_json(lake.job(result.job_id, "job.json")))
    with objects.local(found.model_uri) as before, objects.local(result.model_uri) as now:
        comparison = compare((found.job, job), (found.result, result), (before, now))
    objects.write_bytes(lake.job(result.job_id, "comparison.json"), comparison.model_dump_json(indent=2).encode())
    return comparison


def _read(job_id: str, name: str, document: type[Document]) -> Document:
    uri = lake.job(job_id, name)
    if not objects.exists(uri):
        raise NotReproducible(f"the version's job is gone: there is no {uri}")
    return document.model_validate(objects.read_json(uri))


def main(arguments: list[str] | None = None) -> int:
    """Runs the command on this machine; returns its exit code: 1 if the version was not made again."""
    parser = argparse.ArgumentParser(prog="python -m include.orchestration.reproduction", description=__doc__)
    parser.add_argument("--model", default=settings().model_name, help="registered model (%(default)s)")
    parser.add_argument("--version", required=True, help="which one to train again")
    options = parser.parse_args(arguments)
    try:
        job_uri = rebuild(options.model, options.version, uuid4().hex)
    except NotReproducible as error:
        print(f"cannot be made again: {error}", file=sys.stderr)
        return 1
    done = subprocess.call([sys.executable, "-m", "include.training", job_uri, "--stop-with-parent"], cwd=PROJECT)
    if done:
        return done
    comparison = judge(options.model, options.version, job_uri.replace("/job.json", "/result.json"))
    print(
        f"{options.model} version {options.version}: {comparison.verdict.replace('_', ' ')}. {comparison.explanation}."
    )
    for name, (before, now) in comparison.metrics.items():
        print(f"  {name:<22} {before:.4f} before, {now:.4f} now")
    for difference in comparison.differences:
        print(f"  {difference}")
    if comparison.unknown:
        print(f"  The original, of an earlier release, does not say its {', '.join(comparison.unknown)}")
    print(f"  see {job_uri.rsplit('/', 1)[0]}/comparison.json")
    return 1 if comparison.verdict == "different" else 0


if __name__ == "__main__":
    sys.exit(main())
