"""A model's way to production in tests: what its runs leave behind, without the reading of files and the training.

A test module takes it by ``pytest_plugins = ["tests.unit.registry_services", "tests.dags.road"]``. Real are Airflow's
database, PostgreSQL and MLflow's own store.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from airflow.models import DAG, DagModel, DagRun
from airflow.models.dataset import DagScheduleDatasetReference
from airflow.utils.db import initdb
from airflow.utils.session import create_session
from mlflow import MlflowClient
from sqlalchemy.engine import Engine

from include import lake, objects
from include.datasets import golden
from include.datasets.building import build_dataset
from include.datasets.intake import FileAccount, Intake, Plan, Source
from include.evaluation import charts
from include.orchestration import decisions, promotion_steps, reconciling
from include.orchestration.batches import PIPELINE
from include.registry import ledger, models, versions
from include.registry.models import CHAMPION
from include.registry.promotion import promote
from include.settings import settings
from include.training.job import Hyperparameters, Job, Result
from include.uploads import claims, lifecycle, open_batches
from include.uploads.records import Batch, ClaimedFile
from tests.unit.registry_services import Registry, as_connection, deployment

NUMBERS = itertools.count()
ADA = {"name": "Ada", "reason": "looks right"}


@pytest.fixture(scope="module")
def airflow(
    tmp_path_factory: pytest.TempPathFactory, mlflow_store: str, engine: Engine, tiny_bert: Path
) -> Iterator[None]:
    """Airflow's database, and a deployment that learns little, soon."""
    values = {
        "MLFLOW_TRACKING_URI": mlflow_store, "BERT_BUCKET": f"file://{tmp_path_factory.mktemp('lake')}",
        "BERT_BASE_MODEL": str(tiny_bert), "BERT_EPOCHS": "1", "BERT_MAX_LENGTH": "32", "BERT_GOLDEN_MIN_ROWS": "5",
        "BERT_MIN_ACCURACY": "0.3", "BERT_MIN_CLASS_RECALL": "0", "BERT_WATCH_MINUTES": "0.02",
        "BERT_UPLOAD_SETTLE_SECONDS": "0", "AIRFLOW_CONN_AWS_DEFAULT": "aws://",
        "AIRFLOW_CONN_WAREHOUSE": as_connection(engine.url),
    }  # fmt: skip
    with deployment(**values) as patch:
        for picture in ("confusion_matrix", "intervals"):  # takes seconds; the report's own tests look at them
            patch.setattr(charts, picture, lambda *_: "")
        initdb(load_connections=False)
        with create_session() as session:  # other files' DAGs hear of uploads; here nobody does
            session.query(DagScheduleDatasetReference).delete()
        yield
        with create_session() as session:
            session.query(DagRun).delete()
            session.query(DagModel).delete()


@pytest.fixture
def road(
    airflow: None, storage: dict[str, str], tiny_bert: Path, engine: Engine, weights: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest,
) -> "Iterator[Road]":  # fmt: skip
    """A model of the test's own, and the way of the DAG that the module names, or of the training pipeline."""
    name = f"model-{next(NUMBERS)}"
    with deployment(monkeypatch, BERT_MODEL_NAME=name, **storage):
        for batch_id in open_batches.ids():
            open_batches.close(batch_id)
        MlflowClient(settings().mlflow_tracking_uri).create_experiment(name, str(tmp_path / "artifacts"))
        yield Road(Registry(name, tiny_bert, engine), weights, getattr(request.module, "DAG_ID", PIPELINE))


@dataclass
class Road:
    """What a run of the pipeline does to one model, apart from reading files and training."""

    registry: Registry
    weights: dict[str, Path]
    dag_id: str = PIPELINE
    rows: Any = field(default_factory=lambda: itertools.count())

    def start(self, model: str = "right") -> str:
        """A champion, as cheaply as can be; its version."""
        last = ledger.last_move(self.registry.engine, self.registry.name)
        parent = last.dataset_id if last else None
        run_id = f"manual__{next(NUMBERS)}"
        plan = Plan(run_id=run_id, model_name=self.registry.name, sources=[], parent_dataset_id=parent)
        manifest = build_dataset(plan, self.labelled(60))
        return self.promote(self.train(manifest, model), manifest["dataset_id"], parent)

    def promote(self, result_uri: str, dataset_id: str, parent: str | None) -> str:
        result = Result.model_validate(objects.read_json(result_uri))
        tags = {"job_id": result.job_id, "dataset_id": dataset_id}
        version = models.register(self.registry.name, result.model_uri, "", tags)
        entry = self.registry.decision(version, self.champion())
        promote(entry.model_copy(update={"dataset_id": dataset_id, "job_id": result.job_id}), self.registry.engine)
        golden.follow(self.registry.name, [dataset_id, *([parent] if parent else [])], "promoted", keep=True)
        return version

    def run(self, model: str = "right", conf: dict[str, Any] | None = None, *, count: int = 60, until: str = "") -> str:
        """A run on a new upload, or without one, whose job makes a model of these weights; returns its id."""
        at = datetime.now(UTC)
        run_id = f"manual__{at.isoformat()}"
        with create_session() as session:
            DAG(self.dag_id, start_date=at, schedule=None).create_dagrun(
                run_id=run_id, state="success", execution_date=at, data_interval=(at, at), session=session
            )
        batch_ids = [self.upload(run_id)] if count else []
        assert reconciling.reconcile(self.registry.name) is not None
        sources = [Source(batch_id=one, key="incoming/a.csv", uri=lake.claims(one, "files/a.csv")) for one in batch_ids]
        parent = versions.parent_dataset_id(self.registry.name, self.registry.engine)
        plan = Plan(run_id=run_id, model_name=self.registry.name, sources=sources, parent_dataset_id=parent).pin()
        account = {"rows_in": 2 * count, "used": 2 * count, "rejected": 0}
        files = [FileAccount(key=source.key, batch_id=source.batch_id, **account) for source in sources]
        intake = Intake(files=files, accepted_uri="", accepted_rows=2 * count)
        objects.write_json(lake.staging(run_id, "intake.json"), intake.model_dump())
        manifest = build_dataset(plan, self.labelled(count))
        facts = {name: manifest[name] for name in ("dataset_id", "golden_origin")}
        objects.write_json(lake.staging(run_id, "dataset.json"), facts)
        if until != "dataset":
            self.decide(run_id, conf, self.train(manifest, model))
        return run_id

    def upload(self, run_id: str) -> str:
        """A batch that a run has taken."""
        batch_id = self._seal(f"b-{next(NUMBERS)}-{self.registry.name}", b"text,label\n")
        assert claims.take(batch_id, run_id)
        return batch_id

    def waiting(self, count: int = 60) -> str:
        """A batch of new rows that waits for a run."""
        content = self.labelled(count)[["text", "label"]].to_csv(index=False).encode()
        return self._seal(f"b-{self.registry.name}-{count}", content)

    def _seal(self, batch_id: str, content: bytes) -> str:
        uri = objects.write_bytes(lake.claims(batch_id, "files/a.csv"), content)
        file = ClaimedFile(key="incoming/a.csv", etag=batch_id, size=1, uri=uri, claimed_at=datetime.now(UTC))
        open_batches.mark(batch_id)
        batch = Batch(batch_id=batch_id, files=[file])
        objects.create_bytes(lake.claims(batch_id, "manifest.json"), batch.model_dump_json().encode())
        return batch_id

    def labelled(self, count: int) -> pd.DataFrame:
        texts = [(f"{words} {next(self.rows)}", label) for words, label in (("my card", "card"), ("a refund", "refund")) for _ in range(count)]  # noqa: E501 # fmt: skip
        return pd.DataFrame(texts, columns=["text", "label"]).assign(source="a.csv", extra="")

    def train(self, manifest: dict[str, Any], model: str) -> str:
        """A finished job; returns its result's URI."""
        params = Hyperparameters(epochs=1, learning_rate=0.1, batch_size=1, max_length=16, seed=next(NUMBERS))
        job = Job(
            dataset_uri=manifest["dataset_uri"], model_name=self.registry.name, base_model="a/b",
            hyperparameters=params, mlflow_tracking_uri=settings().mlflow_tracking_uri, mlflow_experiment="x",
        )  # fmt: skip
        job.submit()
        result = Result(
            job_id=job.job_id, model_uri=objects.upload(self.weights[model], lake.job(job.job_id, "model")),
            mlflow_run_id=MlflowClient(settings().mlflow_tracking_uri).create_run("1").info.run_id, best_epoch=1,
            metrics={}, history=[], labels=["card", "refund"], rows={}, seconds={}, versions={},
        )  # fmt: skip
        return objects.write_json(lake.job(job.job_id, "result.json"), result.model_dump())

    def decide(self, run_id: str, conf: dict[str, Any] | None, result_uri: str) -> dict[str, Any]:
        run = SimpleNamespace(dag_id=self.dag_id, run_id=run_id, conf=conf, run_type="dataset_triggered")
        self.last = (run, result_uri)
        return promotion_steps.decide_on_challenger(run, promotion_steps.evaluate_challenger(run, result_uri))

    def repeat(self) -> dict[str, Any]:
        """The last run's two tasks are cleared."""
        run, result_uri = self.last
        return promotion_steps.decide_on_challenger(run, promotion_steps.evaluate_challenger(run, result_uri))

    def outcome(self, run_id: str) -> str:
        return str(objects.read_json(lake.report(self.dag_id, run_id, "run.json"))["outcome"])

    def page(self, run_id: str) -> str:
        return objects.read_bytes(lake.report(self.dag_id, run_id, "report.html")).decode()

    def states(self, run_id: str) -> list[str]:
        named = objects.read_json(lake.report(self.dag_id, run_id, "run.json"))["batches"]
        return [str(lifecycle.read(batch_id).state) for batch_id in named]

    def champion(self) -> str | None:
        found = models.by_alias(self.registry.name, CHAMPION)
        return found.version if found else None

    def answer(self, decision: str, run_id: str, **said: Any) -> str:
        return decisions.carry_out(self.registry.name, decision, run_id=run_id, **(ADA | said))

    def golden(self) -> golden.GoldenSet:
        found = golden.read(self.registry.name)
        assert found
        return found

    def ledger(self) -> list[tuple[str, str, str]]:
        found = ledger.entries(self.registry.engine, self.registry.name)
        return [(entry.verb, entry.version, entry.actor) for entry in reversed(found)]


def states(done: DagRun) -> dict[str, str]:
    """How each task of a run has ended."""
    return {ti.task_id: str(ti.state) for ti in done.get_task_instances()}


def note(run_id: str) -> str:
    with create_session() as session:
        return str(session.query(DagRun).filter_by(run_id=run_id).one().note)
