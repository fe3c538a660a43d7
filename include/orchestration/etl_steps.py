"""The steps of ``weekly_etl`` between what is fetched and what is trained on."""
# Only imported inside tasks.

import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.exceptions import AirflowSkipException
from airflow.models import DagRun, Pool
from airflow.operators.python import get_current_context

from include import lake, objects
from include.datasets.sorting import REJECTED
from include.ingestion import landing, sources
from include.ingestion.quality import SAMPLE, Broken, Cleaner, Row
from include.ingestion.reading import read_files
from include.ingestion.screening import Screen
from include.orchestration import curating, fetching, intake_steps
from include.orchestration.defaults import MERGE_POOL

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

FACTS = "etl.json"


def list_sources(names: list[str]) -> list[str]:
    """The sources of a run. Skips it if there are none."""
    if Pool.get_pool(MERGE_POOL) is None:  # Airflow lets tasks wait for a pool that is not there without a word
        Pool.create_or_update_pool(MERGE_POOL, slots=1, description="Merges at once", include_deferred=False)
    if not names:
        raise AirflowSkipException("no source is listed yet: docs/etl.md says how to list some (BERT_SOURCES)")
    return names


def week_of(dag_run: DagRun) -> str:
    """The week whose files a run works on."""
    return landing.week_of(fetching.until_of(dag_run))


def read_landed(dag_run: DagRun, names: list[str]) -> dict[str, Any]:
    """Reads all that has landed of a week, also in earlier runs; returns where good rows lie, and their counts."""
    week, listed = week_of(dag_run), [sources.week().source(name) for name in names]
    landed = [(source, file) for source in listed for file in landing.landed(source.name, week)]
    read = read_files(landed, staging_of(dag_run), quarantine_of(dag_run))
    facts = {
        "week": week,
        "landed": [file.model_dump(mode="json") for _, file in landed],
        "files": [file.model_dump() for file in read.files],
        "unlabelled_uri": read.unlabelled_uri,
        "rejected_uri": read.rejected_uri,
    }
    _keep(dag_run, facts)
    return {
        "week": week,
        "raw_uri": read.raw_uri,
        "files": len(read.files),
        "rows": sum(file.rows_in for file in read.files),
        "good": sum(file.good for file in read.files),
    }


def preprocess(table: str) -> dict[str, Any]:
    """Applies the quality rules to a table of sightings; returns what each rule has left out and mended."""
    dag_run = get_current_context()["dag_run"]  # the Astro SDK hands a function no context
    curated = curating.table_name("curated", dag_run.dag_id, dag_run.run_id)
    curating.need_table(table)
    uri = lake.quarantine(quarantine_of(dag_run), "preprocessed.parquet")
    quality, week = sources.week().quality, week_of(dag_run)
    facts = clean(quality, table, curated, uri, week)
    renamed = facts.pop("renamed")
    if quality.features:
        from include.orchestration import curate_operators, etl_features

        raw_uri = lake.staging(staging_of(dag_run), curate_operators.staged_name(len(sources.week().scripts)))
        facts["features"] = etl_features.encode(dag_run.dag_id, week, raw_uri, renamed)
    _keep(dag_run, {"quality": facts})
    return {name: facts[name] for name in ("kept", "left_out", "mended")}


def clean(quality: sources.Quality, table: str, curated: str, uri: str, week: str) -> dict[str, Any]:
    """Makes a table of those rows of another that the rules leave in; the others go to a Parquet file at ``uri``."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    lengths = [len(text) for (text,) in curating.some_of(table, ("text",), SAMPLE)]
    cleaner = Cleaner(quality, lengths)
    screen = Screen(quality, cleaner.shortest, cleaner.longest)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "left_out.parquet"
        with pq.ParquetWriter(path, REJECTED) as writer:

            def touched() -> Any:
                # Of texts that are almost the same, the first stays: the same one each time.
                order = curating.KEY if quality.near_duplicates else ()
                for some in curating.rows_of(table, curating.CURATED, order):
                    odd = some.filter(pc.invert(screen.untouched(some["text"])))
                    rows = [Row(**row) for row in odd.to_pylist()]
                    kept, broken = cleaner.clean(rows)
                    if broken:
                        writer.write_table(pa.Table.from_pylist([_left_out(one) for one in broken], REJECTED))
                    yield _touched(rows, kept, broken)

            count = curating.curate(table, curated, touched())
            if quality.across_weeks:
                broken = _leave_out_known(cleaner, week, curated)
                count -= len(broken)
                if broken:
                    writer.write_table(pa.Table.from_pylist([_left_out(one) for one in broken], REJECTED))
        if cleaner.left_out:
            objects.upload_file(path, uri)
    return {
        "kept": count,
        "left_out": dict(cleaner.left_out),
        "mended": dict(cleaner.mended),
        "examples": cleaner.examples,
        "usual_lengths": [cleaner.shortest, cleaner.longest],
        "left_out_uri": uri if cleaner.left_out else "",
        "renamed": cleaner.renamed,
    }


def _touched(rows: list[Row], kept: list[Row], broken: list[Broken]) -> Any:
    """Of rows, those that a rule has mended or left out, as ``curating.TOUCHED``."""
    import pyarrow as pa

    left_out, staying = {id(one.row) for one in broken}, iter(kept)
    touched = []
    for row in rows:
        mended = None if id(row) in left_out else next(staying)
        if mended is not row:
            after = {"mended_hash": mended.text_hash, "mended": mended.text} if mended else {}
            touched.append(row._asdict() | after)
    return pa.Table.from_pylist(touched, curating.schema_of(*curating.TOUCHED))


def _leave_out_known(cleaner: Cleaner, week: str, curated: str) -> list[Broken]:
    """Takes out of a table what is almost a text of an earlier week; returns it."""
    if not cleaner.near or not cleaner.near.known:
        return []
    from include.orchestration import earlier_weeks

    own = curated.replace("_curated_", "_signatures_")
    known = cleaner.near.known
    found = {
        (known[place].text_hash, known[place].label): other
        for place, other in earlier_weeks.almost_known(cleaner.near, week, own).items()
    }
    rows = earlier_weeks.leave_out(curated, list(found), own)
    return [cleaner.leave_out(Row(**row), found[row["text_hash"], row["label"]].plain) for row in rows]


def _left_out(one: Broken) -> dict[str, Any]:
    row = one.row
    return {
        "file": row.source, "row": 0, "text": row.text, "label": row.label, "rule": one.rule, "reason": one.reason
    }  # fmt: skip


def write_targets(dag_run: DagRun) -> list[dict[str, Any]]:
    """Writes the curated rows to all targets; returns where to, and how many."""
    from include.orchestration import targets

    changes = curating.table_name("changes", dag_run.dag_id, dag_run.run_id)
    written = targets.write(sources.week().targets, changes)
    _keep(dag_run, {"targets": written})
    return written


def build_dataset(dag_run: DagRun, params: dict[str, Any]) -> dict[str, Any]:
    """Builds the dataset of the champion's rows, this run's batch and whatever else waits, as an upload's run does.

    Skips the rest of the run where an upload's would: too few rows, or none that can be used.
    """
    validated = intake_steps.validate(dag_run, {**params, "dataset_uri": None})
    rows = _accepted(validated["accepted_uri"])
    return intake_steps.preprocess(rows, dag_run.run_id, validated["accepted_hash"])


def _accepted(uri: str) -> "pd.DataFrame":
    import pandas as pd

    with objects.filesystem(uri).open(uri, "rb") as content:
        return pd.read_parquet(content)


def staging_of(dag_run: DagRun) -> str:
    """The name under which a run stages files: two DAGs may have runs of the same id."""
    return f"{dag_run.dag_id} {dag_run.run_id}"


def quarantine_of(dag_run: DagRun) -> str:
    """The folder in quarantine of a run's rejected rows."""
    return f"{dag_run.dag_id}-{lake.slug(dag_run.run_id)}"


def facts_of(dag_run: DagRun) -> dict[str, Any]:
    """What the run's tasks have found out so far."""
    uri = lake.staging(staging_of(dag_run), FACTS)
    return objects.read_json(uri) if objects.exists(uri) else {}


def _keep(dag_run: DagRun, facts: dict[str, Any]) -> None:
    objects.write_json(lake.staging(staging_of(dag_run), FACTS), facts_of(dag_run) | facts)


def keep(dag_run: DagRun, **facts: Any) -> None:
    """Adds to what the run's tasks have found out; they come one after the other."""
    _keep(dag_run, facts)
