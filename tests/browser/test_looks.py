"""How each page looks, in all its states: axe, narrow and wide, light and dark. Without a stack: nothing runs here."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from airflow import DAG
from airflow.models import DagRun, TaskInstance
from airflow.operators.empty import EmptyOperator
from airflow.utils.session import create_session
from axe_playwright_python.sync_playwright import Axe
from mlflow import MlflowClient
from playwright.sync_api import Page, expect
from sqlalchemy.engine import Engine
from werkzeug.serving import make_server

from include import lake, objects
from include.monitoring import checks, domain, results
from include.orchestration import batches
from include.settings import settings
from include.training.job import Hyperparameters, Job
from include.uploads import drafts
from include.uploads.lifecycle import State
from plugins.console.access import PIPELINE
from plugins.console.runs import STEPS
from tests.dags.console_app import GATES, REJECTED, SCRIPT, Visitor, answered, batch, enter, reject, unfinished
from tests.scenarios.story import wait

pytest_plugins = ["tests.unit.registry_services", "tests.dags.console_app"]

Visit = Callable[..., Page]
Picture = Callable[[Page, str], None]
RUN_ID = "manual__2026-11-20T08:00:00+00:00"


@pytest.fixture
def storage(request: pytest.FixtureRequest) -> Any:
    """A folder, but for what only S3 has: addresses that a browser may write to."""
    return request.getfixturevalue("in_s3" if "large_file" in request.node.name else "in_folder")


@pytest.fixture(scope="session")
def address(site: Any) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, site, threaded=True)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture
def visit(address: str, open_pages: Callable[[str], Visit]) -> Visit:
    return open_pages(address)


@pytest.fixture
def pages(console: dict[str, Visitor], model: str, engine: Engine, tmp_path: Path) -> dict[str, str]:
    """Addresses of pages with something on them, some of which would like to be a script."""
    return furnish(model, engine, tmp_path, SCRIPT)


WRONG = [("card_lost", 0.93), ("refund", 0.81), ("card_lost", 0.64), ("refund", 0.58)]
RIGHT = [("card", 0.97), ("card", 0.88), ("refund", 0.71), ("refund", 0.69)]
TEXTS = [
    "the machine kept my card, who can open it", "money back for the second order, please",
    "I was charged twice for one parcel", "where do I see what I paid last week",
]  # fmt: skip


def furnish(model: str, engine: Engine, folder: Path, odd: str) -> dict[str, str]:
    """A model with a past, uploads and what was watched; a label, a file and reasons have an odd word in them.

    Returns the addresses of the pages.
    """
    counts = {"card": 320, "refund": 180, odd: 12}
    manifest = {"rows": {"train": 460, "validation": 52}, "label_counts": counts, "sources": ["incoming/week-46.csv"]}
    objects.write_json(lake.dataset("d1", "manifest.json"), manifest)
    gates = [GATES[0] | {"explanation": f"93.0 % of the golden rows are right {odd}"}, GATES[1]]
    known: dict[str, Any] = {"gates": gates, "reason": f"93.0 % of the golden rows are right; {odd}"}
    since = datetime.now(UTC) - timedelta(days=40)
    for version in ("1", "2"):
        before = None if version == "1" else "1"
        enter(engine, model, "promote", version, before, dataset_id="d1", decided_at=since, **known)
    enter(engine, model, "reject", "3", "2", **known)
    enter(engine, model, "await", "4", "2", dag_run_id=RUN_ID, **known)
    for version, answers in (("1", WRONG), ("2", RIGHT[:2] + WRONG[2:])):
        answered(f"run-{version}-promote", answers, folder, odd=odd)
        objects.write_bytes(lake.model(model, version, "model.safetensors"), b"weights")
    _watched(model, engine, odd)
    states = [None, State.SET_ASIDE, State.SET_ASIDE]
    reason = f"version 3 was shown worse: {odd} is recalled less"
    batch_ids = [
        batch(model, f"2026112{at}T080000", state, RUN_ID, file=f"week-4{at} {odd}.csv", reason=reason)
        for at, state in enumerate(states)
    ]
    batches._write(engine, batch_ids)
    rejected = [row | {"text": row["text"] and f"a text with {odd}", "reason": row["reason"]} for row in REJECTED]
    reject(batch_ids[1], rejected, folder)
    (folder / "a.csv").write_text("text,label\na,b\n")
    looked_at, waits = (drafts.keep_file(folder / "a.csv", "my data.csv", "trainer") for _ in range(2))
    seen = drafts.Preview(
        outcome="trains", rows_in=250, used=240, rejected=8, waiting=2, new=200, corrected=4, known=6, contradicting=2,
        by_rule={"text_empty": 6, "label_unknown": 2}, examples=rejected, new_labels=["parcel"], at=datetime.now(UTC),
        warnings=["8 of 250 rows were rejected, 6 of them as text_empty"], beside=["incoming/earlier.csv"],
        balance=[drafts.Share(label=name, before=count, added=7, after=count + 7) for name, count in counts.items()],
    )  # fmt: skip
    drafts.write_preview(looked_at.draft_id, seen)
    objects.write_bytes(lake.draft(looked_at.draft_id, "rejected.csv"), b"file,row\n")
    _run(batch_ids[1])
    return {
        "model": "/console/",
        "version": "/console/versions/2",
        "compare": "/console/versions/?old=1&new=2",
        "train": "/console/train/",
        "preview": f"/console/train/drafts/{looked_at.draft_id}",
        "looking": f"/console/train/drafts/{waits.draft_id}",
        "decision": f"/console/train/run?run_id={RUN_ID.replace('+', '%2B')}",
        "data": "/console/data/",
        "upload": f"/console/data/batches/{batch_ids[1]}",
        "mend": f"/console/data/batches/{batch_ids[1]}/mend",
        "labels": "/console/labels/",
        "next": "/console/labels/next",
        "watch": "/console/watch/",
        "access": "/console/access/",
        "refused": "/console/data/batches/none",
    }


def _watched(model: str, engine: Engine, odd: str) -> None:
    """A month of checks, a drift at its end, and texts that are worth labelling."""
    today = datetime.now(UTC).date()
    for ago in range(30):
        drifts = ago < 3
        score = {"value": 1.3 if drifts else 0.1 + ago % 5 / 20, "threshold": 1.0}
        checks_of_day = {
            "drift.score": score
            | {"verdict": "failed" if drifts else "passed", "told": f"more of {odd}" if drifts else ""},
            "accuracy.live": {"value": 0.9 - drifts / 20, "threshold": 0.87, "verdict": "passed", "told": ""},
            "accuracy.live_low": {"value": 0.85 - drifts / 20, "threshold": None, "verdict": "passed", "told": ""},
            "accuracy.live_high": {"value": 0.94 - drifts / 20, "threshold": None, "verdict": "passed", "told": ""},
            "accuracy.estimated": {"value": 0.91 - drifts / 25, "threshold": 0.87, "verdict": "passed", "told": ""},
            "accuracy.estimated_error": {"value": 0.012, "threshold": 0.02, "verdict": "passed", "told": ""},
            "uploads.rejected": {"value": ago % 4 / 40, "threshold": 0.2, "verdict": "passed", "told": ""},
            "predictions.unknown_tokens": {"value": 0.01, "threshold": 0.02, "verdict": "passed", "told": ""},
        }
        found = [checks.Check(name=name, **one) for name, one in checks_of_day.items()]
        results.enter(engine, model, today - timedelta(days=ago), found)
    reason = "the traffic of the last 3 days has drifted, and there is nothing to learn from: label the texts"
    facts = {"decision": "label", "day": f"{today}"}
    enter(engine, model, "drift_decision", "2", dag_run_id="drift", gates=[], reason=reason, facts=facts)
    rows = [
        {
            "id": f"20261120-{at}",
            "text": f"{text} {odd if at == 0 else ''}".strip(),
            "label": "refund",
            "probability": 0.4,
        }
        for at, text in enumerate(TEXTS)
    ]
    objects.write_bytes(lake.monitoring(model, f"to_label/{today}.csv"), domain.as_csv(rows))


def _run(batch_id: str) -> None:
    """A run that has ended, and how."""
    at = datetime(2026, 11, 20, 8, tzinfo=UTC)
    with create_session() as session:
        session.query(TaskInstance).filter_by(dag_id=PIPELINE, run_id=RUN_ID).delete()
        session.query(DagRun).filter_by(dag_id=PIPELINE, run_id=RUN_ID).delete()
        run = DagRun(PIPELINE, RUN_ID, execution_date=at, run_type="manual", data_interval=(at, at), state="success")
        run.start_date = run.end_date = at
        session.add(run)
        with DAG(PIPELINE, start_date=at):
            steps = [TaskInstance(EmptyOperator(task_id=name), run_id=RUN_ID, state="success") for name in STEPS]
        for number, step in enumerate(steps):
            step.start_date, step.end_date = (at + timedelta(seconds=20 * (number + more)) for more in (0, 1))
        session.add_all(steps)
    file = {
        "key": "incoming/week-46.csv",
        "batch_id": batch_id,
        "rows_in": 250,
        "used": 240,
        "rejected": 8,
        "waiting": 2,
    }
    report = {
        "outcome": "rejected", "reason": "version 3: refund is recalled less", "links": {"report": "http://localhost/r"},
        "golden": {"rows": 400, "accuracy": 0.91}, "files": [file | {"by_rule": {"text_empty": 8}, "reason": ""}],
    }  # fmt: skip
    objects.write_json(lake.report(PIPELINE, RUN_ID, "run.json"), report)


def _epochs(mlflow: str) -> None:
    """How the run's training went."""
    client = MlflowClient(mlflow)
    tracked = client.create_run(client.create_experiment("jobs")).info.run_id
    for epoch in range(1, 5):
        scores = {
            "epoch": epoch, "epoch_train_loss": 1.9 / epoch**1.3, "validation_loss": 1.7 / epoch + 0.1,
            "validation_macro_f1": 0.92 - 0.4 / epoch**2, "validation_accuracy": 0.93 - 0.35 / epoch**2,
        }  # fmt: skip
        for name, value in scores.items():
            client.log_metric(tracked, name, value, step=100 * epoch)
    where = {"mlflow_tracking_uri": mlflow, "mlflow_experiment": "jobs", "dataset_uri": "s3://bert/datasets/d1/"}
    chosen = Hyperparameters(epochs=4, learning_rate=2e-4, batch_size=32, max_length=128, seed=1)
    job = Job(model_name="bert-classifier", base_model="bert", hyperparameters=chosen, **where)
    objects.write_json(lake.staging(RUN_ID, "train_model.job.json"), job.model_dump(mode="json"))
    objects.write_json(lake.job(job.job_id, "mlflow_run.json"), {"run_id": tracked})


def ready(page: Page, name: str) -> None:
    """Waits for what other processes read."""
    awaited = {
        "mend": "#rows tr",
        "compare": "#difference",
        "labels": "#waiting:not(:has([aria-busy]))",
        "next": "#choices > *",
        "decision": "#steps li",
    }
    if name in awaited:
        expect(page.locator(awaited[name]).first).to_be_visible()


PICTURES = {"model": ("narrow", "dark"), "preview": ("narrow",), "mend": ("narrow",), "next": ("narrow",)}
"""The pages of which docs/console.md shows more than a wide, light picture."""

UNSEEN = ("looking", "refused")
"""Pages that wait or refuse: docs/console.md has no pictures of them."""


def test_pictures_are_taken_of_each_page(
    console: dict[str, Visitor],
    model: str,
    engine: Engine,
    tmp_path: Path,
    visit: Visit,
    picture: Picture,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With data, and a model's name, as people have it."""
    if not request.config.getoption("--screenshots"):
        pytest.skip("pictures are taken by make screenshots")
    mlflow = request.getfixturevalue("mlflow_server").uri
    real = {"BERT_CONSOLE_SERVING_URL": "http://localhost:8001", "BERT_MODEL_NAME": "bert-classifier", "MLFLOW_TRACKING_URI": mlflow}  # noqa: E501 # fmt: skip
    for name, value in real.items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    addresses = furnish("bert-classifier", engine, tmp_path, "parcel")
    _epochs(mlflow)
    for how, options in {"wide": {}, "narrow": {"width": "narrow"}, "dark": {"dark": True}}.items():
        page = visit("admin", **options)
        for name, path in addresses.items():
            if (how == "wide" and name not in UNSEEN) or how in PICTURES.get(name, ()):
                page.goto(path)
                ready(page, name)
                if name == "decision":
                    expect(page.locator("#epochs tr")).to_have_count(4)
                picture(page, f"{name}-{how}")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", ["wide", "narrow"])
def test_each_page_is_fit_for_a_screen_reader_and_a_telephone(
    pages: dict[str, str], visit: Visit, width: str, dark: bool
) -> None:
    """axe finds nothing serious, and nothing sticks out."""
    page = visit("admin", width=width, dark=dark)
    for name, path in pages.items():
        page.goto(path)
        ready(page, name)
        found: Any = Axe().run(page).response["violations"]
        grave = [one for one in found if one["impact"] in ("serious", "critical")]
        own = [(one["id"], node["html"]) for one in grave for node in one["nodes"] if not airflows(node)]
        assert not own, f"{path}: {own}"
        sideways = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert sideways <= 0, f"{path} is {sideways} pixels too wide"


def airflows(node: Any) -> bool:
    """Whether it is Airflow's own navigation that axe finds fault with."""
    where = f"{node['target']} {node['html']}"
    return any(name in where for name in ("navbar", "timezone", "themeToggle"))


def test_empty_pages_are_fit_too(console: dict[str, Visitor], model: str, visit: Visit) -> None:
    page = visit("viewer")
    for path in ("/console/", "/console/train/", "/console/data/", "/console/watch/"):
        page.goto(path)
        found: Any = Axe().run(page, context="#console").response["violations"]
        assert not [one["id"] for one in found if one["impact"] in ("serious", "critical")], path


def test_moments_are_in_the_viewers_zone_and_the_keyboard_comes_to_the_content_first(
    pages: dict[str, str], visit: Visit
) -> None:
    page = visit("viewer", pages["decision"])
    assert "9:00" in page.locator("main time.moment").first.inner_text(), "8 o'clock UTC is 9 in Vienna"
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#console")).to_be_focused()


def test_texts_of_users_stay_texts(pages: dict[str, str], visit: Visit) -> None:
    page = visit("admin")
    page.on("dialog", lambda dialog: pytest.fail(f"a script of a user ran: {dialog.message}"))
    for path in pages.values():
        page.goto(path)
        page.wait_for_load_state("networkidle")
    page.goto(pages["mend"])
    expect(page.locator("textarea").last).to_have_value(f"a text with {SCRIPT}")


def test_texts_are_labelled_with_the_keyboard_alone(pages: dict[str, str], visit: Visit) -> None:
    page = visit("trainer", pages["next"])
    ready(page, "next")
    expect(page.locator("#choices")).to_be_focused()
    expect(page.locator("#choices [aria-selected=true]")).to_contain_text(
        "refund"
    )  # what the champion answers is first
    page.keyboard.press("2")
    expect(page.locator("#text")).to_have_text(TEXTS[1])
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator("#done")).to_have_text("2 labelled")
    page.keyboard.press("u")
    expect(page.locator("#done")).to_have_text("1 labelled")
    expect(page.locator("#text")).to_have_text(TEXTS[1])
    page.keyboard.press("/")
    page.keyboard.type("card")
    page.keyboard.press("Enter")
    page.keyboard.press("s")
    expect(page.locator("#at")).to_have_text("Text 4 of 4")
    page.get_by_role("button", name="Send the labelled texts").click()
    page.wait_for_url("**/console/train/drafts/*")
    draft = drafts.read(page.url.rsplit("/", 1)[-1])
    assert draft is not None
    lines = objects.read_bytes(draft.uri).decode().splitlines()
    assert lines == ["text,label", f"{TEXTS[0]} {SCRIPT},card", f"{TEXTS[1]},card"] or lines[2] == f'"{TEXTS[1]}",card'
    assert draft.key.startswith("incoming/feedback/console/")


def test_a_large_file_goes_from_the_browser_into_the_bucket_and_the_console_is_asked_again_if_it_does_not_answer(
    pages: dict[str, str], visit: Visit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BERT_CONSOLE_UPLOAD_MIB", "1")
    content = b"text,label\n" + b"a text,card\n" * 200_000
    (tmp_path / "large.csv").write_bytes(content)
    page = visit("trainer", pages["train"])
    failed: list[str] = []
    page.on("requestfailed", lambda request: failed.append(request.url))
    page.route("**/console/train/uploads/*", lambda route: route.abort("connectionreset"), times=1)
    with page.expect_request(lambda request: request.method == "PUT") as put:
        page.set_input_files("#file", tmp_path / "large.csv")
    page.wait_for_url("**/console/train/drafts/*")
    assert any("/console/train/uploads/" in url for url in failed), "it is asked again"
    draft = drafts.read(page.url.rsplit("/", 1)[-1])
    assert draft is not None
    assert "/drafts/" in put.value.url
    assert (draft.by, objects.read_bytes(draft.uri) == content) == ("trainer", True)


def test_a_large_file_goes_in_parts_of_which_one_is_cut_off_and_leaves_none_where_somebody_leaves(
    pages: dict[str, str], visit: Visit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BERT_CONSOLE_UPLOAD_MIB", "1")
    monkeypatch.setenv("BERT_CONSOLE_PART_MIB", "5")
    content = b"text,label\n" + b"a text,card\n" * 1_000_000
    (tmp_path / "large.csv").write_bytes(content)
    page = visit("trainer", pages["train"])
    page.route("**/*partNumber=2&*", lambda route: route.abort("connectionreset"), times=1)
    page.set_input_files("#file", tmp_path / "large.csv")
    page.wait_for_url("**/console/train/drafts/*")
    draft = drafts.read(page.url.rsplit("/", 1)[-1])
    assert draft is not None
    assert (draft.by, objects.read_bytes(draft.uri) == content) == ("trainer", True)

    page.goto(pages["train"])
    page.route("**/*partNumber=2&*", lambda route: None)  # it takes for ever
    with page.expect_response(lambda answer: "partNumber=1&" in answer.url and answer.ok):
        page.set_input_files("#file", tmp_path / "large.csv")
    expect(page.locator("#sent")).to_have_text("6 of 11 MiB")
    assert len(unfinished()) == 1
    page.on("dialog", lambda dialog: dialog.accept())
    page.goto(pages["data"])
    expect(page.locator("#uploads")).to_be_visible()
    wait(lambda: unfinished() == [], "the parts to be given up")


def test_versions_are_compared_by_the_texts_that_they_answer_differently(pages: dict[str, str], visit: Visit) -> None:
    page = visit("viewer", "/console/versions/")
    page.get_by_label("Before").fill("1")
    page.get_by_label("After").fill("2")
    page.get_by_role("button", name="Compare").click()
    expect(page.locator("#difference")).to_contain_text("Golden rows that both answered: 4.")
    expect(page.locator("#changed")).to_contain_text("where is my card")
