"""Who may see and do what in the console: every route and verb of it, tried as everybody."""

import itertools
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from flask_appbuilder import expose

from include.orchestration.create_trainer_role import CONSOLE_MENU
from plugins import console as package
from plugins.console.access import (
    DECIDE_CHALLENGER,
    DECIDE_LABELS,
    DECIDE_UPLOAD,
    HEADERS,
    PIPELINE,
    POLICY,
    REPRODUCE,
    ROLLBACK,
    Pages,
)
from tests.dags.console_app import Visitor

pytest_plugins = ["tests.unit.registry_services", "tests.dags.console_app"]

REPOSITORY = Path(__file__).parents[2]
VERBS = ("GET", "POST", "PUT", "PATCH", "DELETE")
EVERYBODY = {"viewer", "trainer", "admin"}
MAY = {
    "": EVERYBODY,
    PIPELINE: {"trainer", "admin"},
    ROLLBACK: {"admin"},
    DECIDE_CHALLENGER: {"admin"},
    DECIDE_UPLOAD: {"admin"},
    REPRODUCE: {"admin"},
    DECIDE_LABELS: {"admin"},
}
"""Who may use a route, by the DAG that it starts."""

VALUES = {"draft_id": "20260101T000000-00000000", "batch_id": "none", "token_id": "none", "version": "0", "name": "x/y"}
HEAVY = {"torch", "transformers", "mlflow", "pandas", "pyarrow", "numpy", "evidently", "sklearn", "matplotlib", "scipy"}
# What Airflow and its providers import in the webserver without us.


def routes(site: Any, *, tokens: bool = False) -> list[Any]:
    """The console's routes: those of persons, or of tokens."""
    found = [rule for rule in site.url_map.iter_rules() if rule.rule.startswith("/console")]
    views = [rule for rule in found if rule.endpoint != "console.static"]
    return [rule for rule in views if hasattr(site.view_functions[rule.endpoint], "takes_tokens") is tokens]


def address(site: Any, rule: Any) -> str:
    with site.test_request_context():
        values = {name: VALUES[name] for name in rule.arguments}
        return str(site.url_map.bind("").build(rule.endpoint, values))


def test_every_route_and_verb_is_for_those_it_is_for(site: Any, console: dict[str, Visitor]) -> None:
    rules, wrong = {rule.rule: rule for rule in routes(site)}, []
    views = {(rule.rule, verb): site.view_functions[rule.endpoint] for rule in routes(site) for verb in rule.methods}
    assert len(rules) > 15
    for rule, verb, (name, visitor) in itertools.product(rules.values(), VERBS, console.items()):
        view = views.get((rule.rule, verb))
        answer = visitor.client.open(address(site, rule), method=verb, headers={"X-CSRFToken": visitor.token})
        shown = f"{name} {verb} {rule.rule}: {answer.status_code}"
        if view is None:
            right = answer.status_code == 405 or (name == "nobody" and answer.status_code == 400)
        elif name == "nobody":  # without a session, there is no token either
            right = answer.status_code in (400, 401) or (answer.status_code == 302 and "/login" in answer.location)
        elif name in MAY[view.starts]:
            right = answer.status_code not in (401, 403) and answer.status_code < 500
        else:
            right = answer.status_code == 403
        wrong += [] if right else [shown]
    assert not wrong, "\n".join(wrong)


def test_nothing_is_posted_without_the_pages_token(site: Any, console: dict[str, Visitor]) -> None:
    for rule in routes(site):
        if "POST" in rule.methods:
            assert console["admin"].client.post(address(site, rule)).status_code == 400, rule.rule


def test_every_answer_forbids_scripts_between_its_lines(site: Any, console: dict[str, Visitor]) -> None:
    for rule, name in itertools.product(routes(site), ("viewer", "admin")):
        answer = (
            console[name].get(address(site, rule)) if "GET" in rule.methods else console[name].post(address(site, rule))
        )
        given = dict(answer.headers)
        policy = given.pop("Content-Security-Policy")
        assert policy == POLICY or re.fullmatch(rf"{re.escape(POLICY)} https?://[\w.:-]+", policy), rule.rule
        assert {**given, "Content-Security-Policy": POLICY}.items() >= HEADERS.items(), rule.rule
        if answer.mimetype == "text/html" and answer.status_code != 302:
            scripts = [part.split(">", 1)[0] for part in answer.text.split("<script")[1:]]
            assert all("src=" in script for script in scripts), rule.rule
            assert " onclick=" not in answer.text, rule.rule


def test_the_api_is_for_tokens_and_for_no_session(site: Any, console: dict[str, Visitor]) -> None:
    rules = routes(site, tokens=True)
    assert len(rules) == 2
    for rule, verb, visitor in itertools.product(rules, VERBS, console.values()):
        answer = visitor.client.open(address(site, rule), method=verb)
        assert answer.status_code in ((401,) if verb in rule.methods else (400, 405)), f"{verb} {rule.rule}"


def test_a_route_without_a_rule_is_refused_when_the_webserver_starts(site: Any) -> None:
    class Careless(Pages):
        @expose("/careless")
        def careless(self) -> str:
            return "open to anyone"

    with pytest.raises(TypeError, match=r"Careless.careless has no rule"):
        Careless().create_blueprint(site.appbuilder)


def test_the_menu_is_shown_to_those_who_may_see(site: Any, console: dict[str, Visitor]) -> None:
    assert set(CONSOLE_MENU) == {package.CATEGORY, *(package.menu_name(entry) for entry in package.MENU)}
    for name in EVERYBODY:
        page = console[name].get("/home").text
        assert all(f'href="/console/{path}"' in page for path in ("", "train/", "data/", "watch/")), name


def test_the_webserver_imports_nothing_heavy_for_the_console() -> None:
    """What Airflow itself has imported before does not count."""
    code = (
        "import sys;"
        "import airflow.www.app, airflow.providers.postgres.hooks.postgres, airflow.api.common.trigger_dag;"
        "before = set(sys.modules);"
        "import plugins.console.model_pages, plugins.console.train_pages, plugins.console.data_pages;"
        "import plugins.console.watch_pages, plugins.console.version_pages;"
        "import plugins.console.label_pages;"
        f"print(sorted({HEAVY!r} & (set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
