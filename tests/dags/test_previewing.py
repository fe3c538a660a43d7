"""What the console shows of a file before it is uploaded is what the run makes of it afterwards."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow import MlflowClient
from sqlalchemy.engine import Engine

from include import lake, objects
from include.datasets import golden
from include.datasets.building import build_dataset
from include.datasets.intake import Source, validate_files
from include.orchestration import intake_steps, previewing
from include.orchestration.intake_steps import plan_of
from include.registry import ledger, models
from include.registry.ledger import Entry
from include.settings import settings
from include.uploads import claims, drafts
from tests.unit.registry_services import as_connection

pytest_plugins = ["tests.unit.registry_services"]

MODEL = "preview"


@pytest.fixture
def bucket(services: None, engine: Engine, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    name = f"p{abs(hash(request.node.name))}"
    monkeypatch.setenv("BERT_BUCKET", name)
    monkeypatch.setenv("BERT_MODEL_NAME", name)
    monkeypatch.setenv("BERT_UPLOAD_SETTLE_SECONDS", "0")
    settings.cache_clear()
    objects.filesystem("s3://").mkdirs(name, exist_ok=True)
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", as_connection(engine.url))
    return name


def rows(count: int, start: int = 0) -> pd.DataFrame:
    labels = ("card", "refund")
    found = [(f"a text about my {labels[at % 2]}, number {at}", labels[at % 2]) for at in range(start, start + count)]
    return pd.DataFrame(found, columns=["text", "label"])


def keep(folder: Path, frame: pd.DataFrame, name: str = "a.csv") -> drafts.Draft:
    path = folder / "upload"
    frame.to_csv(path, index=False)
    return drafts.keep_file(path, name, "ada")


def later_run(draft: drafts.Draft, run_id: str) -> Any:
    """What the pipeline's intake makes of the draft once it was uploaded and claimed."""
    assert drafts.hand_over(draft, "ada")
    claims.claim_uploads(f"b-{run_id}", sleep=lambda seconds: None)
    sources = [
        Source(batch_id=batch.batch_id, key=file.key, uri=file.uri)
        for batch in claims.waiting_batches()
        for file in batch.files
    ]
    return validate_files(plan_of(run_id, sources, {}))


def train(model: str, frame: pd.DataFrame, engine: Engine) -> None:
    """A champion that has learnt these rows, without any training."""
    plan = plan_of("first", [], {})
    manifest = build_dataset(plan, frame.assign(source="first.csv row 1", extra=""))
    client = MlflowClient(settings().mlflow_tracking_uri)
    client.create_registered_model(model)
    tags = {"dataset_id": manifest["dataset_id"], "ready": "true", "job_id": "j"}
    version = client.create_model_version(model, lake.model(model, "1"), tags=tags).version
    client.set_registered_model_alias(model, models.CHAMPION, version)
    entry = Entry(
        model_name=model, verb="promote", version=str(version), previous_champion=None, actor="test", reason="first",
        dag_run_id="first", dataset_id=manifest["dataset_id"],
    )  # fmt: skip
    ledger.append(engine, entry)
    golden.follow(model, [manifest["dataset_id"]], "promoted")


BAD = [
    ("", "card"),
    ("no label", ""),
    ("a text about my card, number 0", "refund"),
    ("  A text about my CARD, number 2 ", "card"),
]


def test_a_first_file_is_counted_as_the_run_counts_it(bucket: str, tmp_path: Path) -> None:
    frame = pd.concat([rows(240), pd.DataFrame(BAD, columns=["text", "label"])])
    draft = keep(tmp_path, frame)
    seen = previewing.preview("console__1", draft.draft_id)
    assert seen == drafts.preview_of(draft.draft_id)
    assert (seen.outcome, seen.rows_in) == ("trains", 244)
    assert seen.new == seen.used
    assert {row["rule"] for row in seen.examples} == set(seen.by_rule)
    assert objects.read_bytes(lake.draft(draft.draft_id, "rejected.csv")).decode().count("\n") >= seen.rejected
    assert sum(share.added for share in seen.balance) == seen.used
    (account,) = later_run(draft, "manual__1").files
    assert (account.used, account.rejected, account.waiting) == (seen.used, seen.rejected, seen.waiting)
    assert account.by_rule == dict(sorted(seen.by_rule.items()))


def test_too_few_rows_wait_and_what_waits_already_counts(bucket: str, tmp_path: Path) -> None:
    first = keep(tmp_path, rows(120))
    seen = previewing.preview("console__1", first.draft_id)
    assert seen.outcome == "waits"
    assert "the first model needs" in seen.reason
    assert later_run(first, "manual__1").missing
    second = keep(tmp_path, pd.concat([rows(120, 120), rows(10)]))
    seen = previewing.preview("console__2", second.draft_id)
    assert (seen.outcome, seen.used, seen.by_rule) == ("trains", 120, {"duplicate": 10})
    assert seen.beside == [first.key]
    accounts = {file.key: file for file in later_run(second, "manual__2").files}
    assert (accounts[second.key].used, accounts[second.key].rejected) == (120, 10)


def test_beside_a_champion_rows_are_new_known_corrected_or_of_a_new_label(
    bucket: str, tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_steps.golden_rows, "is_approved", lambda name: False)
    train(bucket, rows(400), engine)
    corrected = rows(3, 200).assign(label="refund").iloc[[0, 2]]
    parcels = pd.DataFrame([(f"where is parcel {at}", "parcel") for at in range(25)], columns=["text", "label"])
    draft = keep(tmp_path, pd.concat([rows(50, 400), rows(20), corrected, parcels]))
    seen = previewing.preview("console__1", draft.draft_id)
    assert (seen.new, seen.corrected, seen.known) == (75, 2, 20)
    assert seen.new_labels == ["parcel"]
    balance = {share.label: share for share in seen.balance}
    assert (balance["parcel"].before, balance["parcel"].after) == (0, 25)
    assert (balance["card"].before, balance["card"].added, balance["card"].after) == (200, 25, 223)
    accounts = {file.key: file for file in later_run(draft, "manual__1").files}
    assert (accounts[draft.key].used, accounts[draft.key].rejected) == (seen.used, seen.rejected)


def test_what_cannot_be_read_says_why_and_nothing_else_is_touched(bucket: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    draft = drafts.keep_file(tmp_path / "x", "picture.csv", "ada")
    seen = previewing.preview("console__1", draft.draft_id)
    assert seen.outcome == "unreadable"
    assert seen.reason
    assert not claims.uploads()
    assert not claims.waiting_batches()
    with pytest.raises(previewing.NoDraft):
        previewing.preview("console__2", "20260101T000000-00000000")


def test_files_at_an_address_are_looked_at_together(bucket: str, tmp_path: Path) -> None:
    for name, frame in (("1.csv", rows(150)), ("2.csv", rows(150, 140))):
        objects.write_bytes(f"{lake.root()}/elsewhere/{name}", frame.to_csv(index=False).encode())
    draft = drafts.keep_address(f"{lake.root()}/elsewhere/*.csv", "ada")
    seen = previewing.preview("console__1", draft.draft_id)
    assert (seen.outcome, seen.rows_in, seen.used, seen.by_rule) == ("trains", 300, 290, {"duplicate": 10})
    nowhere = drafts.keep_address(f"{lake.root()}/nowhere/", "ada")
    assert "no file at" in previewing.preview("console__2", nowhere.draft_id).reason


def test_a_draft_whose_copy_was_cut_off_is_copied_by_who_asks_again(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = keep(tmp_path, rows(4))
    copy = drafts._copy
    with monkeypatch.context() as patch:
        patch.setattr(drafts, "_copy", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            drafts.hand_over(draft, "ada")
    assert not drafts.hand_over(draft, "bob")
    assert not claims.uploads(), "whoever was first may still be at it"
    before = drafts.handed_over(draft.draft_id)
    assert before is not None
    aged = before.model_copy(update={"at": datetime.now(UTC) - 2 * drafts.PATIENCE})
    objects.write_json(lake.draft(draft.draft_id, "handed_over.json"), aged.model_dump(mode="json"))
    assert not drafts.hand_over(draft, "bob")
    assert drafts._copy is copy
    assert [one.key for one in claims.uploads()] == [draft.key]
    assert not drafts.hand_over(draft, "bob")
