"""Registry and promotion against MLflow's own store and a real PostgreSQL, with a tiny real BERT."""

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from include import lake, objects
from include.alerts import outbox
from include.registry import ledger, models, promotion, standing, versions
from include.registry.ledger import Entry
from include.registry.models import CHALLENGER, CHAMPION, PREVIOUS, ModelVersion, hash_labels
from include.registry.promotion import (
    AlreadyReplaced,
    ChampionChanged,
    VersionUnusable,
    promote,
    reject,
    rollback,
)
from include.registry.smoke import Changed, GivenUp, SmokeTest, SmokeTestFailed, compare
from include.training.scoring import Scores, score
from tests.unit.registry_services import Registry

pytest_plugins = ["tests.unit.registry_services"]
pytestmark = pytest.mark.usefixtures("services")


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


def told(registry: Registry) -> dict[str, str]:
    """The titles of the alerts about a model, by kind."""
    return {one.alert.kind: one.alert.title for one in outbox.unsent(registry.name)}


def test_people_are_told_of_each_decision_once_with_where_to_look(registry: Registry) -> None:
    first, second, third = registry.promote_new(), registry.train(), registry.train()
    decision = registry.decision(second, first).model_copy(update={"actor": "dag:weekly_etl"})
    rejection = registry.decision(third, second, "reject")
    for _ in range(2):
        promote(decision, registry.engine)
        reject(rejection, registry.engine)
        registry.rollback(dag_run_id="the same run")
    assert [one.alert.title for one in outbox.unsent(registry.name)] == [
        f"{registry.name}: version 1 is the champion now",
        f"{registry.name}: version 2 is the champion now",
        f"{registry.name}: version 3 was rejected",
        f"{registry.name}: rolled back from version 2 to version 1",
    ]
    _, promoted, _, back = (one.alert for one in outbox.unsent(registry.name))
    assert promoted.text == "0.93 is enough\n\nBy dag:weekly_etl. The champion before: version 1."
    assert promoted.links["model"].endswith(f"/#/models/{registry.name}/versions/2")
    assert promoted.links["report"] == lake.report("weekly_etl", decision.dag_run_id, "report.html")
    assert promoted.links["run"] == f"airflow:weekly_etl/{decision.dag_run_id}"
    assert (back.is_urgent, promoted.is_urgent) == (True, False)


def test_people_are_told_of_a_rollback_that_was_cut_off_by_whoever_finishes_it(
    registry: Registry, crash_at: Callable[[str], None]
) -> None:
    registry.promote_new()
    registry.promote_new()
    crash_at(CHAMPION)
    with pytest.raises(KeyboardInterrupt):
        registry.rollback()
    assert "rollback" not in told(registry)
    registry.rollback()
    assert told(registry)["rollback"] == f"{registry.name}: rolled back from version 2 to version 1"


def test_people_are_told_of_a_champion_that_was_set_by_hand(registry: Registry) -> None:
    first, second = registry.promote_new(), registry.promote_new()
    models.point(registry.name, CHAMPION, first)
    standing.champion(registry.name, registry.engine)
    titles = [one.alert.title for one in outbox.unsent(registry.name)]
    assert f"{registry.name}: version {first} was made champion by hand, in MLflow" in titles, second


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
    objects.write_json(lake.dataset("d1", "manifest.json"), {})
    models._client().delete_model_version(registry.name, version)
    assert versions.parent_dataset_id(registry.name, registry.engine) == "d1"


def test_before_the_first_champion_rows_that_wait_are_not_counted_twice(registry: Registry) -> None:
    version = registry.train()
    assert versions.parent_dataset_id(registry.name, registry.engine) == "d", "an older version used them up"
    found = models.by_version(registry.name, version)
    assert found
    models.tag(found, {versions.ROWS: versions.RELEASED})
    assert versions.parent_dataset_id(registry.name, registry.engine) is None


def test_a_rollback_knows_whose_rows_it_leaves_and_a_second_one_whose_it_returns_to(registry: Registry) -> None:
    runs, parent, champion = [], None, None
    for dataset in ("d1", "d2", "d3"):
        objects.write_json(lake.dataset(dataset, "manifest.json"), {"parent_dataset_id": parent})
        uri = objects.upload(registry.source, lake.job(dataset, "model"))
        version = models.register(registry.name, uri, "", {"job_id": dataset, "dataset_id": dataset})
        entry = registry.decision(version, champion, run=f"run {dataset}").model_copy(update={"dataset_id": dataset})
        promote(entry, registry.engine)
        parent, champion = dataset, version
        runs.append(version)

    def moved() -> tuple[set[str], set[str]]:
        last = ledger.last_move(registry.engine, registry.name)
        assert last
        left, regained = versions.left_and_regained(registry.engine, last)
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
    objects.write_bytes(lake.model(registry.name, first, file), b"{}")
    with pytest.raises(SmokeTestFailed, match=f"version {first} .* cannot be scored"):
        registry.rollback()
    assert registry.aliases() == before == {CHAMPION: second, PREVIOUS: first}
    assert registry.verbs() == ["promote", "promote"]


def test_a_rollback_to_a_version_with_other_labels_is_refused(registry: Registry, tmp_path: Path) -> None:
    first, _ = registry.promote_new(), registry.promote_new()
    config = shutil.copy(registry.source / "config.json", tmp_path / "config.json")
    changed = Path(config).read_text().replace("refund", "complaint").encode()
    objects.write_bytes(lake.model(registry.name, first, "config.json"), changed)
    with pytest.raises(SmokeTestFailed, match="other labels than were registered"):
        registry.rollback()


def test_a_rollback_to_a_version_that_answers_nan_is_refused(registry: Registry) -> None:
    import safetensors.torch

    first, _ = registry.promote_new(), registry.promote_new()
    weights = safetensors.torch.load((registry.source / "model.safetensors").read_bytes())
    weights["classifier.weight"][:] = float("nan")
    objects.write_bytes(lake.model(registry.name, first, "model.safetensors"), safetensors.torch.save(weights))
    with pytest.raises(SmokeTestFailed, match="not finite"):
        registry.rollback()


def test_a_rollback_tells_what_it_gives_up_and_no_accuracy_hinders_it(registry: Registry, tmp_path: Path) -> None:
    first, second = registry.promote_new(), registry.promote_new()
    text, other = "where is my card", "a refund"
    answer = score(lake.model(registry.name, first), [text, other]).predicted
    rows = SmokeTest([text, other], ["refund" if one == "card" else "card" for one in answer])
    done = rollback(registry.name, registry.engine, actor="test", reason="complaints", smoke_test=rows)
    assert done.champion.version == first
    assert done.given_up == GivenUp(rows=2, right=0, right_before=0)
    kept = ledger.last_move(registry.engine, registry.name)
    assert kept is not None
    counts = {"golden_rows": 2, "right": 0, "right_before": 0, "wrong_again": 0, "right_again": 0}
    assert kept.facts == {"anchor": first, **counts}
    assert second == kept.previous_champion


def test_what_comes_wrong_again_is_counted_row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = [ModelVersion("m", one, f"uri {one}", "", {"labels_hash": hash_labels(["a", "b"])}) for one in "12"]
    answers = {"uri 1": [1, 0, 0, 0], "uri 2": [0, 1, 0, 1]}
    seen = lambda uri, texts: Scores(["a", "b"], np.eye(2, dtype=np.float32)[answers[uri]])  # noqa: E731
    monkeypatch.setattr("include.training.scoring.score", seen)
    found = compare(versions[0], versions[1], SmokeTest(["t1", "t2", "t3", "t4"], ["a", "a", "a", "b"]))
    assert (found.right, found.right_before) == (2, 3)
    assert found.wrong_again == [Changed("t1", "a", "b"), Changed("t4", "b", "a")]
    assert found.right_again == [Changed("t2", "a", "b")]


def test_a_champion_that_does_not_answer_hinders_no_rollback(registry: Registry) -> None:
    first, second = registry.promote_new(), registry.promote_new()
    objects.write_bytes(lake.model(registry.name, second, "model.safetensors"), b"{}")
    rows = SmokeTest(["a refund"], ["refund"])
    done = rollback(registry.name, registry.engine, actor="test", reason="it is broken", smoke_test=rows)
    assert (done.champion.version, done.given_up and done.given_up.right_before) == (first, None)


def test_a_forced_rollback_loads_nothing_and_the_ledger_says_so(registry: Registry) -> None:
    first, _ = registry.promote_new(), registry.promote_new()
    objects.write_bytes(lake.model(registry.name, first, "model.safetensors"), b"{}")
    assert registry.rollback(smoke_test=None).version == first
    kept = ledger.last_move(registry.engine, registry.name)
    assert kept is not None
    assert (kept.reason, kept.facts["forced"]) == ("worse in use", True)


def test_a_rollback_of_a_version_that_is_not_champion_any_more_does_nothing(registry: Registry) -> None:
    first, second = registry.promote_new(), registry.promote_new()
    assert registry.rollback(replaces=second).version == first
    with pytest.raises(AlreadyReplaced, match=f"version {second} is not the champion any more"):
        registry.rollback(replaces=second)
    assert registry.aliases() == {CHAMPION: first, PREVIOUS: second}
    assert registry.verbs() == ["promote", "promote", "rollback"]


def test_of_many_rollbacks_at_once_one_happens(registry: Registry) -> None:
    first, second, third = (registry.promote_new() for _ in range(3))

    def attempt(_: int) -> bool:
        try:
            registry.rollback()
        except (AlreadyReplaced, VersionUnusable):
            return False
        return True

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(attempt, range(4))) == 1
    assert registry.aliases() == {CHAMPION: second, PREVIOUS: third}
    assert first not in registry.aliases().values()


def test_what_a_rollback_has_left_comes_back_only_if_it_is_named(registry: Registry) -> None:
    first, second = registry.promote_new(), registry.promote_new()
    registry.rollback()
    with pytest.raises(
        VersionUnusable, match=f"the last rollback has left version {second} .*worse in use.*TO={second}"
    ):
        registry.rollback()
    assert registry.rollback(to_version=second).version == second
    assert registry.aliases() == {CHAMPION: second, PREVIOUS: first}


def test_where_the_alias_previous_is_gone_the_ledger_knows_who_was(registry: Registry) -> None:
    _, second, _ = (registry.promote_new() for _ in range(3))
    models.unpoint(registry.name, PREVIOUS)
    assert registry.rollback().version == second


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

    def slow(version: models.ModelVersion, test: SmokeTest) -> list[str]:
        registry.promote_new()
        return check(version, test)

    monkeypatch.setattr(promotion.smoke, "check", slow)
    with pytest.raises(ChampionChanged, match="the champion is 3 now"):
        registry.rollback()
    assert registry.aliases() == {CHAMPION: "3", PREVIOUS: "2"}


def test_a_smoke_test_needs_texts_and_as_many_labels() -> None:
    with pytest.raises(ValueError, match="at least one text"):
        SmokeTest([])
    with pytest.raises(ValueError, match="1 texts but 2 labels"):
        SmokeTest(["a"], ["b", "c"])
