"""The model server over real HTTP, with a real registry and a real S3 server; the BERT in it is tiny."""

import asyncio
import csv
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest
import s3fs
import uvicorn
from sqlalchemy.engine import Engine as Database

from dev.predict import predict, texts_of
from include import lake
from include.registry import models
from include.serving.__main__ import main
from include.serving.app import build
from include.serving.batcher import Batcher, QueueFull
from include.serving.engine import Tokens
from include.serving.server import ModelServer
from include.settings import settings
from include.settings.serving import ServingSettings
from include.training.scoring import score
from tests.unit.registry_services import MlflowServer, Registry

pytest_plugins = ["tests.unit.registry_services"]

TEXTS = ["where is my card", "a refund", "lost my card"]


@dataclass
class Running:
    """A server at work, and a client of it."""

    server: ModelServer
    http: httpx.Client
    registry: Registry

    def predict(self, *texts: str, **more: Any) -> dict[str, Any]:
        answer = self.http.post("/predict", json={"texts": list(texts), **more}).raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def wait_for_version(self, version: str) -> None:
        wait(lambda: self.http.get("/ready").json()["models"][self.registry.name]["version"] == version)

    def logged(self) -> list[dict[str, Any]]:
        """All rows of the prediction log, once nothing waits to be written."""
        wait(lambda: self.server.log.waiting_rows == 0)
        self.server.log._write()
        return logged(self.registry.name)


def logged(model: str) -> list[dict[str, Any]]:
    uris = lake.find(lake.predictions(model))
    return [row for uri in uris for row in pq.read_table(io.BytesIO(lake.read_bytes(uri))).to_pylist()]


def wait(condition: Callable[[], Any], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


@contextmanager
def running(registry: Registry, cache: Path, **options: Any) -> Iterator[Running]:
    config = ServingSettings(cache=str(cache), look_seconds=0.1, log_seconds=0.1, **options)
    server = ModelServer(config, [registry.name])
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        web = uvicorn.Server(uvicorn.Config(build(server), log_level="warning"))
        thread = threading.Thread(target=lambda: asyncio.run(web.serve(sockets=[listening])))
        thread.start()
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
                wait(lambda: web.started)
                yield Running(server, http, registry)
        finally:
            web.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def shared_services(mlflow_uri: str, s3_url: str) -> Iterator[None]:
    values = {
        "MLFLOW_TRACKING_URI": mlflow_uri, "AWS_ENDPOINT_URL": s3_url, "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1", "BERT_BUCKET": "bert",
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setenv(name, value)
        settings.cache_clear()
        s3fs.S3FileSystem.clear_instance_cache()
        lake.filesystem("s3://bert").mkdirs("bert", exist_ok=True)
        yield
    settings.cache_clear()
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="module")
def app(
    shared_services: None, tiny_bert: Path, engine: Database, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """A server with a champion; tests leave the champion's answers as they are."""
    registry = Registry("served", tiny_bert, engine)
    registry.promote_new()
    with running(registry, tmp_path_factory.mktemp("cache")) as found:
        found.wait_for_version("1")
        yield found


def test_answers_are_the_models_own(app: Running, tiny_bert: Path) -> None:
    answer = app.predict(*TEXTS, top_k=2, ids=["one", None, "three"])
    truth = score(str(tiny_bert), TEXTS)
    assert (answer["model"], answer["version"]) == ("served", "1")
    assert [one["label"] for one in answer["predictions"]] == truth.predicted
    for one, row in zip(answer["predictions"], truth.probabilities, strict=True):
        assert one["probability"] == pytest.approx(row.max(), abs=1e-5)
        assert sum(candidate["probability"] for candidate in one["top"]) == pytest.approx(1, abs=1e-5)
        assert not one["cut"]


def test_a_text_that_is_too_long_is_cut_as_in_training_and_said_so(app: Running, tiny_bert: Path) -> None:
    long, just = "card " * 100, "card " * 62  # with [CLS] and [SEP] exactly the 64 tokens of the model
    first, second = app.predict(long, just)["predictions"]
    assert (first["cut"], second["cut"]) == (True, False)
    assert first["probability"] == pytest.approx(score(str(tiny_bert), [long]).probabilities.max(), abs=1e-5)


def test_the_three_protocols_say_the_same(app: Running) -> None:
    labels = [one["label"] for one in app.predict(*TEXTS)["predictions"]]
    tensor = {"name": "text", "shape": [3], "datatype": "BYTES", "data": TEXTS}
    inferred = app.http.post("/v2/models/served/infer", json={"id": "7", "inputs": [tensor]}).raise_for_status().json()
    assert (inferred["id"], inferred["model_version"]) == ("7", "1")
    outputs = {output["name"]: output for output in inferred["outputs"]}
    assert outputs["label"]["data"] == labels
    assert outputs["probabilities"]["shape"] == [3, 2]
    assert np.reshape(outputs["probabilities"]["data"], (3, 2)).max(-1).tolist() == outputs["probability"]["data"]
    rows = [{"text": text, "other": 1} for text in TEXTS]
    for body in (
        {"dataframe_split": {"columns": ["other", "text"], "data": [[1, text] for text in TEXTS]}},
        {"dataframe_records": rows},
        {"instances": TEXTS},
        {"inputs": {"text": TEXTS}},
    ):
        assert app.http.post("/invocations", json=body).raise_for_status().json() == {"predictions": labels}
    csv = "text\n" + "\n".join(TEXTS)
    answer = app.http.post("/invocations", content=csv, headers={"Content-Type": "text/csv"})
    assert answer.json() == {"predictions": labels}


def test_it_says_what_it_is(app: Running) -> None:
    metadata = app.http.get("/v2/models/served").json()
    assert metadata["parameters"] == {"labels": ["card", "refund"], "max_length": 64}
    assert app.http.get("/v2/models/served/ready").json() == {"name": "served", "version": "1", "ready": True}
    for path in ("/ping", "/health", "/live", "/ready", "/v2", "/v2/health/live", "/v2/health/ready", "/docs"):
        assert app.http.get(path).status_code == 200, path
    example = app.http.get("/openapi.json").json()["components"]["schemas"]["PredictRequest"]["examples"][0]
    assert len(app.predict(*example["texts"], top_k=example["top_k"])["predictions"]) == 2


def _tensor(shape: list[int], kind: str, data: list[Any]) -> dict[str, Any]:
    return {"inputs": [{"name": "t", "shape": shape, "datatype": kind, "data": data}]}


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/predict", {}, 400, "texts: Field required"),
        ("/predict", {"texts": []}, 400, "texts: List should have at least 1 item"),
        ("/predict", {"texts": ["a"], "topk": 1}, 400, "topk: Extra inputs are not permitted"),
        ("/predict", {"texts": [1]}, 400, "texts.0: Input should be a valid string"),
        ("/predict", {"texts": ["a"], "ids": ["x", "y"]}, 400, "there are 1 texts and 2 ids"),
        ("/predict", {"texts": ["a"] * 257}, 413, "257 texts are more than 256"),
        ("/predict", {"texts": ["a"], "model": "other"}, 404, "there is no model 'other' here: served"),
        ("/predict", {"texts": ["a" * 1_100_000]}, 413, "larger than 1024 KiB"),
        ("/v2/models/other/infer", _tensor([1], "BYTES", ["a"]), 404, "no model"),
        ("/v2/models/served/infer", _tensor([1], "FP32", [1]), 400, "texts are BYTES"),
        ("/v2/models/served/infer", _tensor([2], "BYTES", ["a"]), 400, "has 1 texts"),
        ("/invocations", {"dataframe_records": [{"a": "x", "b": "y"}]}, 400, "no column text among 'a', 'b'"),
        ("/invocations", {"instances": ["a", None]}, 400, "row 1 is null, which is no text"),
        ("/invocations", {"dataframe_split": {"columns": ["text"], "data": [3]}}, 400, "dataframe_split should be"),
        ("/invocations", {"data": 1}, 400, "one of dataframe_split, dataframe_records, instances, inputs"),
        ("/feedback", {"prediction_id": "1", "label": "card"}, 400, "prediction_id: String should match pattern"),
        ("/nowhere", {}, 404, "Not Found"),
    ],
    ids=lambda value: value if isinstance(value, str) and value[:1] != "/" else "",
)  # fmt: skip
def test_an_error_is_a_status_and_one_sentence(app: Running, path: str, body: Any, status: int, said: str) -> None:
    answer = app.http.post(path, json=body)
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]
    assert said in answer.json()["error"]


def test_what_is_no_json_is_told(app: Running) -> None:
    for path, kind, said in (
        ("/predict", "application/json", "JSON decode error"),
        ("/invocations", "application/json", "JSON"),
        ("/invocations", "text/plain", "Content-Type is text/plain: it should be application/json or text/csv"),
    ):
        answer = app.http.post(path, content=b"{", headers={"Content-Type": kind})
        assert answer.status_code == 400
        assert said in answer.json()["error"], path


def test_what_it_said_is_in_the_log_once(app: Running) -> None:
    said = app.predict("where is my refund", "lost", ids=["mine", None])
    rows = {row["id"]: row for row in app.logged()}
    first = rows[said["predictions"][0]["id"]]
    assert (first["text"], first["caller_id"], first["version"]) == ("where is my refund", "mine", "1")
    assert (first["source"], first["role"]) == ("server", "champion")
    assert first["label"] == said["predictions"][0]["label"]
    assert dict(first["probabilities"])[first["label"]] == pytest.approx(first["probability"])
    assert first["latency_ms"] > 0
    assert rows[said["predictions"][1]["id"]]["caller_id"] is None
    (day,) = {uri.split("/date=")[1].split("/")[0] for uri in lake.find(lake.predictions("served"))}
    assert day == f"{first['at']:%Y-%m-%d}"
    assert first["id"].startswith(day.replace("-", ""))


def test_a_correction_is_kept_with_what_it_corrects(app: Running) -> None:
    said = app.predict("a lost card")["predictions"][0]
    given = {"prediction_id": said["id"], "label": " refund ", "who": "ann"}
    assert app.http.post("/feedback", json=given).json() == {"prediction_id": said["id"], "kept": True}
    (uri,) = (uri for uri in lake.find(lake.feedback("served")) if said["id"] in uri)
    kept = lake.read_json(uri)
    assert (kept["label"], kept["who"], kept["text"]) == ("refund", "ann", None)


def test_what_prometheus_reads(app: Running) -> None:
    app.predict("a card")
    app.http.post("/no/such/path/of/mine")
    found = app.http.get("/metrics").text
    assert 'bert_requests_total{path="/predict",status="200"}' in found
    assert 'bert_model_version{model="served",version="1"} 1.0' in found
    assert "bert_batch_texts_bucket" in found
    assert "of/mine" not in found, "callers cannot make time series"


def test_a_new_champion_answers_within_a_moment_and_nobody_is_refused_meanwhile(
    app: Running, registry: Registry, tmp_path: Path
) -> None:
    registry.promote_new()
    with running(registry, tmp_path) as here, ThreadPoolExecutor(4) as callers:
        here.wait_for_version("1")
        ending, seen = threading.Event(), []

        def call() -> None:
            while not ending.is_set():
                answer = here.http.post("/predict", json={"texts": ["my card"]})
                seen.append((answer.status_code, answer.json().get("version")))

        calls = [callers.submit(call) for _ in range(4)]
        registry.promote_new()
        here.wait_for_version("2")
        registry.rollback()
        here.wait_for_version("1")
        ending.set()
        for one in calls:
            one.result()
    assert {status for status, _ in seen} == {200}
    assert {version for _, version in seen} == {"1", "2"}
    assert {path.name for path in (tmp_path / registry.name).iterdir()} == {"1", "2", "current.json"}


def test_a_champion_that_cannot_be_loaded_leaves_the_one_before_at_work(
    shared_services: None, registry: Registry, tmp_path: Path
) -> None:
    registry.promote_new()
    with running(registry, tmp_path) as here:
        here.wait_for_version("1")
        version = registry.train()
        lake.write_bytes(lake.model(registry.name, version, "model.safetensors"), b"damaged")
        models.point(registry.name, models.CHAMPION, version)
        state = lambda: here.http.get("/ready").json()["models"][registry.name]  # noqa: E731
        wait(lambda: state()["trouble"])
        assert f"{registry.name} version 2 cannot be loaded" in state()["trouble"]
        assert here.predict("a card")["version"] == "1"


def test_without_registry_and_bucket_it_answers_from_its_disk(
    shared_services: None, registry: Registry, mlflow_server: MlflowServer, tmp_path: Path
) -> None:
    registry.promote_new()
    with running(registry, tmp_path) as here:
        here.wait_for_version("1")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(models, "by_alias", _away)
            wait(lambda: "the registry does not answer" in here.http.get("/ready").text)
            assert here.predict("a card")["version"] == "1"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "by_alias", _away)
        with running(registry, tmp_path) as again:
            again.wait_for_version("1")
            assert again.http.get("/ready").status_code == 200
            assert again.predict("a card")["version"] == "1"


def _away(model_name: str, alias: str) -> None:
    raise ConnectionError("connection refused")  # what a stopped MLflow server does is tried in the scenarios


def test_without_a_champion_it_says_so(shared_services: None, registry: Registry, tmp_path: Path) -> None:
    with running(registry, tmp_path) as here:
        wait(lambda: here.server.followers[registry.name].trouble)
        assert here.http.get("/ready").status_code == 503
        assert here.http.get("/live").status_code == 200
        answer = here.http.post("/predict", json={"texts": ["a"]})
        assert answer.status_code == 503
        assert answer.json()["error"] == f"no version of {registry.name} answers: {registry.name} has no champion yet"


def test_who_has_no_token_is_refused_and_who_asks_too_often_waits(
    shared_services: None, registry: Registry, tmp_path: Path
) -> None:
    registry.promote_new()
    with running(registry, tmp_path, tokens="first, second", requests_per_minute=2) as here:
        here.wait_for_version("1")  # probes need none
        texts = {"texts": ["a"]}
        for headers in ({}, {"Authorization": "Bearer no"}, {"Authorization": "first"}):
            answer = here.http.post("/predict", json=texts, headers=headers)
            assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
            assert here.http.get("/metrics", headers=headers).status_code == 401
        second = {"Authorization": "Bearer second"}
        assert [here.http.post("/predict", json=texts, headers=second).status_code for _ in range(3)] == [200, 200, 429]
        late = here.http.post("/predict", json=texts, headers=second)
        assert int(late.headers["Retry-After"]) > 0
        assert "more than 2 requests a minute" in late.json()["error"]
        assert here.http.post("/predict", json=texts, headers={"Authorization": "Bearer first"}).status_code == 200


@pytest.mark.parametrize(("kept", "text", "hashed"), [("hash", None, 32), ("off", None, None)])
def test_a_log_without_texts(
    shared_services: None, registry: Registry, tmp_path: Path, kept: str, text: None, hashed: int | None
) -> None:
    registry.promote_new()
    with running(registry, tmp_path, log_texts=kept) as here:
        here.wait_for_version("1")
        here.predict("my own secret")
        (row,) = here.logged()
    assert row["text"] is text
    assert (len(row["text_hash"]) if row["text_hash"] else None) == hashed


def test_what_cannot_be_logged_waits_and_a_server_that_ends_writes_all(
    shared_services: None, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.promote_new()
    write = lake.write_bytes
    with running(registry, tmp_path) as here:
        here.wait_for_version("1")
        monkeypatch.setattr(lake, "write_bytes", lambda uri, content: 1 / 0)
        ids = [here.predict("a card")["predictions"][0]["id"] for _ in range(5)]
        time.sleep(0.3)
        assert here.server.log.waiting_rows == 5
        monkeypatch.setattr(lake, "write_bytes", write)
    assert sorted(row["id"] for row in logged(registry.name)) == sorted(ids)


class _Slow:
    """An engine that answers when it is let."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.batches: list[int] = []

    def probabilities(self, rows: list[Any]) -> Any:
        self.go.wait(10)
        self.batches.append(len(rows))
        return np.full((len(rows), 2), 0.5, dtype=np.float32)


def test_what_waits_is_answered_in_batches_of_so_many_tokens_and_too_much_is_refused() -> None:
    async def story() -> None:
        engine: Any = _Slow()
        formed: list[tuple[int, int]] = []
        batcher = Batcher(100, 250, lambda texts, tokens: formed.append((texts, tokens)))
        task = asyncio.create_task(batcher.run())
        tokens = Tokens([np.zeros(10, dtype=np.int32)] * 3, [False] * 3)
        first = asyncio.create_task(batcher.answer(engine, tokens))
        await asyncio.sleep(0.05)
        others = [asyncio.create_task(batcher.answer(engine, tokens)) for _ in range(7)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFull, match="try again in"):
            await batcher.answer(engine, tokens)
        others[0].cancel()
        engine.go.set()
        answers = await asyncio.gather(first, *others[1:])
        assert {answer.shape for answer in answers} == {(3, 2)}
        assert formed == [(3, 30), (9, 90), (9, 90)]
        assert batcher.waiting_tokens == 0
        task.cancel()

    asyncio.run(story())


def test_elsewhere_than_on_a_developers_machine_it_wants_a_token(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BERT_ENVIRONMENT", "production")
    settings.cache_clear()
    assert main([]) == 2
    assert "Set SERVING_TOKENS" in capsys.readouterr().err
    settings.cache_clear()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "id,Text\n1,a card\n2,\n"),
        ("b.csv", "id;text\n1;a card\n2;\n"),
        ("one_column.csv", "what they said\na card\n\"\"\n"),
        ("c.jsonl", '{"id": 1, "text": "a card"}\n{"id": 2, "text": ""}\n'),
    ],
)  # fmt: skip
def test_a_files_texts_are_found(tmp_path: Path, name: str, content: str) -> None:
    file = tmp_path / name
    file.write_text(content)
    assert list(texts_of(file, "")) == [["a card", ""]]


def test_a_file_without_a_text_column_is_refused_and_nothing_is_written(
    shared_services: None, registry: Registry, tmp_path: Path
) -> None:
    registry.promote_new()
    (tmp_path / "in.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="no text column among 'a', 'b': name it with TEXT="):
        predict(tmp_path / "in.csv", tmp_path / "out.csv", registry.name, None, "")
    with pytest.raises(ValueError, match="has no version 7"):
        predict(tmp_path / "in.csv", tmp_path / "out.csv", registry.name, "7", "b")
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_a_files_texts_are_labelled_without_a_server(
    shared_services: None, registry: Registry, tiny_bert: Path, tmp_path: Path
) -> None:
    registry.promote_new()
    (tmp_path / "in.csv").write_text("\n".join(["text", *TEXTS]))
    assert predict(tmp_path / "in.csv", tmp_path / "out.csv", registry.name, None, "") == 3
    rows = list(csv.DictReader((tmp_path / "out.csv").open()))
    assert [row["text"] for row in rows] == TEXTS
    assert [row["label"] for row in rows] == score(str(tiny_bert), TEXTS).predicted
    assert all(float(row["probability"]) + float(row["second_probability"]) == pytest.approx(1) for row in rows)
    assert {row["second"] for row in rows} <= {"card", "refund"}
