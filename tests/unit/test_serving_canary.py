"""Two versions side by side: a canary that fails or holds, and a shadow. Real HTTP, MLflow, S3 and PostgreSQL."""

import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy.engine import Engine as Database

from include import lake, objects
from include.orchestration import canaries
from include.registry import canary, ledger, models
from include.registry.promotion import promote
from include.serving.bake import Bake
from include.settings import settings
from include.settings.serving import ServingSettings
from tests.unit.model_servers import Running, logged, running, wait
from tests.unit.registry_services import Registry, as_connection

pytest_plugins = ["tests.unit.model_servers"]
pytestmark = pytest.mark.usefixtures("shared_services")

TEXTS = ["where is my card", "a refund", "lost my card"]


@pytest.fixture(autouse=True)
def baked(engine: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Promotions begin with half of the requests, and Airflow's connection leads to the warehouse."""
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", as_connection(engine.url))
    monkeypatch.setenv("BERT_CANARY", "50")
    monkeypatch.setenv("BERT_CANARY_MINUTES", "60")
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.fixture(scope="module")
def swapped(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that says the reverse."""
    from transformers import BertForSequenceClassification

    folder = tmp_path_factory.mktemp("swapped") / "bert"
    shutil.copytree(tiny_bert, folder)
    model = BertForSequenceClassification.from_pretrained(folder)
    model.classifier.weight.data *= -1
    model.classifier.bias.data *= -1
    model.save_pretrained(folder)
    return folder


@contextmanager
def calling(here: Running, callers: int = 4) -> Iterator[list[tuple[float, int, str]]]:
    """Callers at work for as long as the block runs: when each was answered, the status, and the version."""
    ending, seen = threading.Event(), []

    def call() -> None:
        while not ending.is_set():
            answer = here.http.post("/predict", json={"texts": TEXTS})
            seen.append((time.monotonic(), answer.status_code, answer.json().get("version", "")))

    with ThreadPoolExecutor(callers) as pool:
        calls = [pool.submit(call) for _ in range(callers)]
        try:
            yield seen
        finally:
            ending.set()
            for one in calls:
                one.result()


def test_a_bad_champion_answers_few_requests_and_is_rolled_back_by_the_one_who_moves_aliases(
    registry: Registry, swapped: Path, engine: Database, tmp_path: Path
) -> None:
    registry.promote_new()
    with running(registry, tmp_path) as here:
        here.wait_for_version("1")
        registry.source = swapped
        with calling(here) as seen:
            registry.promote_new()
            began = time.monotonic()
            wait(lambda: "failed as canary" in here.http.get("/ready").text)
            told = canaries.watch(registry.name, "2", engine, dag_run_id="watch")
            moved = time.monotonic() - began
            assert "version 1" in told
            wait(lambda: here.http.get("/ready").json()["models"][registry.name]["trouble"] == "")
        assert canaries.watch(registry.name, "2", engine, dag_run_id="watch").startswith("version 2 is not")
    assert {status for _, status, _ in seen} == {200}
    by_canary = [at for at, _, version in seen if version == "2"]
    assert by_canary
    print(
        f"{len(by_canary)} of {len(seen)} requests by the bad champion, all within "
        f"{max(by_canary) - min(by_canary):.1f} s; the alias was back after {moved:.1f} s"
    )
    assert registry.aliases()[models.CHAMPION] == "1"
    rolled_back = ledger.last_move(engine, registry.name)
    assert rolled_back is not None
    assert (rolled_back.verb, rolled_back.previous_champion) == ("rollback", "2")
    assert "texts otherwise than the version before" in rolled_back.reason
    roles = {(row["role"], row["version"]) for row in logged(registry.name)}
    assert roles == {("champion", "1"), ("canary", "2"), ("shadow", "1")}


def test_a_canary_that_holds_gets_all_requests_and_the_ledger_says_so(
    registry: Registry, engine: Database, tmp_path: Path
) -> None:
    registry.promote_new()
    with running(registry, tmp_path) as here:
        here.wait_for_version("1")
        registry.promote_new()
        wait(lambda: here.http.get("/ready").json()["models"][registry.name].get("canary") == "2")
        said = {here.predict(*TEXTS)["version"] for _ in range(40)}
        assert said == {"1", "2"}
        champion = models.by_alias(registry.name, models.CHAMPION)
        assert champion is not None
        here.logged()
        models.tag(champion, {canary.UNTIL: datetime.now(UTC).isoformat()})
        told = canaries.watch(registry.name, "2", engine, dag_run_id="watch")
        here.wait_for_version("2")
    assert told.startswith("version 2 has held as canary")
    (entry,) = ledger.entries(engine, registry.name, verbs=["bake"])
    assert entry.facts[canary.FACT]["answers"] > 0
    assert entry.facts[canary.FACT]["different"] == 0


def test_a_canary_that_cannot_be_loaded_never_answers(registry: Registry, tmp_path: Path) -> None:
    registry.promote_new()
    with running(registry, tmp_path) as here:
        here.wait_for_version("1")
        version = registry.train()
        objects.write_bytes(lake.model(registry.name, version, "model.safetensors"), b"damaged")
        promote(registry.decision(version, "1"), registry.engine)
        wait(lambda: (found := models.by_version(registry.name, "2")) and found.tags.get(canary.FAILED))
        assert {here.predict(*TEXTS)["version"] for _ in range(10)} == {"1"}


def test_a_version_that_failed_may_be_made_champion_again(registry: Registry) -> None:
    registry.promote_new()
    second = registry.promote_new()
    found = models.by_version(registry.name, second)
    assert found is not None
    canary.fail(found, "slow")
    registry.rollback()
    registry.rollback(to_version=second)
    champion = models.by_alias(registry.name, models.CHAMPION)
    assert champion is not None
    assert canary.of(champion) is None


def test_a_shadow_is_asked_and_never_answers(registry: Registry, swapped: Path, tmp_path: Path) -> None:
    registry.promote_new()
    with running(registry, tmp_path, shadow=True, shadow_percent=100) as here:
        here.wait_for_version("1")
        registry.source = swapped
        registry.train()
        wait(lambda: here.http.get("/ready").json()["models"][registry.name].get("shadow") == "2")
        assert {here.predict(*TEXTS)["version"] for _ in range(5)} == {"1"}
        asked = f'bert_compared_total{{model="{registry.name}",role="shadow",version="2"}} 15.0'
        wait(lambda: asked in here.http.get("/metrics").text)
        assert asked.replace("compared", "different") in here.http.get("/metrics").text
        compared = here.http.post("/compare", json={"text": TEXTS[0], "top_k": 1}).json()
        assert [(one["version"], one["role"]) for one in compared] == [("1", "champion"), ("2", "shadow")]
        assert compared[0]["top"][0]["label"] != compared[1]["top"][0]["label"]
    rows = logged(registry.name)
    assert {row["role"] for row in rows} == {"champion", "shadow"}
    assert len(rows) == 2 * 15, "what was compared is not logged"
    assert len({row["id"] for row in rows}) == len(rows) / 2


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        ({"requests": 100, "errors": 2}, ""),
        ({"requests": 100, "errors": 3}, "3 of 100 requests failed"),
        ({"requests": 1000, "errors": 3}, ""),
        ({"texts": 49, "different": 49}, ""),
        ({"texts": 100, "different": 20}, ""),
        ({"texts": 100, "different": 21}, "answers 21 of 100 texts otherwise"),
    ],
    ids=["two errors", "three errors", "a few of many", "too few texts", "as many as may", "too many"],
)
def test_when_a_canary_has_failed(seen: dict[str, int], said: str) -> None:
    found = Bake(ServingSettings(), **seen).verdict()
    assert said in found if said else not found


def test_a_canary_that_is_slow_has_failed() -> None:
    bake = Bake(ServingSettings())
    for _ in range(50):
        bake.answered(10, by_canary=False)
        bake.answered(19, by_canary=True)
    assert not bake.verdict()
    for _ in range(200):
        bake.answered(21, by_canary=True)
    assert "it takes 21 ms, and the version before 10 ms" in bake.verdict()
