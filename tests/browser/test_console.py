"""What people do in the console, in a real browser on a real stack."""

import csv
import io
import re
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from playwright.sync_api import Page, expect

from dev.observe import PIPELINE
from tests.scenarios.story import Story, messages, wait

Visit = Callable[..., Page]
MINUTES = 8 * 60_000  # for a training, beside other tests
SCRIPT = "<script>document.title = 'taken over'</script>"


@pytest.fixture
def visit(story: Story, users: None, open_pages: Callable[[str], Visit]) -> Visit:
    return open_pages(story.stack.airflow_url)


def labelled(story: Story, seed: int) -> tuple[bytes, int]:
    """A file with good rows and some to mend; and how many are good."""
    rows = messages(60, seed)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(("text", "label"))
    writer.writerows(rows[["text", "label"]].itertuples(index=False))
    writer.writerows([("", rows["label"][0]), (f"no label here {seed}", ""), (f"a question {SCRIPT} {seed}", SCRIPT)])
    return text.getvalue().encode(), len(rows)


def drop(page: Page, name: str, content: bytes) -> None:
    """Chooses a file, and waits until it was looked at."""
    page.set_input_files("#file", {"name": name, "mimeType": "text/csv", "buffer": content})
    page.wait_for_url("**/console/train/drafts/*")
    expect(page.locator("#outcome")).to_be_visible(timeout=MINUTES)


def number(page: Page, selector: str) -> int:
    return int(page.locator(selector).inner_text().replace(",", ""))


@pytest.mark.timeout(1_800)
def test_a_person_trains_from_a_file_with_bad_rows_and_sees_the_run_to_its_decision(story: Story, visit: Visit) -> None:
    """The pipeline is paused at first, and the button is clicked twice."""
    content, good = labelled(story, 901)
    story.airflow.patch(f"dags/{PIPELINE}", json={"is_paused": True}).raise_for_status()
    page = visit("tina", "/console/train/")
    expect(page.locator("#paused")).to_contain_text(PIPELINE)
    page.get_by_role("button", name="Unpause").click()
    expect(page.locator("#paused")).to_have_count(0)

    drop(page, "from a <person>.csv", content)
    assert number(page, "#rows-in") == good + 3
    used, rejected, waiting = (number(page, f"#rows-{what}") for what in ("used", "rejected", "waiting"))
    assert used + rejected + waiting == good + 3
    assert rejected >= 2
    assert page.title() != "taken over"
    with page.expect_download() as download:
        page.get_by_role("link", name="Download them to mend").click()
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_text("utf-8-sig"))))
    assert len(rows) == rejected

    known = set(story.runs())
    page.get_by_role("button", name="Train", exact=True).dblclick()
    page.wait_for_url("**/console/train/run?*", timeout=MINUTES)
    expect(page.locator("#epochs tr").first).to_be_visible(timeout=MINUTES)
    expect(page.locator("#decision")).to_be_visible(timeout=MINUTES)
    (run_id,) = set(story.runs()) - known
    report = story.report_of(run_id)
    (account,) = (file for file in report["files"] if file["key"].endswith("from a <person>.csv"))
    assert (account["used"], account["rejected"], account["waiting"]) == (used, rejected, waiting)
    outcome = {"promoted": "Promoted", "rejected": "Rejected", "unchanged": "Nothing new"}[report["outcome"]]
    expect(page.locator("#decision")).to_contain_text(outcome)

    page.get_by_role("link", name="from a <person>.csv").click()
    page.get_by_role("link", name="Mend them here").click()
    expect(page.locator("#rows tr")).to_have_count(rejected)
    for line in range(2):
        row = page.locator("#rows tr").nth(line)
        row.get_by_role("textbox").first.fill(f"mended by hand, number {line} of 901")
        row.get_by_role("textbox").last.fill(messages(1, 901)["label"][0])
    page.get_by_role("button", name="Send the changed rows back").click()
    expect(page.locator("#outcome")).to_be_visible(timeout=MINUTES)
    assert (number(page, "#rows-in"), number(page, "#rows-used")) == (2, 2)


@pytest.mark.nightly
@pytest.mark.timeout(1_800)
def test_an_administrator_approves_and_rolls_back_and_a_trainer_may_not(story: Story, visit: Visit) -> None:
    champion = story.champion()
    run_id = story.trigger(promotion="manual", seed=902)
    assert story.report_of(run_id)["outcome"] == "awaiting_approval", story.note(run_id)
    trainer = visit("tina")
    expect(trainer.locator("#waits")).to_contain_text("An administrator approves or rejects it.")
    expect(trainer.get_by_role("button", name="Approve")).to_have_count(0)
    expect(trainer.locator("#roll-back")).to_have_count(0)

    page = visit("ada")
    expect(page.locator("#waits")).to_be_visible()
    page.locator("#waits").get_by_label("Why").fill("looks right")
    page.get_by_role("button", name="Approve").click()
    approved = wait(lambda: story.champion() != champion and story.champion(), "an approved champion")
    page.goto(f"/console/versions/?old={champion}&new={approved}")
    expect(page.locator("#difference")).to_contain_text("Golden rows that both answered")
    page.goto(f"/console/versions/{approved}")
    expect(page.locator("#mistakes")).to_contain_text("golden rows are wrong")
    with page.expect_download() as download:
        page.get_by_role("link", name="config.json", exact=True).click()
    assert "id2label" in download.value.path().read_text()
    page.goto("/console/")
    expect(page.locator(".big").first).to_have_text(f"Version {approved}")
    expect(page.locator("#decisions li").first).to_contain_text("· ada")

    page.locator("#roll-back").get_by_label("Why").fill("worse in use")
    page.locator("#roll-back").get_by_role("combobox").select_option(champion)
    page.get_by_role("button", name="Roll back").click()
    wait(lambda: story.champion() == champion, "the former champion")
    page.goto("/console/")
    first = page.locator("#decisions li").first
    expect(first).to_contain_text("Rolled back to")
    expect(first).to_contain_text("· ada")
    expect(first).to_contain_text("worse in use")


def test_a_sentence_is_answered_by_the_champion(story: Story, visit: Visit) -> None:
    page = visit("vic")
    page.locator("#ask").get_by_label("A text").fill(messages(1, 903)["text"][0])
    page.get_by_role("button", name="Ask").click()
    expect(page.locator("#answer")).to_contain_text(f"Version {story.champion()}")
    expect(page.locator("#answer li").first).to_contain_text("%")


def test_a_token_is_shown_once_and_revoked(story: Story, visit: Visit) -> None:
    page = visit("ada", "/console/access/")
    name = f"shop {datetime.now(UTC):%H%M%S}"
    page.get_by_label("What it is for").fill(name)
    page.get_by_role("button", name="Make a token").click()
    expect(page.locator("#secret")).to_have_text(re.compile("bert_.{40}"))
    page.get_by_role("button", name=f"Revoke {name}").click()
    expect(page.locator("#tokens")).to_contain_text("revoked by ada")
    expect(page.locator("#secret")).to_have_count(0)
