"""The weekly report: what came, what was kept, what was learnt, and how that is beside the weeks before."""
# Only imported inside tasks.

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from airflow.models import DagRun

from include import lake, objects
from include.evaluation.week_report import write_week_report
from include.ingestion import sources
from include.ingestion.exploring import EDGES, Exploration, distance, explore
from include.markdown import plain
from include.orchestration import curate_operators, curating, etl_predictions, etl_steps, fetching, notes, outcome

logger = logging.getLogger(__name__)

MOST_EXPLORED = 200_000  # texts: by hash, so any of them
MOST_EXTRAS = 10_000
RULES = ("missing", "encoding", "boilerplate", "length", "languages", "near_duplicates", "across_weeks")
NAMES = {"languages": "language", "near_duplicates": "near_duplicate"}


def generate(dag_run: DagRun, names: list[str]) -> dict[str, Any]:
    """Writes the week's page, pictures and facts; drops the run's tables; returns the page's URI.

    ``names`` are the sources of the run's DAG.
    """
    found = facts(dag_run, names)
    known = lake.week_facts(dag_run.dag_id)
    earlier = [uri for uri in objects.find(known) if uri.rsplit("/", 1)[-1] < f"{found['week']}.json"]
    history = [objects.read_json(uri) for uri in earlier]
    before = history[-1]["explored"] if history else None
    found["label_drift"] = distance(before["labels"], found["explored"]["labels"]) if before else None
    found["length_drift"] = _length_drift(before, found["explored"]) if before else None
    uri = lake.report(dag_run.dag_id, dag_run.run_id, "week.html")
    with tempfile.TemporaryDirectory() as folder:
        write_week_report(found, history, Path(folder))
        objects.upload(Path(folder), uri.rsplit("/", 1)[0])
    objects.write_json(lake.week_facts(dag_run.dag_id, found["week"]), found)
    if not found["model"]:
        notes.set_note(dag_run.dag_id, dag_run.run_id, f"**{found['week']}** — {plain(found['sentence'])} {plain(uri)}")
    curating.drop(dag_run.dag_id, dag_run.run_id)
    logger.info("%s: %s", found["week"], found["sentence"])
    return {"report_uri": uri, "week": found["week"]}


def facts(dag_run: DagRun, names: list[str]) -> dict[str, Any]:
    """All that is known of a run's week."""
    kept = etl_steps.facts_of(dag_run)
    kept = _nothing(etl_steps.week_of(dag_run)) | kept
    if kept["quality"]:
        read = sum(file["good"] for file in kept["files"] if file["labelled"])
        kept["quality"] = _quality(kept["quality"], read, _handed_on(dag_run, read))
    model = _model(dag_run)
    kept |= {
        "dag_id": dag_run.dag_id,
        "run_id": dag_run.run_id,
        "model": model,
        "explored": _explored(dag_run).model_dump(),
        "length_names": [f"{edge}+" for edge in EDGES],
        "predictions": etl_predictions.predict(
            kept.get("unlabelled_uri", ""),
            etl_predictions.Asked(dag_run.dag_id, kept["week"], tuple(names), fetching.until_of(dag_run)),
        ),
    }
    merge, rows = kept["merge"], sum(file["rows_in"] for file in kept["files"])
    kept["headline"] = model["outcome"].replace("_", " ").capitalize() if model else "Nothing trained"
    kept["sentence"] = (
        f"{len(kept['files'])} files with {rows} rows came; {merge.get('new', 0)} texts are new, "
        f"{merge.get('changed', 0)} have another label."
    )
    return kept


def _nothing(week: str) -> dict[str, Any]:
    """What is known of a week in which no task has found anything."""
    merged = {"new": 0, "changed": 0, "known": 0, "contradicted": 0, "contradictions": []}
    return {"week": week, "files": [], "landed": [], "merge": merged, "rule": "", "quality": {}, "predictions": None}


def _explored(dag_run: DagRun) -> Exploration:
    """The week's texts in numbers; of a run that is repeated after its tables were dropped, what was known."""
    curated = curating.table_name("curated", dag_run.dag_id, dag_run.run_id)
    if not curating.has_table(curated):
        known = lake.week_facts(dag_run.dag_id, etl_steps.week_of(dag_run))
        return Exploration(**objects.read_json(known)["explored"]) if objects.exists(known) else Exploration()
    texts = curating.some_of(curated, ("text", "label", "source"), MOST_EXPLORED)
    return explore(texts, _extras(lake.staging(etl_steps.staging_of(dag_run), "raw.parquet")))


def _extras(uri: str) -> Iterator[str]:
    """The other columns of some rows, as JSON; which ones, their texts' hashes say."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    with objects.filesystem(uri).open(uri, "rb") as content:
        file = pq.ParquetFile(content)
        share = MOST_EXTRAS / max(file.metadata.num_rows, 1)
        last = f"{min(int(share * 2**64), 2**64 - 1):016x}"
        for part in file.iter_batches(100_000, columns=["text_hash", "extra"]):
            yield from part.filter(pc.less_equal(part["text_hash"], last))["extra"].to_pylist()


def _length_drift(before: dict[str, Any], now: dict[str, Any]) -> float | None:
    return distance(dict(enumerate(before["lengths"])), dict(enumerate(now["lengths"])))


def _handed_on(dag_run: DagRun, read: int) -> int:
    """How many of the rows that were read the team's own scripts have handed on."""
    import pyarrow.parquet as pq

    scripts = sources.week().scripts
    uri = lake.staging(etl_steps.staging_of(dag_run), curate_operators.staged_name(len(scripts)))
    if not scripts or not objects.exists(uri):
        return read
    with objects.filesystem(uri).open(uri, "rb") as content:
        return int(pq.ParquetFile(content).metadata.num_rows)


def _quality(kept: dict[str, Any], read: int, handed_on: int) -> dict[str, Any]:
    """Each rule's line: on or off, what it has left out and mended, and an example.

    Before them what scripts have not handed on, and rows that say again what another row of the same file says.
    """
    quality = sources.week().quality
    before = kept["kept"] + sum(kept["left_out"].values())
    no_rule = {"on": True, "mended": None, "example": None}
    rules = [no_rule | {"name": "duplicate", "left_out": handed_on - before}]
    if sources.week().scripts:
        rules.insert(0, no_rule | {"name": "scripts", "left_out": max(0, read - handed_on)})
    for field in RULES:
        name = NAMES.get(field, field)
        example = kept["examples"].get(name) or kept["examples"].get(f"{name}: mended")
        rules.append(
            {
                "name": name,
                "on": bool(getattr(quality, field)) and (field != "across_weeks" or quality.near_duplicates),
                "left_out": kept["left_out"].get(name, 0),
                "mended": kept["mended"].get(name, 0),
                "example": example[0] if example else None,
            }
        )
    encoded = kept.get("features") or {"values": 0, "examples": []}
    examples = encoded["examples"]
    rules.append(
        {
            "name": "features",
            "on": quality.features,
            "left_out": 0,
            "mended": encoded["values"],
            "example": examples[0] if examples else None,
        }
    )
    return kept | {"rules": rules, "before": before}


def _model(dag_run: DagRun) -> dict[str, Any] | None:
    """How training ended; None if nothing was trained."""
    report = outcome.of_run(dag_run.dag_id, dag_run.run_id)
    if not report:
        return None
    return {
        "outcome": report["outcome"],
        "reason": report["reason"],
        "version": report.get("model_version"),
        "gates": report.get("gates", []),
        "golden": report.get("golden"),
        "report": lake.report(dag_run.dag_id, dag_run.run_id, "report.html"),
    }
