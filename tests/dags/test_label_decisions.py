"""A person admits, merges and withdraws labels: the ledger keeps it, and the next run's plan works by it."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from sqlalchemy.engine import Engine

from include import lake, objects
from include.datasets import golden
from include.datasets.building import build_dataset
from include.datasets.intake import Source, validate_files
from include.orchestration import label_decisions
from include.orchestration.intake_steps import plan_of
from include.orchestration.label_decisions import LabelRefused
from include.registry import label_wishes, ledger
from include.settings import settings
from plugins.console import parquet
from tests.unit.registry_services import as_connection

pytest_plugins = ["tests.unit.registry_services"]

NUMBERS = itertools.count()


@pytest.fixture
def model(services: None, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> str:
    """A model whose champion has learnt three labels."""
    name = f"labels-{next(NUMBERS)}"
    monkeypatch.setenv("BERT_BUCKET", name)
    monkeypatch.setenv("BERT_MODEL_NAME", name)
    settings.cache_clear()
    objects.filesystem("s3://").mkdirs(name, exist_ok=True)
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", as_connection(engine.url))
    labels = ["card"] * 60 + ["cards"] * 30 + ["refund"] * 60
    frame = pd.DataFrame({"text": [f"text {at} about a {one}" for at, one in enumerate(labels)], "label": labels})
    manifest = build_dataset(plan_of("first", [], {}), frame.assign(source="first.csv row 1", extra=""))
    entry = ledger.Entry(
        model_name=name, verb="promote", version="1", previous_champion=None, actor="test", reason="x",
        dataset_id=manifest["dataset_id"], dag_run_id="first",
    )  # fmt: skip
    ledger.append(engine, entry)
    golden.follow(name, [manifest["dataset_id"]], "promoted")
    return name


@pytest.fixture
def say(model: str) -> Callable[..., str]:
    def decide(decision: str, label: str, into: str = "", run_id: str = "") -> str:
        run_id = run_id or f"run-{next(NUMBERS)}"
        return label_decisions.decide_label(
            model, decision, label, into, name="ada", reason="looks right", run_id=run_id
        )  # type: ignore[arg-type]

    return decide


def test_an_admitted_label_joins_with_few_rows_in_the_next_run(
    model: str, say: Callable[..., str], tmp_path: Path
) -> None:
    rows = pd.DataFrame({"text": [f"where is parcel {at}" for at in range(6)], "label": "parcel"})
    uri = objects.write_bytes(lake.incoming("a.csv"), rows.to_csv(index=False).encode())
    source = Source(batch_id="b", key="incoming/a.csv", uri=uri)
    before = validate_files(plan_of("r1", [source], {}))
    assert (before.rows["used"], before.rows["waiting"]) == (0, 6), "a new label waits for twenty rows"
    assert say("admit", " parcel ") == "the label 'parcel' joins with its next 5 good rows, those that wait included"
    plan = plan_of("r2", [source], {})
    assert plan.admitted == ["parcel"]
    assert validate_files(plan).rows["used"] == 6
    assert say("admit", "parcel").startswith("nothing to do")
    say("withdraw", "parcel")
    assert plan_of("r3", [source], {}).admitted == []


def test_a_merge_is_wished_for_by_each_later_run_and_the_ledger_says_who(
    model: str, say: Callable[..., str], engine: Engine
) -> None:
    assert "merged into 'card'" in say("merge", "cards", "card", run_id="r")
    assert (
        say("merge", "cards", "card", run_id="r")
        == "'cards' is merged into 'card' by the next run, and for good once its model is promoted"
    )
    assert say("merge", "cards", "card").startswith("nothing to do")
    assert plan_of("r1", [], {}).label_mapping == {"cards": "card"}
    assert plan_of("r2", [], {"label_mapping": {"refund": "money"}}).label_mapping == {
        "cards": "card",
        "refund": "money",
    }
    (entry,) = ledger.entries(engine, model, verbs=[label_wishes.MERGE])
    assert (entry.actor, entry.reason, entry.version) == ("person:ada", "looks right", "")
    assert (entry.facts["label"], entry.facts["into"], entry.facts["by"]) == ("cards", "card", "dag:decide_labels r")


@pytest.mark.parametrize(
    ("decision", "label", "into", "words"),
    [
        ("merge", "card", "card", "circle"),
        ("merge", "card", " ", "a name is empty"),
        ("admit", " ", "", "say which label"),
    ],
    ids=["itself", "nothing", "blank"],
)
def test_what_makes_no_sense_is_refused(
    say: Callable[..., str], decision: str, label: str, into: str, words: str
) -> None:
    with pytest.raises(LabelRefused, match=words):
        say(decision, label, into)


def test_a_merge_that_leaves_one_label_is_refused(say: Callable[..., str]) -> None:
    say("merge", "cards", "card")
    with pytest.raises(LabelRefused, match="would leave one label"):
        say("merge", "refund", "card")


def test_where_the_settings_keep_labels_out_that_is_said(
    say: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BERT_NEW_LABELS", "reject")
    settings.cache_clear()
    with pytest.raises(LabelRefused, match="BERT_NEW_LABELS=reject"):
        say("admit", "parcel")
    monkeypatch.setenv("BERT_LABELS", "card,refund")
    settings.cache_clear()
    with pytest.raises(LabelRefused, match="add 'parcel' there"):
        say("admit", "parcel")
    with pytest.raises(LabelRefused, match="none of BERT_LABELS"):
        say("merge", "cards", "parcel")


def test_rows_that_wait_are_counted_by_their_label(model: str, tmp_path: Path) -> None:
    import pyarrow as pa

    for name, labels in (("a", ["parcel", "parcel"]), ("b", ["parcel", "letter"]), ("aside/r/c", ["gone"])):
        with pa.ipc.new_file(str(tmp_path / "x"), pa.schema([("label", pa.string())])) as writer:
            writer.write_table(pa.table({"label": labels}))
        objects.upload_file(tmp_path / "x", lake.waiting(model, f"{name}.arrow"))
    assert parquet.waiting_labels(model) == {"parcel": 3, "letter": 1}
