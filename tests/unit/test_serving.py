"""The model server over real HTTP, with a real registry and a real S3 server; the BERT in it is tiny."""

import asyncio
import csv
import io
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow.parquet as pq
import pytest
from sqlalchemy.engine import Engine as Database

from dev.predict import predict, texts_of
from include import lake, objects
from include.registry import models
from include.serving import batch, batcher, feedback
from include.serving.__main__ import main
from include.serving.batcher import Batcher, QueueFull
from include.serving.engine import Tokens
from include.settings import settings
from include.training.scoring import score
from tests.unit.model_servers import Running, logged, running, wait
from tests.unit.registry_services import MlflowServer, Registry

pytest_plugins = ["tests.unit.model_servers"]

TEXTS = ["where is my card", "a refund", "lost my card"]


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
    one = app.http.post("/invocations", json={"inputs": {"text": TEXTS[0]}}).raise_for_status().json()
    assert one == {"predictions": labels[:1]}, "a text is no sequence of letters"
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
        ("/invocations", {"inputs": {"text": 5}}, 400, "row 0 is 5, which is no text"),
        ("/invocations", {"inputs": {"a": ["x"], "b": ["y"]}}, 400, "no column text among 'a', 'b'"),
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
        ("/predict", "application/json", "no JSON: Expecting property name enclosed in double quotes, at character 1"),
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
    (day,) = {uri.split("/date=")[1].split("/")[0] for uri in objects.find(lake.predictions("served"))}
    assert day == f"{first['at']:%Y-%m-%d}"
    assert first["id"].startswith(day.replace("-", ""))


def test_a_correction_is_kept_with_what_it_corrects(app: Running) -> None:
    said = app.predict("a lost card")["predictions"][0]
    given = {"prediction_id": said["id"], "label": " refund ", "who": "ann"}
    assert app.http.post("/feedback", json=given).json() == {"prediction_id": said["id"], "kept": True}
    (uri,) = (uri for uri in objects.find(lake.feedback("served")) if said["id"] in uri)
    kept = objects.read_json(uri)
    assert (kept["label"], kept["who"], kept["text"]) == ("refund", "ann", None)


def test_corrections_go_back_as_training_data_once_and_by_a_text_of_their_own_where_the_log_has_none(
    app: Running,
) -> None:
    first, second, third = app.predict("my card", "a lost refund", "where")["predictions"]
    app.logged()
    unknown = f"{first['id'][:9]}{'0' * 32}"
    for key, label in ((first["id"], "card"), (first["id"], "refund"), (second["id"], "card"), (unknown, "card")):
        app.http.post("/feedback", json={"prediction_id": key, "label": label, "who": "ann"}).raise_for_status()
    before = len(objects.find(lake.feedback("served", "sent/")))
    today = datetime.now(UTC).date()
    (sent,) = feedback.send_back("served", "one", today)
    assert {"prediction_id": unknown, "reason": "there is no such prediction in the log"} in sent.left_out
    assert sent.uri == lake.incoming("feedback/served-one.parquet")
    rows = pq.read_table(io.BytesIO(objects.read_bytes(sent.uri))).to_pylist()
    mine = {row["prediction_id"]: row for row in rows if row["prediction_id"] in (first["id"], second["id"])}
    assert {row["text"]: row["label"] for row in mine.values()} == {"my card": "refund", "a lost refund": "card"}
    assert mine[first["id"]]["predicted"] == first["label"]
    assert feedback.send_back("served", "one", today) == []
    assert feedback.send_back("served", "two", today) == []
    app.http.post("/feedback", json={"prediction_id": third["id"], "label": "card"}).raise_for_status()
    yesterday = today - timedelta(days=1)
    assert feedback.send_back("served", "three", yesterday) == [], "a day is taken when it is over"
    objects.create_json(lake.feedback("served", "sent/cut-off.json"), {"corrections": _corrections_of(third["id"])})
    (finished,) = feedback.send_back("served", "four", today)
    assert (finished.name, finished.rows) == ("cut-off", 1)
    assert len(objects.find(lake.feedback("served", "sent/"))) == before + 6


def _corrections_of(prediction_id: str) -> list[str]:
    return [uri for uri in objects.find(lake.feedback("served")) if prediction_id in uri]


def test_labels_of_texts_chosen_at_random_are_kept_apart_and_not_trained_on(app: Running) -> None:
    said = {one["id"] for one in app.predict(*TEXTS)["predictions"]}
    app.logged()
    drawn = app.http.post("/sample", json={"size": 500}).raise_for_status().json()
    texts = {one["prediction_id"]: one["text"] for one in drawn["texts"]}
    assert said <= set(texts)
    assert len(app.http.post("/sample", json={"size": 2}).json()["texts"]) == 2
    labelled = {"prediction_id": min(said), "label": "refund", "sample": drawn["sample"], "who": "ann"}
    app.http.post("/feedback", json=labelled).raise_for_status()
    (uri,) = _corrections_of(min(said))
    assert "/labelled/date=" in uri
    kept = objects.read_json(uri)
    assert (kept["label"], kept["version"], kept["role"]) == ("refund", "1", "champion")
    assert kept["predicted"] in ("card", "refund")
    other = app.http.post("/feedback", json=labelled | {"prediction_id": f"20200101-{'0' * 32}"})
    assert other.status_code == 404
    sent = feedback.send_back("served", "labelled", datetime.now(UTC).date())
    assert min(said) not in str([objects.read_bytes(one.uri) for one in sent])


def test_what_prometheus_reads(app: Running) -> None:
    app.predict("a card")
    app.http.post("/no/such/path/of/mine")
    found = app.http.get("/metrics").text
    assert 'bert_requests_total{path="/predict",status="200"}' in found
    assert 'bert_model_version{model="served",role="champion",version="1"} 1.0' in found
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
        objects.write_bytes(lake.model(registry.name, version, "model.safetensors"), b"damaged")
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
        (said,) = here.predict("my own secret")["predictions"]
        (row,) = here.logged()
        assert (
            here.http.post("/sample", json={})
            .json()["error"]
            .endswith("has no texts (BERT_LOG_TEXTS): there is nothing to label")
        )
        for own in (None, "my own secret"):
            given = {"prediction_id": said["id"], "label": "card", "text": own}
            here.http.post("/feedback", json=given).raise_for_status()
            (sent,) = feedback.send_back(registry.name, f"with {own}", datetime.now(UTC).date())
            assert sent.rows == (own is not None)
    assert row["text"] is text
    assert (len(row["text_hash"]) if row["text_hash"] else None) == hashed


def test_what_cannot_be_logged_waits_and_a_server_that_ends_writes_all(
    shared_services: None, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.promote_new()
    write = objects.write_bytes
    with running(registry, tmp_path) as here:
        here.wait_for_version("1")
        monkeypatch.setattr(objects, "write_bytes", lambda uri, content: 1 / 0)
        ids = [here.predict("a card")["predictions"][0]["id"] for _ in range(5)]
        time.sleep(0.3)
        assert here.server.log.waiting_rows == 5
        monkeypatch.setattr(objects, "write_bytes", write)
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


def test_who_was_answered_together_is_answered_together_again() -> None:
    """Without waiting for them the first of them to come back would be a batch alone."""

    async def story() -> None:
        engine: Any = _Slow()
        batcher = Batcher(1_000, 1_000)
        tokens = Tokens([np.zeros(10, dtype=np.int32)], [False])

        async def caller(loop_turns: int) -> None:
            await batcher.answer(engine, tokens)
            for _ in range(loop_turns):
                await asyncio.sleep(0)
            await batcher.answer(engine, tokens)

        callers = [asyncio.create_task(caller(10 * number)) for number in range(4)]
        await asyncio.sleep(0)
        task = asyncio.create_task(batcher.run())
        await asyncio.sleep(0.2)
        engine.go.set()
        await asyncio.gather(*callers)
        assert engine.batches == [4, 4]
        task.cancel()

    asyncio.run(story())


def test_waiting_in_vain_for_a_while_does_not_part_callers_for_good() -> None:
    """They were one batch of all but one and one of that one ever after, which takes as long as two full ones."""

    class Engine:
        batches: ClassVar[list[int]] = []

        def probabilities(self, rows: list[Any]) -> Any:
            time.sleep(0.01)
            self.batches.append(len(rows))
            return np.full((len(rows), 2), 0.5, dtype=np.float32)

    async def story() -> None:
        engine: Any = Engine()
        batches = Batcher(1_000, 1_000)
        tokens = Tokens([np.zeros(10, dtype=np.int32)], [False])
        task = asyncio.create_task(batches.run())

        async def caller(late: float) -> None:
            await asyncio.sleep(late)
            for pause in [0.02] * 8 + [0.003] * 40:
                await batches.answer(engine, tokens)
                await asyncio.sleep(pause)

        await asyncio.gather(*(caller(late) for late in (0, 0, 0, 0.005)))
        assert engine.batches[-10:].count(4) > 5
        task.cancel()

    asyncio.run(story())


def test_a_full_batch_is_not_kept_waiting_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batcher, "PATIENCE", 10_000)  # of some milliseconds: for ever

    async def story() -> None:
        engine: Any = _Slow()
        batches = Batcher(20, 1_000)  # of two texts
        tokens = Tokens([np.zeros(10, dtype=np.int32)], [False])
        callers = [asyncio.create_task(batches.answer(engine, tokens)) for _ in range(2)]
        await asyncio.sleep(0)
        task = asyncio.create_task(batches.run())
        await asyncio.sleep(0.05)
        callers.append(asyncio.create_task(batches.answer(engine, tokens)))
        await asyncio.sleep(0)
        engine.go.set()
        await asyncio.gather(*callers[:2])
        callers.append(asyncio.create_task(batches.answer(engine, tokens)))  # two of the three that are waited for
        await asyncio.wait_for(asyncio.gather(*callers), 30)
        assert engine.batches == [2, 2]
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
    with pytest.raises(ValueError, match="no text column among 'a', 'b': name it"):
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


def test_a_batch_that_is_killed_goes_on_with_the_version_it_began_with(
    shared_services: None, registry: Registry, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.promote_new()
    monkeypatch.setattr(batch, "PART", 2)
    texts = [*TEXTS, "", "my card"]
    source = objects.write_bytes(
        f"{lake.root()}/some/{registry.name}/in.jsonl",
        "\n".join(json.dumps({"id": n, "text": one, "label": "old"}) for n, one in enumerate(texts)).encode(),
    )
    target = f"{lake.root()}/answers/{registry.name}"
    write = batch._write

    def killed(uri: str, table: Any) -> None:
        if uri.endswith("part-0000-00001.parquet") and "answers" in uri:
            raise KeyboardInterrupt
        write(uri, table)

    monkeypatch.setattr(batch, "_write", killed)
    with pytest.raises(KeyboardInterrupt):
        batch.score(registry.name, source, target, name="run 1", texts="full")
    monkeypatch.setattr(batch, "_write", write)
    registry.promote_new()
    first = objects.read_bytes(f"{target}/part-0000-00000.parquet")
    scored = batch.score(registry.name, source, target, name="run 1", texts="full")
    assert (scored.version, scored.rows, sum(scored.labels.values())) == ("1", 5, 4)
    assert objects.read_bytes(f"{target}/part-0000-00000.parquet") == first
    assert batch.score(registry.name, source, target, name="run 1", texts="full") == scored
    parts = [uri for uri in objects.find(target) if uri.endswith(".parquet")]
    rows = [row for uri in parts for row in pq.read_table(io.BytesIO(objects.read_bytes(uri))).to_pylist()]
    assert [row["id"] for row in rows] == [0, 1, 2, 3, 4]
    assert [row["label"] for row in rows if row["text"]] == score(
        str(tiny_bert), [one for one in texts if one]
    ).predicted
    assert rows[3]["label"] is rows[3]["prediction_id"] is None
    log = {row["id"]: row for row in logged(registry.name)}
    assert set(log) == {row["prediction_id"] for row in rows if row["text"]}
    assert {(row["source"], row["role"], row["latency_ms"]) for row in log.values()} == {("batch", "champion", None)}
    (found,) = (row for row in feedback._said(registry.name, [rows[0]["prediction_id"]]).values())
    assert found["text"] == TEXTS[0]


def test_a_batch_without_a_file_a_version_or_the_same_file_says_so(shared_services: None, registry: Registry) -> None:
    where = {"source": f"{lake.root()}/none/", "target": f"{lake.root()}/answers/{registry.name}/2", "name": "run 2"}
    with pytest.raises(batch.CannotScore, match="has no champion yet"):
        batch.score(registry.name, **where, texts="full")
    registry.promote_new()
    with pytest.raises(batch.CannotScore, match="there is nothing at s3://bert/none/"):
        batch.score(registry.name, **where, texts="full")
    objects.write_bytes(f"{where['source']}a.csv", b"a,b\n1,2\n")
    with pytest.raises(batch.CannotScore, match="no text column among 'a', 'b'"):
        batch.score(registry.name, **where, texts="full")
    objects.write_bytes(f"{where['source']}a.csv", b"text\nx\n")
    with pytest.raises(batch.CannotScore, match="is another file than when this began"):
        batch.score(registry.name, **where, texts="full")
