"""Takes files in as uploads would be, without Airflow and training, and compares what comes of them with what should.

A folder of cases holds files, and an ``expected.json`` that says of each of them (a name that ends in ``/`` is a folder
that is uploaded together): ``first`` (nothing came before), ``after`` (these were accepted before), ``env`` (settings),
and the right ``rows``, ``used``, ``rejected`` by rule, ``labels`` and ``warnings`` (each is part of one).
"""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.markup import escape

from dev.state import REPOSITORY
from include import lake, objects
from include.datasets import golden
from include.datasets.building import build_dataset
from include.datasets.intake import Intake, Plan, Source, validate_files
from include.datasets.judging import NEW_LABEL, UNAPPROVED
from include.datasets.names import is_debris
from include.settings import settings

OWN_CASES = REPOSITORY / "tests" / "cases"
RESULT = REPOSITORY / ".local" / "cases.json"

Case = dict[str, Any]
_COMPARED = ("rows", "used", "rejected", "labels", "warnings")
_NO_CASES = ("README.md", "expected.json")


def run(folder: Path, console: Console) -> int:
    """Tries all cases of a folder, writes ``.local/cases.json``, and returns 0 only if none is not as expected."""
    folder = folder.resolve()
    expected: dict[str, Case] = json.loads((folder / "expected.json").read_text()) if _has_expected(folder) else {}
    results = [try_case(folder, path, expected.get(path)) for path in _paths(folder, expected)]
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(results, indent=1, ensure_ascii=False))
    for result in results:
        _show(result, expected.get(result["path"], {}), console)
    wrong = sum(result["ok"] is False for result in results)
    right = sum(result["ok"] is True for result in results)
    console.print(f"{right} as expected, {wrong} not, {len(results) - right - wrong} without an expectation.")
    return 1 if wrong or not results else 0


def try_case(folder: Path, path: str, expected: Case | None) -> Case:
    """Takes one file or folder in, after those it comes after; ``ok`` is None if nothing is expected."""
    case = expected or {}
    with _fresh_lake(case.get("env", {})):
        dataset_id = None
        for number, earlier in enumerate(case.get("after", [])):
            dataset_id = _accept(_plan(folder, earlier, f"before-{number}", dataset_id))
        plan = _plan(folder, path, "case", dataset_id)
        intake = validate_files(plan)
        result = {"path": path, **_outcome(intake)}
    differences = [name for name in _COMPARED if name in case and not _agrees(name, case[name], result[name])]
    return {**result, "ok": None if expected is None else not differences}


def _has_expected(folder: Path) -> bool:
    return (folder / "expected.json").exists()


def _paths(folder: Path, expected: dict[str, Case]) -> list[str]:
    """The cases: what is expected, in its order, and the other files."""
    together = [path for path in expected if path.endswith("/")]
    files = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    others = [
        path
        for path in files
        if path not in expected and Path(path).name not in _NO_CASES and not path.startswith(tuple(together or ("\0",)))
    ]
    return [*expected, *others]


@contextmanager
def _fresh_lake(environment: dict[str, str]) -> Iterator[None]:
    """A lake in a folder, and these settings, for as long as the block runs."""
    before = {name: value for name, value in os.environ.items() if name.startswith("BERT_")}
    with tempfile.TemporaryDirectory() as folder:
        for name in before:
            del os.environ[name]
        os.environ.update(environment | {"BERT_BUCKET": f"file://{folder}"})
        settings.cache_clear()
        try:
            yield
        finally:
            for name in [name for name in os.environ if name.startswith("BERT_")]:
                del os.environ[name]
            os.environ.update(before)
            settings.cache_clear()


def _plan(folder: Path, path: str, run_id: str, parent: str | None) -> Plan:
    """A plan of one upload, its files copied to where a listener would have put them."""
    files = (
        sorted(file for file in (folder / path).rglob("*") if file.is_file()) if path.endswith("/") else [folder / path]
    )
    sources = []
    for number, file in enumerate(files):
        key = f"incoming/{file.relative_to(folder).as_posix()}"
        if not is_debris(key):
            uri = objects.upload_file(file, lake.claims(run_id, f"files/{number}"))
            sources.append(Source(batch_id=run_id, key=key, uri=uri))
    config = settings()
    return Plan(
        run_id=run_id,
        model_name=config.model_name,
        sources=sources,
        parent_dataset_id=parent,
        label_mapping=config.label_mapping,
    )


def _accept(plan: Plan) -> str:
    """Takes a file in and makes its rows known, its labels the model's, however few they are."""
    dataset_id = str(build_dataset(plan, _accepted(validate_files(plan)))["dataset_id"])
    golden.follow(plan.model_name, [dataset_id], "as if its model had been promoted")
    return dataset_id


def _accepted(intake: Intake) -> pd.DataFrame:
    with objects.filesystem(intake.accepted_uri).open(intake.accepted_uri, "rb") as file:
        return pd.read_parquet(file)


def _outcome(intake: Intake) -> Case:
    rejected: dict[str, int] = {}
    for file in intake.files:
        for rule, number in file.by_rule.items():
            rejected[rule] = rejected.get(rule, 0) + number
    rows = intake.rows
    # What waits is good, and used as soon as there is more; but not what waits for more of its label.
    if waiting := rows["in"] - intake.accepted_rows - rows["rejected"]:
        unapproved = any(UNAPPROVED in file.waits_for for file in intake.files)
        rejected["label_too_rare" if intake.missing else UNAPPROVED if unapproved else NEW_LABEL] = waiting
    warnings = [warning for file in intake.files for warning in file.warnings] + intake.warnings
    return {
        "rows": rows["in"],
        "used": intake.accepted_rows,
        "rejected": rejected,
        "labels": sorted(_accepted(intake)["label"].unique()),
        "warnings": warnings,
        "reason": "; ".join(file.reason for file in intake.files if file.reason),
    }


def _agrees(name: str, expected: Any, found: Any) -> bool:
    if name == "warnings":
        return all(any(part in warning for warning in found) for part in expected)
    return bool(sorted(expected) == found if name == "labels" else expected == found)


def _show(result: Case, expected: Case, console: Console) -> None:
    mark = {True: "[green]ok[/]", False: "[bold red]NOT OK[/]", None: "[dim]--[/]"}[result["ok"]]
    rejected = ", ".join(f"{number} {rule}" for rule, number in result["rejected"].items()) or "0 rejected"
    console.print(f"{mark} {escape(result['path'])}: {result['rows']} rows, {result['used']} used, {escape(rejected)}")
    for text in (*result["warnings"], *filter(None, [result["reason"]])):
        console.print(f"     {text}", style="dim", markup=False, soft_wrap=True)
    if result["ok"] is False:
        wanted = {name: expected[name] for name in _COMPARED if name in expected}
        console.print(f"     expected {wanted}; labels are {result['labels'][:20]}", markup=False, soft_wrap=True)
