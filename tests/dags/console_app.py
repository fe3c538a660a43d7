"""Airflow's real webserver with the console in it, on the tests' metadata database, and users of each role.

A test module takes it by ``pytest_plugins = ["tests.unit.registry_services", "tests.dags.console_app"]``.
"""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from airflow import DAG, plugins_manager
from airflow.models import DagBag, DagModel, DagRun
from airflow.models.serialized_dag import SerializedDagModel
from airflow.operators.empty import EmptyOperator
from airflow.utils.db import initdb
from airflow.utils.session import create_session
from sqlalchemy.engine import Engine

from include import lake, objects
from include.evaluation.answers import Answer, write_answers
from include.evaluation.mistakes import MISTAKES
from include.monitoring import domain, results
from include.orchestration.defaults import START
from include.registry import ledger
from include.registry.ledger import Entry
from include.settings import settings
from include.uploads import claims, lifecycle, open_batches
from include.uploads.lifecycle import State, Who
from include.uploads.records import Batch, ClaimedFile
from tests.unit.registry_services import deployment

REPOSITORY = Path(__file__).parents[2]
REAL = ("preview_upload", "model_rollback", "decide_challenger", "decide_upload", "decide_labels")
STAND_INS = ("bert_model_training_pipeline", "s3_upload_listener", "weekly_etl", "reproduce_version")
NO_MLFLOW = "http://127.0.0.1:9"  # no page asks it
SCRIPT = "<script>alert('1')</script>"
GATES = [
    {"name": "accuracy_floor", "value": 0.93, "threshold": 0.7, "passed": True, "explanation": f"good {SCRIPT}"},
    {"name": "class_recall", "value": 0.4, "threshold": 0.5, "passed": False, "explanation": "refund is recalled less"},
]
REJECTED = [
    {"file": "incoming/a.csv", "row": 2, "text": "", "label": "card", "rule": "text_empty", "reason": "no text"},
    {
        "file": "incoming/a.csv",
        "row": 5,
        "text": SCRIPT,
        "label": "x",
        "rule": "label_unknown",
        "reason": "no such label",
    },
]


ROLES: dict[str, tuple[str, ...]] = {"viewer": ("Viewer",), "trainer": ("Viewer", "Trainer"), "admin": ("Admin",)}


class Visitor:
    """A browser without scripts: it has cookies, and sends the token that its pages give it."""

    def __init__(self, app: Any, name: str = "") -> None:
        self.client, self.name = app.test_client(), name
        self.token = ""
        if name:
            self.token = self._token_of("/login/")
            form = {"username": name, "password": name, "csrf_token": self.token}
            answer = self.client.post("/login/", data=form)
            assert answer.status_code == 302, answer.text
            self.token = self._token_of("/console/")

    def _token_of(self, page: str) -> str:
        text = self.client.get(page).text
        found = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', text) or re.search(
            r'name="csrf-token" content="([^"]+)"', text
        )
        assert found, text[:2000]
        return found[1]

    def get(self, path: str, **options: Any) -> Any:
        return self.client.get(path, **options)

    def post(self, path: str, data: Any = None, **options: Any) -> Any:
        headers = {"X-CSRFToken": self.token} | options.pop("headers", {})
        return self.client.post(path, data=data, headers=headers, **options)

    def json(self, path: str) -> Any:
        answer = self.client.get(path, headers={"Accept": "application/json"})
        assert answer.status_code == 200, answer.text
        return answer.json


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The application. DAGs that take long to parse are stood in for by ones that do nothing."""
    import airflow.settings
    from airflow.www.app import create_app

    from include.orchestration import create_trainer_role

    initdb(load_connections=False)
    with pytest.MonkeyPatch.context() as patch:
        # Airflow's table of sessions belongs to the first application of a process, and there are others before this.
        patch.setenv("AIRFLOW__WEBSERVER__SESSION_BACKEND", "securecookie")
        patch.setattr(airflow.settings, "PLUGINS_FOLDER", str(REPOSITORY / "plugins"))
        for cache in ("plugins", "flask_blueprints", "flask_appbuilder_views", "flask_appbuilder_menu_links"):
            patch.setattr(plugins_manager, cache, None)
        patch.setattr(plugins_manager, "loaded_plugins", set())
        patch.setattr(plugins_manager, "import_errors", {})
        create_trainer_role.main()  # first: it builds an application of its own
        app = create_app(config={"AUTH_RATE_LIMITED": False}, testing=True)
        assert not plugins_manager.import_errors
        with app.app_context():
            manager = app.appbuilder.sm
            for name, roles in ROLES.items():
                if manager.find_user(name) is None:
                    manager.add_user(
                        name, name, "Test", f"{name}@localhost", [manager.find_role(role) for role in roles], name
                    )
        _enter_dags()
        yield app


def _enter_dags() -> None:
    for dag_id in REAL:
        bag = DagBag(REPOSITORY / "dags" / f"{dag_id}.py", include_examples=False)
        assert not bag.import_errors
        bag.sync_to_db()
    for dag_id in STAND_INS:
        with DAG(dag_id, start_date=START, schedule=None, is_paused_upon_creation=False) as dag:
            EmptyOperator(task_id="train_model")
        dag.fileloc = __file__
        dag.sync_to_db()
        SerializedDagModel.write_dag(dag)
    for dag_id in (*REAL, *STAND_INS):
        DagModel.get_dagmodel(dag_id).set_is_paused(is_paused=False)


@pytest.fixture(scope="session")
def visitors(site: Any) -> dict[str, Visitor]:
    return {"nobody": Visitor(site)} | {name: Visitor(site, name) for name in ROLES}


@pytest.fixture
def console(
    storage: dict[str, str],
    engine: Engine,
    visitors: dict[str, Visitor],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Iterator[dict[str, Visitor]]:
    """The visitors, on a bucket of this test's own, and a warehouse."""
    from plugins.console import warehouse

    own = {"BERT_BUCKET": f"c{abs(hash(request.node.name))}"} if "AWS_ENDPOINT_URL" in storage else {}
    values = {"MLFLOW_TRACKING_URI": NO_MLFLOW, "BERT_UPLOAD_SETTLE_SECONDS": "0"} | storage | own
    with deployment(monkeypatch, **values):
        monkeypatch.setattr(warehouse, "engine", lambda: engine)
        yield visitors


@pytest.fixture
def model(console: dict[str, Visitor], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A model of this test's own."""
    name = f"m-{abs(hash(request.node.name))}"
    monkeypatch.setenv("BERT_MODEL_NAME", name)
    settings.cache_clear()
    return name


def enter(engine: Engine, model: str, verb: Any, version: str, previous: str | None = None, **facts: Any) -> Entry:
    known = {"gates": GATES, "actor": "dag:x", "reason": f"because {SCRIPT}", "dag_run_id": f"run-{version}-{verb}"}
    entry = Entry(model_name=model, verb=verb, version=version, previous_champion=previous, **known | facts)
    assert ledger.append(engine, entry)
    return entry


def batch(
    model: str,
    name: str,
    state: State | None = None,
    run_id: str = "run-x",
    *,
    file: str = f"{SCRIPT}.csv",
    reason: str = f"shown worse {SCRIPT}",
) -> str:
    batch_id = f"{name}-{model}"
    uri = objects.write_bytes(lake.claims(batch_id, "files/a.csv"), b"text,label\n")
    claimed = ClaimedFile(key=f"incoming/{file}", etag=name, size=2048, uri=uri, claimed_at=datetime.now(UTC))
    open_batches.mark(batch_id)
    content = Batch(batch_id=batch_id, files=[claimed]).model_dump_json().encode()
    objects.create_bytes(lake.claims(batch_id, "manifest.json"), content)
    if state is not None:
        assert claims.take(batch_id, run_id)
        assert lifecycle.move(batch_id, state, Who.RUN, reason=reason)
    return batch_id


def reject(batch_id: str, rows: list[dict[str, Any]], folder: Path) -> None:
    pq.write_table(pa.Table.from_pylist(rows), folder / "rejected.parquet")
    objects.upload_file(folder / "rejected.parquet", lake.quarantine(batch_id, "rejected.parquet"))


def answered(
    run_id: str, predicted: list[tuple[str, float]], folder: Path, *, texts: bool = True, odd: str = SCRIPT
) -> None:
    """What a version answered to four golden rows, as its run has left it; without texts as earlier releases did."""
    rows = [
        ("where is my card", "card"),
        ("my card is lost", "card"),
        (f"a refund {odd}", "refund"),
        ("money back", "refund"),
    ]
    answers = [
        Answer(f"{at:016x}", label, True, "challenger", "", "s3://job", *answer, text if texts else "")
        for at, ((text, label), answer) in enumerate(zip(rows, predicted, strict=True))
    ]
    path = write_answers(answers, folder / run_id)
    for found in (path, path.with_name(MISTAKES)) if texts else (path,):
        objects.upload_file(found, lake.report("bert_model_training_pipeline", run_id, found.name))


def newest(dag_id: str) -> DagRun:
    with create_session() as session:
        run = session.query(DagRun).filter_by(dag_id=dag_id).order_by(DagRun.id.desc()).first()
        session.expunge_all()
    assert run is not None
    return run


def told(answer: Any) -> str:
    """What a page says that could not do what was asked for."""
    found = re.search(r'id="told">(.*?)</p>', answer.text, re.DOTALL)
    assert found, answer.text
    return found[1]


def watch(engine: Engine, rows: list[dict[str, Any]]) -> None:
    """Enters results of today's checks."""
    results.ensure(engine)
    full = [{"day": datetime.now(UTC).date(), "verdict": "passed", "told": "", "threshold": 0.2} | row for row in rows]
    with engine.begin() as connection:
        connection.execute(sa.insert(results.RESULTS), full)


RIGHT = [("card", 0.9), ("card", 0.8), ("refund", 0.7), ("refund", 0.6)]


WORSE = [("card", 0.9), ("refund", 0.8), ("card", 0.7), ("refund", 0.6)]


def learnt(model: str, engine: Engine) -> None:
    """A champion that has learnt two labels."""
    objects.write_json(
        lake.dataset("d1", "manifest.json"), {"rows": {"train": 100}, "label_counts": {"card": 60, SCRIPT: 40}}
    )
    enter(engine, model, "promote", "1", dataset_id="d1")


def worth(model: str, place: str, count: int = 3) -> None:
    """Texts that the daily checks have put where they are to be labelled."""
    rows = [
        {"id": f"20261120-{at}", "text": f"a text {at} {SCRIPT}", "label": "card", "probability": 0.4}
        for at in range(count)
    ]
    objects.write_bytes(lake.monitoring(model, place), domain.as_csv(rows))


class Server(BaseHTTPRequestHandler):
    """What the model server says to our requests."""

    said: ClassVar[list[tuple[str, Any]]] = []

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer: Any = {"sample": "20261120-0a", "texts": [{"prediction_id": "p1", "text": SCRIPT}]}
        if self.path == "/compare":
            top = [{"label": SCRIPT, "probability": 0.9}, {"label": asked["text"], "probability": 0.1}]
            roles = {"7": "champion", "8": "shadow"}
            answer = [{"version": version, "role": role, "top": top} for version, role in roles.items()]
        else:
            self.said.append((self.path, asked))
        body = json.dumps(answer).encode()
        self.send_response(200 if self.headers["Authorization"] == "Bearer t" else 401)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def upload(visitor: Visitor, content: bytes, name: str = "my data.csv") -> Any:
    options = {"content_type": "application/octet-stream", "headers": {"Accept": "application/json"}}
    return visitor.post(f"/console/train/files?name={name}", content, **options)


def unfinished() -> list[str]:
    """The keys of objects of which parts lie in the bucket, and which were neither put together nor given up."""
    bucket, _ = objects.place(lake.root())
    found = objects.filesystem("s3://").call_s3("list_multipart_uploads", Bucket=bucket)
    return [one["Key"] for one in found.get("Uploads", [])]
