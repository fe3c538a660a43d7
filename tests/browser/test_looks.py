"""How each page looks, in all its states: axe, narrow and wide, light and dark. Without a stack: nothing runs here."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from airflow.models import DagRun, TaskInstance
from airflow.utils.session import create_session
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect
from sqlalchemy.engine import Engine
from werkzeug.serving import make_server

from include import lake
from include.orchestration import batches
from include.uploads import drafts
from include.uploads.lifecycle import State
from plugins.console.access import PIPELINE
from tests.dags.console_app import REJECTED, SCRIPT, Visitor, batch, enter, reject

pytest_plugins = ["tests.unit.registry_services", "tests.dags.console_app"]

Visit = Callable[..., Page]
Picture = Callable[[Page, str], None]
RUN_ID = "manual__2026-11-20T08:00:00+00:00"


@pytest.fixture(scope="session")
def mlflow_uri() -> str:
    return "http://127.0.0.1:9"  # nothing here needs it


@pytest.fixture
def storage(in_folder: dict[str, str]) -> dict[str, str]:
    return in_folder


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
    """Addresses of pages with something on them."""
    counts = {"card_lost": 320, "refund": 180, SCRIPT: 12}
    manifest = {"rows": {"train": 460, "validation": 52}, "label_counts": counts, "sources": ["incoming/week-46.csv"]}
    lake.write_json(lake.dataset("d1", "manifest.json"), manifest)
    for version in ("1", "2"):
        enter(engine, model, "promote", version, None if version == "1" else "1", dataset_id="d1")
    enter(engine, model, "reject", "3", "2")
    enter(engine, model, "await", "4", "2", dag_run_id=RUN_ID)
    batch_ids = [batch(model, f"b{at}", State.SET_ASIDE if at else None, RUN_ID) for at in range(3)]
    batches._write(engine, batch_ids)
    reject(batch_ids[1], REJECTED, tmp_path)
    (tmp_path / "a.csv").write_text("text,label\na,b\n")
    looked_at, waits = (drafts.keep_file(tmp_path / "a.csv", "my data.csv", "trainer") for _ in range(2))
    seen = drafts.Preview(
        outcome="trains", rows_in=250, used=240, rejected=8, waiting=2, new=200, corrected=4, known=6, contradicting=2,
        by_rule={"text_empty": 6, "label_unknown": 2}, examples=REJECTED, new_labels=["parcel"], at=datetime.now(UTC),
        warnings=["8 of 250 rows were rejected, 6 of them as text_empty"], beside=["incoming/earlier.csv"],
        balance=[drafts.Share(label=name, before=count, added=7, after=count + 7) for name, count in counts.items()],
    )  # fmt: skip
    drafts.write_preview(looked_at.draft_id, seen)
    lake.write_bytes(lake.draft(looked_at.draft_id, "rejected.csv"), b"file,row\n")
    _run(batch_ids[1])
    return {
        "model": "/console/",
        "train": "/console/train/",
        "preview": f"/console/train/drafts/{looked_at.draft_id}",
        "looking": f"/console/train/drafts/{waits.draft_id}",
        "decision": f"/console/train/run?run_id={RUN_ID.replace('+', '%2B')}",
        "data": "/console/data/",
        "upload": f"/console/data/batches/{batch_ids[1]}",
        "mend": f"/console/data/batches/{batch_ids[1]}/mend",
        "watch": "/console/watch/",
        "access": "/console/access/",
        "refused": "/console/data/batches/none",
    }


def _run(batch_id: str) -> None:
    """A run that has ended, and how."""
    at = datetime(2026, 11, 20, 8, tzinfo=UTC)
    with create_session() as session:
        session.query(TaskInstance).filter_by(dag_id=PIPELINE, run_id=RUN_ID).delete()
        session.query(DagRun).filter_by(dag_id=PIPELINE, run_id=RUN_ID).delete()
        run = DagRun(PIPELINE, RUN_ID, execution_date=at, run_type="manual", data_interval=(at, at), state="success")
        run.start_date = run.end_date = at
        session.add(run)
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
    lake.write_json(lake.report(PIPELINE, RUN_ID, "run.json"), report)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", ["wide", "narrow"])
def test_each_page_is_fit_for_a_screen_reader_and_a_telephone(
    pages: dict[str, str], visit: Visit, picture: Picture, width: str, dark: bool
) -> None:
    """axe finds nothing serious, and nothing sticks out."""
    page = visit("admin", width=width, dark=dark)
    for name, path in pages.items():
        page.goto(path)
        if name == "mend":
            expect(page.locator("#rows tr")).to_have_count(2, timeout=60_000)  # another process reads them
        picture(page, f"{name}-{width}-{'dark' if dark else 'light'}")
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
    expect(page.locator("textarea").last).to_have_value(SCRIPT, timeout=60_000)
