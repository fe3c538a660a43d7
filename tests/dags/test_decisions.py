"""What persons decide: challengers that wait, golden rows, corrections. Real Airflow database, MLflow, SQL."""

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.exceptions import AirflowFailException
from airflow.utils.session import create_session

from include import lake, objects
from include.datasets import golden, manifests, newcomers
from include.datasets.intake import FileAccount, Intake, Plan, Source
from include.markdown import plain
from include.orchestration import (
    decisions,
    establishing,
    golden_rows,
    listening,
    promotion_steps,
    readmit,
    reconciling,
    settling,
    sweeping,
)
from include.orchestration.batches import PIPELINE
from include.orchestration.intake_steps import pinned_plan
from include.orchestration.rollback import roll_back
from include.registry import ledger, models, versions
from include.registry.approvals import AlreadyAnswered, NotConvinced, NothingAwaits, Superseded
from include.registry.models import CHAMPION
from include.settings import settings
from include.uploads import claims, lifecycle, open_batches
from include.uploads.lifecycle import State
from include.uploads.rounds import Pipeline
from tests.dags.road import ADA, NUMBERS, Road, note

pytest_plugins = ["tests.unit.registry_services", "tests.dags.road"]

OVER = Pipeline(hears=False, will_come=False, busy=False, is_over=lambda run_id: True)


@pytest.fixture
def storage(in_folder: dict[str, str]) -> dict[str, str]:
    return in_folder


@pytest.fixture
def road(road: Road, monkeypatch: pytest.MonkeyPatch) -> Road:
    """With a person who decides."""
    monkeypatch.setenv("BERT_PROMOTION", "manual")
    monkeypatch.delenv("BERT_GOLDEN_MIN_ROWS")
    settings.cache_clear()
    return road


def test_a_challenger_that_passes_waits_for_a_person_and_its_run_holds_nothing(road: Road) -> None:
    run_id = road.run()
    assert (road.outcome(run_id), road.states(run_id)) == ("awaiting_approval", ["awaiting approval"])
    assert road.champion() is None
    assert road.ledger() == [("await", "1", f"dag:{PIPELINE}")]
    (source,) = pinned_plan(run_id).sources
    assert source.batch_id not in {batch.batch_id for batch in claims.waiting_batches()}
    how = (
        f"version 1 waits for a person: make approve RUN='{plain(run_id)}' NAME=… REASON=…, or make reject, or the DAG "
    )
    assert note(run_id).startswith(f"**awaiting approval** — {how}decide_challenger. ")
    assert "golden rows are right" in note(run_id)
    for words in ('<div class="verdict">Awaiting approval</div>', "a person decides"):
        assert words in road.page(run_id)
    assert "**awaiting approval**" in objects.read_bytes(lake.model(road.registry.name, "1", "README.md")).decode()
    assert "waits for a person" in listening._note(open_batches.lives(), [], OVER, open_batches.damaged())
    assert road.repeat() == {"version": "1", "outcome": "awaiting_approval"}
    assert len(road.ledger()) == 1


def test_what_the_gates_reject_is_rejected_as_ever(road: Road) -> None:
    road.start()
    rejected = road.run("wrong")
    assert (road.outcome(rejected), road.states(rejected)) == ("rejected", ["set aside"])
    with pytest.raises(NothingAwaits, match=r"does not wait for a person. There wait: none"):
        road.answer("approve", rejected)


def test_who_approves_makes_the_challenger_champion_as_a_promotion_does_and_only_once(road: Road) -> None:
    run_id = road.run()
    assert road.golden().established.empty
    with pytest.raises(AirflowFailException, match=r"which challenger.*there wait: version 1 of run manual"):
        carry_out("decide_challenger", decision="approve")
    told = carry_out("decide_challenger", decision="approve", version="1")
    assert told == f"{road.registry.name} version 1 is the champion now, approved by Ada: looks right"
    assert (road.champion(), road.outcome(run_id), road.states(run_id)) == ("1", "promoted", ["used"])
    assert len(road.golden().established) == len(road.golden().rows) > 0
    assert open_batches.lives() == [] or run_id not in {one.run_id for one in open_batches.lives()}
    assert note(run_id).startswith("**promoted** — version 1: approved by Ada: looks right. ")
    assert '<div class="verdict">Promoted</div>' in road.page(run_id)
    assert "approved by Ada: looks right" in road.page(run_id)
    assert "Promoted: approved by Ada" in objects.read_bytes(lake.model(road.registry.name, "1", "README.md")).decode()
    assert road.ledger()[1:] == [("promote", "1", "person:Ada")]
    entry = ledger.last_move(road.registry.engine, road.registry.name)
    assert entry
    assert (entry.reason, entry.dag_run_id) == ("looks right", run_id)
    assert entry.facts["by"].startswith("dag:decide_challenger manual__")
    again = road.answer("approve", run_id, name="Bob")
    assert again.startswith(f"nothing to do: {road.registry.name} version 1 was promoted on ")
    assert again.endswith(" by Ada: looks right")
    with pytest.raises(AlreadyAnswered, match=r"version 1 was promoted before.*looks right.*make rollback"):
        road.answer("reject", run_id)
    assert road.repeat() == {"version": "1", "outcome": "promoted"}, "its tasks are cleared"
    assert len(road.ledger()) == 2
    assert road.outcome(run_id) == "promoted"


def test_who_rejects_sets_the_rows_aside_and_nothing_is_built_on_them(road: Road) -> None:
    first = road.run()
    sweeping._sweep_staging(timedelta(0))
    assert objects.exists(lake.staging(first, "plan.json")), "a decision needs it"
    told = decisions.carry_out(road.registry.name, "reject", version="1", name="Ada", reason="the labels are odd.")
    assert "version 1 is rejected by Ada: the labels are odd. Its rows are set aside; make readmit" in told
    assert (road.outcome(first), road.states(first), road.champion()) == ("rejected", ["set aside"], None)
    sweeping._sweep_staging(timedelta(0))
    assert not objects.exists(lake.staging(first, "plan.json"))
    assert road.answer("reject", first).startswith("nothing to do")
    with pytest.raises(AlreadyAnswered, match=r"version 1 was rejected before.*make readmit RUN="):
        road.answer("approve", first)
    assert versions.parent_dataset_id(road.registry.name, road.registry.engine) is None
    assert "taken back" in readmit.readmit(road.registry.name, first, actor="Ada")
    assert road.states(first) == ["released"]


def test_of_several_that_wait_one_becomes_champion_and_the_rows_of_the_others_join_the_next_run(road: Road) -> None:
    road.start()
    second, third = road.run(), road.run()
    told = road.answer("approve", third)
    assert "version 3 is the champion now" in told
    assert "version 2, which waited for a person, was built on" in told
    assert "it is superseded, and its rows join the next run" in told
    assert (road.outcome(second), road.states(second)) == ("superseded", ["released"])
    assert "version 3 is the champion now, trained on dataset" in note(second)
    with pytest.raises(AlreadyAnswered, match=r"version 2 was superseded before.*the next run"):
        road.answer("approve", second)
    assert [verb for verb, _, _ in road.ledger()] == ["promote", "await", "await", "promote", "supersede"]


def test_a_challenger_that_was_built_on_what_is_not_the_champions_any_more_is_not_promoted(road: Road) -> None:
    road.start(), road.start()
    waits = road.run()
    road.registry.rollback()
    with pytest.raises(Superseded, match=r"version 1 is the champion now.*rows join the next run"):
        road.answer("approve", waits)
    assert (road.champion(), road.states(waits)) == ("1", ["released"])


def test_a_run_that_begins_finds_what_waits_in_vain_and_tells_of_it(road: Road) -> None:
    road.start(), road.start()
    waits = road.run()
    models.point(road.registry.name, CHAMPION, "1")
    by_hand, superseded = reconciling.reconcile(road.registry.name)
    assert "by hand" in by_hand
    assert "version 3, which waited for a person" in superseded
    assert (road.states(waits), reconciling.reconcile(road.registry.name)) == (["released"], [])


def test_rows_that_come_again_while_a_first_model_waits_with_them_judge_whichever_is_approved(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = road.run()
    mine = len(road.golden().rows)
    monkeypatch.setattr(road, "rows", itertools.count())  # the same texts again, and more
    longer = road.run(count=70)
    assert len(road.golden().rows) > mine
    road.answer("approve", waits)
    assert (road.outcome(waits), road.outcome(longer), len(road.golden().established)) == (
        "promoted",
        "superseded",
        mine,
    )


@pytest.mark.parametrize("how", ["rollback", "by hand"])
def test_a_version_that_waits_and_is_made_champion_otherwise_has_its_upload_set_aside_when_it_is_left(
    road: Road, how: str
) -> None:
    def go_to(version: str) -> None:
        if how == "rollback":
            roll_back(road.registry.name, actor="x", reason="try it", to_version=version, force=True)
        else:
            models.point(road.registry.name, CHAMPION, version)
            reconciling.reconcile(road.registry.name)

    road.start()
    waits = road.run()
    go_to("2")
    assert (road.outcome(waits), road.states(waits)) == ("promoted", ["used"])
    go_to("1")
    assert (road.champion(), road.states(waits)) == ("1", ["set aside"])
    without = road.run(count=0)
    go_to("3")
    assert (road.outcome(without), road.states(without)) == ("promoted", []), "it had no upload that would show it"
    assert note(without).startswith("**promoted**")


def test_a_run_without_an_upload_that_died_when_its_challenger_began_to_wait_is_ended_by_the_next(road: Road) -> None:
    road.start()
    run_id = road.run(count=0)
    objects.delete(lake.report(PIPELINE, run_id, "run.json"))
    reconciling.end_unsaid_waits(road.registry.name, OVER)
    assert road.outcome(run_id) == "awaiting_approval"


def test_if_the_champion_has_changed_the_challenger_is_compared_anew_and_a_gate_that_fails_stops_it(road: Road) -> None:
    road.start("cards")
    waits = road.run("cards")
    dataset_id = str(versions.parent_dataset_id(road.registry.name, road.registry.engine))
    road.promote(road.train({"dataset_uri": lake.dataset(dataset_id)}, "right"), dataset_id, None)  # other parameters
    with pytest.raises(NotConvinced, match=r"and now: .*shown worse.*still waits.*FORCE=1.*report.html"):
        road.answer("approve", waits)
    assert (road.champion(), road.outcome(waits), road.states(waits)) == (
        "3",
        "awaiting_approval",
        ["awaiting approval"],
    )
    assert "It was compared anew" in road.answer("approve", waits, force=True)
    entry = ledger.last_move(road.registry.engine, road.registry.name)
    assert entry
    assert (road.champion(), entry.version, "non_inferiority" in entry.facts["forced"]) == ("2", "2", True)


def test_golden_rows_that_a_person_establishes_judge_at_once_and_for_ever(road: Road) -> None:
    road.start()
    waits = road.run()
    before = len(road.golden().established)
    told = establishing.establish(road.registry.name, waits, **ADA)
    assert f"golden rows of the run {waits} judge from now on (" in told
    assert told.endswith("established by Ada, looks right")
    assert len(road.golden().established) == len(road.golden().rows) > before
    assert establishing.establish(road.registry.name, waits, **ADA).startswith(
        "nothing to do: they were established on"
    )
    assert road.ledger()[-1] == ("establish", "1", "person:Ada")
    assert "It was compared anew" in road.answer("approve", waits), "by more rows"
    road.registry.rollback()
    golden.follow(road.registry.name, manifests.ancestry(versions.parent_dataset_id(road.registry.name)), "rolled back")
    assert len(road.golden().established) == len(road.golden().rows)
    with pytest.raises(establishing.NothingToEstablish, match="no such run"):
        establishing.establish(road.registry.name, "another", **ADA)


def test_whatever_is_cut_off_is_finished_by_the_next_run_or_by_repeating_the_answer(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off(module: Any, call: Callable[[], Any]) -> None:
        def kill(*_: Any) -> None:
            raise KeyboardInterrupt("killed")

        with monkeypatch.context() as patch:
            patch.setattr(module, "_conclude", kill)
            with pytest.raises(KeyboardInterrupt):
                call()

    for finish in ("the next run", "the person"):
        cut_off(promotion_steps, road.run)
        run_id = road.last[0].run_id
        kept = objects.write_bytes(lake.waiting(road.registry.name, f"{finish}.arrow"), b"rows that joined it")
        staged = lake.staging(run_id, "intake.json")
        objects.write_json(staged, objects.read_json(staged) | {"newcomers": [kept]})
        reconciling.release_abandoned(OVER)
        assert len(settling.awaiting(run_id)) == 1, "its run died after it was entered that its challenger waits"
        assert (road.outcome(run_id), objects.exists(kept)) == ("awaiting_approval", False), "no other run takes them"
        assert "make approve" in note(run_id)
        cut_off(decisions, lambda: road.answer("approve", run_id))  # noqa: B023 - called at once
        assert len(settling.awaiting(run_id)) == 1
        if finish == "the next run":
            reconciling.reconcile(road.registry.name)
        else:
            assert road.answer("approve", run_id).startswith("nothing to do")
        assert (road.states(run_id), road.outcome(run_id)) == (["used"], "promoted")


def test_rows_of_new_labels_of_a_run_that_died_after_its_promotion_wait_on(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*_: Any) -> None:
        raise KeyboardInterrupt("killed")

    monkeypatch.setenv("BERT_PROMOTION", "automatic")
    settings.cache_clear()
    run_id = road.run(until="dataset")
    objects.write_bytes(lake.staging(run_id, "waits/0.arrow"), b"rows of a new label")
    dataset_uri = lake.dataset(objects.read_json(lake.staging(run_id, "dataset.json"))["dataset_id"])
    with monkeypatch.context() as patch:
        patch.setattr(promotion_steps, "_conclude", kill)
        with pytest.raises(KeyboardInterrupt):
            road.decide(run_id, {}, road.train({"dataset_uri": dataset_uri}, "right"))
    reconciling.release_abandoned(OVER)
    assert (road.champion(), road.outcome(run_id), road.states(run_id)) == ("1", "promoted", ["used"])
    assert "its run died before it could say so" in note(run_id)
    kept = lake.waiting(road.registry.name, f"{lake.slug(run_id)}-0.arrow")
    assert objects.read_bytes(kept) == b"rows of a new label"


@pytest.mark.parametrize("taken", [False, True], ids=["released", "taken by another run"])
def test_a_decision_that_alone_is_repeated_takes_its_released_upload_again_unless_another_run_has_it(
    road: Road, monkeypatch: pytest.MonkeyPatch, taken: bool
) -> None:
    monkeypatch.setenv("BERT_PROMOTION", "automatic")
    settings.cache_clear()
    run_id = road.run(until="dataset")
    dataset_uri = lake.dataset(objects.read_json(lake.staging(run_id, "dataset.json"))["dataset_id"])
    run = SimpleNamespace(dag_id=PIPELINE, run_id=run_id, conf=None, run_type="dataset_triggered")
    evaluated = promotion_steps.evaluate_challenger(run, road.train({"dataset_uri": dataset_uri}, "right"))
    (source,) = pinned_plan(run_id).sources
    reconciling.release_abandoned(OVER)  # the run has failed after its evaluation
    assert lifecycle.read(source.batch_id).state is State.RELEASED
    if taken:
        assert claims.take(source.batch_id, "another")
        with pytest.raises(AirflowFailException, match=r"is taken by run another now.*Its rows are not lost"):
            promotion_steps.decide_on_challenger(run, evaluated)
        assert road.champion() is None
    else:
        assert promotion_steps.decide_on_challenger(run, evaluated) == {"version": "1", "outcome": "promoted"}
        assert road.states(run_id) == ["used"]


def test_of_two_who_answer_at_once_one_is_heard(road: Road) -> None:
    run_id = road.run()

    def attempt(decision: str) -> str:
        try:
            return road.answer(decision, run_id)
        except AlreadyAnswered as error:
            return str(error)

    with ThreadPoolExecutor(2) as threads:
        approved, rejected = threads.map(attempt, ["approve", "reject"])
    assert ("is the champion now" in approved) != ("is rejected by Ada" in rejected)
    assert (road.champion() == "1") == ("is the champion now" in approved)
    assert [verb for verb, _, _ in road.ledger()][1:] == ["promote" if road.champion() else "reject"]


@pytest.mark.parametrize(
    ("setting", "conf", "promotion"),
    [
        ("automatic", None, "automatic"),
        ("automatic", {"promotion": "manual"}, "manual"),
        ("manual", {}, "manual"),
        ("manual", {"promotion": "automatic"}, "manual"),
    ],
)
def test_a_run_may_be_stricter_than_the_deployment(
    monkeypatch: pytest.MonkeyPatch, setting: str, conf: dict[str, str] | None, promotion: str
) -> None:
    monkeypatch.setenv("BERT_PROMOTION", setting)
    settings.cache_clear()
    assert promotion_steps._promotion(SimpleNamespace(conf=conf)) == promotion


def test_rows_that_had_waited_for_more_of_their_label_wait_with_the_challenger(road: Road) -> None:
    kept = objects.write_bytes(lake.waiting(road.registry.name, "f.arrow"), b"rows")
    run_id = road.run(until="dataset")
    plan = Plan.model_validate_json(objects.read_bytes(lake.staging(run_id, "plan.json")))
    intake = Intake.model_validate(objects.read_json(lake.staging(run_id, "intake.json")))
    intake.newcomers = [kept]
    settling.settle(plan, intake, State.AWAITING, lifecycle.Because.NONE, "waits")
    assert not objects.exists(kept), "no other run takes them"
    settling.settle_awaiting(plan, intake, State.RELEASED, lifecycle.Because.SUPERSEDED, "superseded")
    assert objects.exists(kept)


def test_rows_that_had_waited_and_joined_can_be_taken_back_with_their_run_once_a_rollback_has_left_it(
    road: Road,
) -> None:
    kept, still = (
        objects.write_bytes(lake.waiting(road.registry.name, name), b"rows") for name in ("f.arrow", "g.arrow")
    )
    run_id = road.run(until="dataset")
    plan = Plan.model_validate_json(objects.read_bytes(lake.staging(run_id, "plan.json")))
    plan = plan.model_copy(update={"newcomers": [Source(batch_id="b", key=uri, uri=uri) for uri in (kept, still)]})
    intake = Intake.model_validate(objects.read_json(lake.staging(run_id, "intake.json")))
    intake.newcomers = [kept]
    objects.write_bytes(lake.staging(run_id, "waits/1.arrow"), b"those of g that wait on")
    for _ in range(2):
        settling.settle(plan, intake, State.USED, lifecycle.Because.NONE, "promoted")
        assert not objects.exists(kept)
        assert not objects.exists(still)
    objects.write_json(lake.report(PIPELINE, run_id, "run.json"), {"batches": settling.batch_ids(plan)})
    assert settling.readmit(run_id, "it is the champion's") == []
    assert sweeping._sweep_set_aside(timedelta(days=1)) == 0
    assert not objects.exists(kept)
    settling.set_aside([run_id], "rolled back")
    settling.restore([run_id], "and forward again")
    settling.set_aside([run_id], "rolled back")
    assert settling.readmit(run_id, "it was right") == settling.batch_ids(plan)
    assert objects.exists(kept)
    wait_on = lake.waiting(road.registry.name, f"{lake.slug(run_id)}-1.arrow")
    assert objects.read_bytes(wait_on) == b"those of g that wait on"
    newcomers.set_aside(road.registry.name, run_id, [kept])
    assert sweeping._sweep_set_aside(timedelta(0)) == 1, "after as long as the files of uploads"


def test_corrections_that_wait_are_approved_by_name_and_the_ledger_keeps_it(road: Road) -> None:
    run_id = f"manual__{next(NUMBERS)}"
    batch_id = road.upload(run_id)
    objects.write_json(lake.report(PIPELINE, run_id, "run.json"), {"batches": [batch_id]})
    assert lifecycle.move(batch_id, State.SET_ASIDE, lifecycle.Who.RUN)
    told = carry_out("decide_upload", decision="approve_corrections", run_id=run_id)
    assert told == f"taken back: {batch_id}"
    assert objects.read_json(lake.claims(batch_id, "approved.json"))["reason"] == "approved by Ada: looks right"
    assert road.ledger() == [("approve_corrections", "", "person:Ada")]
    rows = FileAccount(key="b.csv", batch_id="b2", rows_in=8, used=0, rejected=0, waits_for=["waiting_for_approval"])
    objects.write_json(lake.report(PIPELINE, "r3", "run.json"), {"batches": [], "files": [rows.model_dump()]})
    assert carry_out("decide_upload", decision="approve_corrections", run_id="r3") == "taken back: b2"
    assert golden_rows.is_approved("b2"), "rows of an earlier upload that had waited"
    with pytest.raises(AirflowFailException, match="nothing of run another is set aside"):
        carry_out("decide_upload", decision="readmit", run_id="another")


def carry_out(dag_id: str, **params: Any) -> str:
    """What the task of a DAG returns, with what its run's note says."""
    from airflow.models import DagBag

    dag = DagBag(Path(__file__).parents[2] / "dags" / f"{dag_id}.py", include_examples=False).dags[dag_id]
    at = datetime.now(UTC)
    with create_session() as session:
        run = dag.create_dagrun(
            run_id=f"manual__{next(NUMBERS)}", state="running", execution_date=at, data_interval=(at, at),
            session=session, conf=params | ADA,
        )  # fmt: skip
        run_id = run.run_id
    filled = {name: params.get(name, param.value) for name, param in dag.params.items()} | ADA
    told = dag.get_task("carry_out").python_callable(
        dag_run=SimpleNamespace(dag_id=dag_id, run_id=run_id), params=filled
    )
    return str(told)
