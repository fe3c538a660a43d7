"""What somebody does in MLflow's page, and what becomes of it: MLflow's own store or server, and a real PostgreSQL."""

import threading
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
from mlflow import MlflowClient

from include import lake, objects
from include.registry import ledger, mlflow_runs, models, versions
from include.registry.models import ANCHOR, CHAMPION, PREVIOUS
from include.registry.promotion import ChampionChanged, ChampionLost, VersionUnusable, promote, reject
from include.registry.standing import champion
from include.settings import settings
from include.training import tracking
from include.training.job import Hyperparameters, Job
from tests.unit.registry_services import MlflowServer, Registry

pytest_plugins = ["tests.unit.registry_services"]
pytestmark = pytest.mark.usefixtures("services")


def delete(registry: Registry, version: str) -> None:
    models._client().delete_model_version(registry.name, version)


def delete_files(*folders: str) -> None:
    for folder in folders:
        for uri in objects.find(folder):
            objects.filesystem(uri).rm_file(uri)


def job_of(registry: Registry, version: str) -> str:
    """The folder of the job that made a version."""
    found = models.by_version(registry.name, version)
    assert found is not None
    return lake.job(found.tags["job_id"], "model")


def files_of(registry: Registry, version: str) -> str:
    return lake.model(registry.name, version)


def promote_on(registry: Registry, dataset: str, *, new_anchor: bool = False) -> str:
    """Promotes a version that was trained on a dataset, which lies in the lake."""
    last = ledger.last_move(registry.engine, registry.name)
    objects.write_json(lake.dataset(dataset, "manifest.json"), {"parent_dataset_id": last.dataset_id if last else None})
    job_id = uuid4().hex[:16]
    version = registry.train(job_id, dataset)
    known = {"dataset_id": dataset, "job_id": job_id, "facts": {"anchor": version} if new_anchor else {}}
    decision = registry.decision(version, last.version if last else None)
    promote(decision.model_copy(update=known), registry.engine)
    return version


def anchors(registry: Registry) -> tuple[str, str]:
    """The anchor by the ledger, and by the alias."""
    found, pointed = versions.anchor(registry.name, registry.engine), models.by_alias(registry.name, ANCHOR)
    assert found is not None
    assert pointed is not None
    return found.version, pointed.version


def test_nothing_is_told_where_nothing_is_amiss(registry: Registry) -> None:
    assert champion(registry.name, registry.engine).champion is None
    version = registry.promote_new()
    found = champion(registry.name, registry.engine)
    assert (found.champion and found.champion.version, found.told) == (version, ())


def test_an_alias_set_by_hand_is_told_respected_and_entered_in_the_ledger(registry: Registry) -> None:
    first, second = promote_on(registry, "h1"), promote_on(registry, "h2")
    assert versions.parent_dataset_id(registry.name, registry.engine) == "h2"
    models.point(registry.name, CHAMPION, first)
    found = champion(registry.name, registry.engine)
    assert found.champion is not None
    assert found.champion.version == first
    assert "was set to version 1 by hand, in MLflow, instead of version 2" in found.told[0]
    assert "To undo it: make rollback TO=2" in found.told[0]
    assert registry.aliases() == {CHAMPION: first, PREVIOUS: second}
    entered = ledger.last_move(registry.engine, registry.name)
    assert entered is not None
    assert (entered.verb, entered.version, entered.previous_champion) == ("by_hand", first, second)
    assert versions.parent_dataset_id(registry.name, registry.engine) == entered.dataset_id == "h1"
    assert champion(registry.name, registry.engine).told == (), "it is told once"
    models.point(registry.name, CHAMPION, second)
    assert champion(registry.name, registry.engine).champion.version == second  # type: ignore[union-attr]
    assert registry.verbs() == ["promote", "promote", "by_hand", "by_hand"]


def test_an_alias_set_by_hand_before_any_decision_is_entered_too(registry: Registry) -> None:
    version = registry.train()
    models.point(registry.name, CHAMPION, version)
    assert "the ledger knew of none" in champion(registry.name, registry.engine).told[0]
    assert registry.aliases() == {CHAMPION: version}
    assert registry.verbs() == ["by_hand"]


def test_a_decision_that_was_made_before_the_alias_was_set_by_hand_is_to_be_made_again(registry: Registry) -> None:
    first, second, third = registry.promote_new(), registry.promote_new(), registry.train()
    models.point(registry.name, CHAMPION, first)
    with pytest.raises(ChampionChanged, match=f"against champion {second}, but the champion is {first} now"):
        promote(registry.decision(third, second), registry.engine)
    promote(registry.decision(third, first), registry.engine)
    assert registry.verbs() == ["promote", "promote", "by_hand", "promote"]


def test_an_alias_that_was_taken_away_is_put_back(registry: Registry) -> None:
    first, second = registry.promote_new(), registry.promote_new()
    models.unpoint(registry.name, CHAMPION)
    found = champion(registry.name, registry.engine)
    assert "was taken away, in MLflow and by hand: version 2 has it again" in found.told[0]
    assert registry.aliases() == {CHAMPION: second, PREVIOUS: first}
    assert registry.verbs() == ["promote", "promote"]


def test_an_alias_on_a_version_without_all_its_files_is_put_back(registry: Registry) -> None:
    first, broken = registry.promote_new(), registry.train()
    models.tag(models.by_version(registry.name, broken), {"ready": "false"})  # type: ignore[arg-type]
    models.point(registry.name, CHAMPION, broken)
    assert "whose files are not complete" in champion(registry.name, registry.engine).told[0]
    assert registry.aliases() == {CHAMPION: first}


@pytest.mark.parametrize("lost", ["nothing", "its files"])
def test_a_champion_whose_version_was_deleted_is_registered_again(registry: Registry, lost: str) -> None:
    first, second = promote_on(registry, "r1"), promote_on(registry, "r2")
    if lost == "its files":  # then those of its job are taken
        delete_files(files_of(registry, second))
    delete(registry, second)
    found = champion(registry.name, registry.engine)
    assert found.version not in (None, first, second), "MLflow gives no number again"
    assert f"version 2, the champion, was deleted in MLflow; its files are version {found.version}" in found.told[0]
    assert registry.aliases() == {CHAMPION: found.version, PREVIOUS: first}
    assert models.is_complete(files_of(registry, str(found.version)))
    assert registry.verbs() == ["promote", "promote", "restore"]
    assert versions.parent_dataset_id(registry.name, registry.engine) == "r2"
    assert champion(registry.name, registry.engine).told == ()
    assert registry.rollback().version == first


def test_a_champion_that_is_registered_again_is_so_once_though_that_was_cut_off(
    registry: Registry, crash_at: Callable[[str], None]
) -> None:
    promote_on(registry, "c1")
    delete(registry, "1")
    crash_at(CHAMPION)
    with pytest.raises(KeyboardInterrupt):
        champion(registry.name, registry.engine)
    found = champion(registry.name, registry.engine)
    assert registry.verbs() == ["promote", "restore"]
    assert registry.aliases() == {CHAMPION: found.version}
    assert len(models._client().search_model_versions(f"name='{registry.name}'")) == 1


def test_a_champion_that_was_deleted_with_all_files_is_for_a_person_to_replace(registry: Registry) -> None:
    first, second = promote_on(registry, "l1"), promote_on(registry, "l2")
    delete_files(files_of(registry, second), job_of(registry, second))
    delete(registry, second)
    with pytest.raises(
        ChampionLost, match=f"version 2, the champion, was deleted .*make rollback REASON='…' TO={first}"
    ):
        champion(registry.name, registry.engine)
    assert versions.parent_dataset_id(registry.name, registry.engine) == "l2"
    assert registry.rollback().version == first
    assert champion(registry.name, registry.engine).told == ()
    left = ledger.last_move(registry.engine, registry.name)
    assert left is not None
    assert left.previous_champion == second, "what it leaves is known, though it was deleted"


def test_where_there_is_no_other_version_the_next_one_is_a_first_one_on_the_rows_that_there_were(
    registry: Registry,
) -> None:
    only = promote_on(registry, "o1")
    delete_files(files_of(registry, only), job_of(registry, only))
    delete(registry, only)
    found = champion(registry.name, registry.engine)
    assert found.champion is None
    assert "there is no earlier champion either" in found.told[0]
    assert versions.parent_dataset_id(registry.name, registry.engine) == "o1"
    second = registry.train()
    promote(registry.decision(second, None), registry.engine)
    assert registry.aliases() == {CHAMPION: second}


def test_the_whole_model_deleted_comes_back_and_no_number_means_two_versions(registry: Registry) -> None:
    promote_on(registry, "w1")
    second = promote_on(registry, "w2")
    models._client().delete_registered_model(registry.name)
    old = objects.read_bytes(lake.model(registry.name, "1", "config.json"))
    objects.write_bytes(lake.model(registry.name, "1", "config.json"), old + b" ")
    found = champion(registry.name, registry.engine)
    assert found.champion is not None
    assert found.champion.version == "3", "1 and 2 are others, to the ledger and in the bucket"
    assert found.told[0].startswith(f"{registry.name}: version {second}, the champion, was deleted")
    assert objects.read_bytes(lake.model(registry.name, "1", "config.json")) == old + b" "


def test_a_champions_files_are_copied_again_from_its_job(registry: Registry) -> None:
    version = promote_on(registry, "f1")
    delete_files(files_of(registry, version))
    assert "copied again from the job that made it" in champion(registry.name, registry.engine).told[0]
    assert models.is_complete(files_of(registry, version))
    assert objects.exists(lake.model(registry.name, version, "MLmodel"))
    assert champion(registry.name, registry.engine).told == ()


def test_a_champion_whose_files_are_gone_for_good_is_for_a_person_to_replace(registry: Registry) -> None:
    first, second = promote_on(registry, "g1"), promote_on(registry, "g2")
    delete_files(files_of(registry, second), job_of(registry, second))
    with pytest.raises(ChampionLost, match=f"the files of version {second}, .* are gone .* TO={first}"):
        champion(registry.name, registry.engine)
    assert registry.rollback().version == first


def test_no_rollback_to_a_version_whose_files_are_gone_for_good(registry: Registry) -> None:
    first, _ = promote_on(registry, "n1"), promote_on(registry, "n2")
    delete_files(files_of(registry, first))
    jobs = job_of(registry, first)
    kept = {uri: objects.read_bytes(uri) for uri in objects.find(jobs)}
    delete_files(jobs)
    with pytest.raises(VersionUnusable, match=f"version {first} has no files any more"):
        registry.rollback(smoke_test=None)
    for uri, content in kept.items():
        objects.write_bytes(uri, content)
    assert registry.rollback().version == first


def test_the_anchor_stays_until_a_promotion_names_a_new_one_and_a_rollback_brings_the_old_one_back(
    registry: Registry,
) -> None:
    assert versions.anchor(registry.name, registry.engine) is None
    first = promote_on(registry, "a1")
    assert anchors(registry) == (first, first)
    promote_on(registry, "a2")
    assert anchors(registry) == (first, first)
    third = promote_on(registry, "a3", new_anchor=True)
    promote_on(registry, "a4")
    assert anchors(registry) == (third, third)
    registry.rollback(to_version="2")
    assert anchors(registry) == (first, first), "the one that held when version 2 was promoted"
    models.point(registry.name, CHAMPION, "4")
    champion(registry.name, registry.engine)
    assert anchors(registry) == (third, third)
    delete(registry, third)
    assert versions.anchor(registry.name, registry.engine).version == "4"  # type: ignore[union-attr]


def test_a_version_that_never_was_champion_gets_the_anchor_that_it_was_judged_beside(registry: Registry) -> None:
    first = promote_on(registry, "c1")
    second = promote_on(registry, "c2")
    refused = registry.train()
    reject(registry.decision(refused, second, "reject"), registry.engine)
    third = promote_on(registry, "c3", new_anchor=True)
    assert anchors(registry) == (third, third)
    registry.rollback(to_version=refused)
    assert anchors(registry) == (first, first)
    registry.rollback(to_version=registry.train())
    assert versions.anchor(registry.name, registry.engine).version == "5", "nobody has judged it"  # type: ignore[union-attr]


def test_before_the_ledger_knew_anchors_the_champion_is_its_own(registry: Registry) -> None:
    version = registry.train()
    ledger.append(registry.engine, registry.decision(version, None))  # as the version before wrote it
    models.point(registry.name, CHAMPION, version)
    assert champion(registry.name, registry.engine).champion is not None
    assert versions.anchor(registry.name, registry.engine).version == version  # type: ignore[union-attr]
    promote_on(registry, "b2")
    assert anchors(registry) == (version, version)


@pytest.fixture
def server(services: None, mlflow_server: MlflowServer, monkeypatch: pytest.MonkeyPatch) -> MlflowServer:
    """In place of the store without one."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server.uri)
    settings.cache_clear()
    return mlflow_server


def job(tracking_uri: str) -> Job:
    return Job(
        dataset_uri="s3://bert/datasets/d/",
        model_name="m",
        base_model="b",
        hyperparameters=Hyperparameters(epochs=1, learning_rate=1e-3, batch_size=1, max_length=8, seed=0),
        mlflow_tracking_uri=tracking_uri,
        mlflow_experiment=f"experiment {uuid4().hex}",
    )


def test_an_experiment_that_was_deleted_is_restored_with_its_runs(server: MlflowServer, tmp_path: Path) -> None:
    client, mine = MlflowClient(server.uri), job(server.uri)
    first = tracking.start(mine, f"file://{tmp_path}", {}, {})
    experiment = client.get_run(first.run_id).info.experiment_id
    first.close("FAILED")
    client.delete_experiment(experiment)
    again = tracking.start(mine, f"file://{tmp_path}", {}, {})
    again.close("FINISHED")
    assert again.run_id == first.run_id, "another try is the same run, though it was deleted"
    assert client.get_run(again.run_id).info.status == "FINISHED"
    client.delete_experiment(experiment)
    assert mlflow_runs._is_there(client, again.run_id), "as when the report is added after that"
    client.delete_run(again.run_id)
    assert mlflow_runs._is_there(client, again.run_id)
    assert not mlflow_runs._is_there(client, "0" * 32)
    assert mlflow_runs.links("0" * 32) == {}
    assert "MLflow run" in mlflow_runs.links(again.run_id)


def test_a_data_report_goes_to_an_experiment_that_was_deleted(server: MlflowServer, tmp_path: Path) -> None:
    client, page = MlflowClient(server.uri), tmp_path / "report.html"
    page.write_text("a page")
    name = f"m{uuid4().hex}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # it sets this itself, for its process
        mlflow_runs.log_page(name, "run 1", "nothing_to_train", page)
        client.delete_experiment(client.get_experiment_by_name(f"{name}-data").experiment_id)  # type: ignore[union-attr]
        assert mlflow_runs.log_page(name, "run 2", "nothing_to_train", page).endswith("report/report.html")


def test_an_outage_of_mlflow_is_waited_for(registry: Registry, server: MlflowServer) -> None:
    version = registry.promote_new()
    server.stop()
    back = threading.Timer(1.0, server.start)
    back.start()
    found = champion(registry.name, registry.engine)
    back.join()
    assert found.champion is not None
    assert found.champion.version == version


def test_a_tasks_tries_outlast_ten_minutes_without_mlflow() -> None:
    from mlflow.environment_variables import MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR, MLFLOW_HTTP_REQUEST_MAX_RETRIES
    from urllib3.util.retry import Retry

    from include.orchestration.defaults import TASK_DEFAULTS

    tries = TASK_DEFAULTS["retries"] + 1
    factor, most = MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR.get(), MLFLOW_HTTP_REQUEST_MAX_RETRIES.get()
    pauses = [min(factor * 2 ** (at - 1), Retry.DEFAULT_BACKOFF_MAX) for at in range(2, most + 1)]
    assert tries * sum(pauses) > 600, "tasks that ask MLflow"
    assert tries * tracking.START_SECONDS > 600, "the trainer"
