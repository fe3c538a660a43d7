"""A real browser, at the shared stack's console or at one of the tests' own."""

from tests import airflow_home  # isort: skip  # before Airflow

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from dev.stack import Stack

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 60_000  # ms: a page's own requests take seconds where the other core tests, too
SESSIONS: dict[tuple[str, str], Any] = {}
WIDTHS = {"wide": 1280, "narrow": 390}
USERS: dict[str, tuple[str, ...]] = {"tina": ("Viewer", "Trainer"), "vic": ("Viewer",), "ada": ("Admin",)}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--screenshots", default="", help="the folder to write pictures of the pages to")


@pytest.fixture(scope="module")  # while it is there an event loop runs, in which no other test can start one
def browser() -> Iterator[Browser]:
    """Debian's or Ubuntu's; Playwright's own is not downloaded."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip(f"there is none of {', '.join(PROGRAMS)}: apt-get install chromium")
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def users(stack: Stack) -> None:
    """Makes the stack's users."""
    with stack.airflow as admin:
        for name, roles in USERS.items():
            body = {
                "username": name, "password": name, "email": f"{name}@localhost", "first_name": name,
                "last_name": "Test", "roles": [{"name": role} for role in roles],
            }  # fmt: skip
            answer = admin.post("/users", json=body)
            assert answer.status_code in (200, httpx.codes.CONFLICT), answer.text


Visit = Callable[..., Page]


@pytest.fixture
def open_pages(browser: Browser) -> Iterator[Callable[[str], Visit]]:
    """Opens pages at an address, as somebody whose password is his name.

    At the end: no script of the console has failed, and none was refused.
    """
    contexts, complaints = [], []

    def cookies(address: str, name: str) -> Any:
        """Of a session of his: there is one, since Airflow lets nobody log in more than five times in 40 seconds."""
        if (address, name) not in SESSIONS:
            context = browser.new_context(base_url=address)
            page = context.new_page()
            page.goto("/login/")
            page.fill("#username", name)
            page.fill("#password", name)
            page.click("input[type=submit]")
            page.wait_for_url("**/home")
            SESSIONS[address, name] = context.storage_state()
            context.close()
        return SESSIONS[address, name]

    def at(address: str) -> Visit:
        def visit(name: str, path: str = "/console/", *, width: str = "wide", dark: bool = False) -> Page:
            options: Any = {"viewport": {"width": WIDTHS[width], "height": 900}, "timezone_id": "Europe/Vienna"}
            options["storage_state"] = cookies(address, name)
            context = browser.new_context(base_url=address, locale="en-GB", **options)
            contexts.append(context)
            if dark:
                context.add_init_script("localStorage.setItem('darkTheme', 'true')")
            page = context.new_page()
            page.set_default_timeout(PATIENCE)
            page.on("pageerror", lambda error: complaints.append(f"{page.url}: {error}") if ours(error) else None)
            page.on("console", lambda said: complaints.append(f"{page.url}: {said.text}") if refused(said) else None)
            page.goto(path)
            return page

        return visit

    yield at
    for context in contexts:
        context.close()
    assert not complaints, "\n".join(complaints)


def ours(error: Any) -> bool:
    """Not what Airflow's own main.js says on every page that has no login: it is the last thing that it does."""
    return "setting 'autocomplete'" not in str(error)


def refused(said: Any) -> bool:
    """Whether the browser says that a page did what its policy forbids."""
    return said.type == "error" and bool(re.search(r"Content.Security.Policy", said.text))


@pytest.fixture
def picture(request: pytest.FixtureRequest) -> Callable[[Page, str], None]:
    """Keeps a picture of a page, if pictures are asked for."""
    folder = request.config.getoption("--screenshots", default="")

    def take(page: Page, name: str) -> None:
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)

    return take


def pytest_sessionfinish() -> None:
    airflow_home.remove()
