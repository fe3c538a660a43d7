"""What the pages tell a reader to type: each command of README.md, CONTRIBUTING.md and docs/ is looked up or run.

make's recipes get their words; our programs, Airflow and pytest parse theirs; settings, paths and addresses have to
be there. `make help` and what docs/recipes.md marks are run. Programs that need an account or another machine are named
here, with the reason.
"""

import argparse
import ast
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import kubernetes_validate
import pytest
import yaml

from dev.__main__ import _parser
from include.settings import NOT_SETTINGS, variables

REPOSITORY = Path(__file__).parents[2]
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
NOT_RUN = {
    "astro": "needs Docker and Astronomer's CLI, which is no Python package",
    "az": "needs an Azure account",
    "gcloud": "needs a Google Cloud account",
    "heroku": "needs a Heroku account",
    "base64": "of the reader's machine",
    "aws": "needs an account, or a stack that is up",
    "docker": "needs Docker",
    "eksctl": "needs an AWS account",
    "jq": "of the reader's machine; works on what kubectl printed",
    "k3d": "needs Docker",
    "kubectl": "needs a cluster",
    "mlflow": "a server on a machine of its own",
    "pg_dump": "of PostgreSQL, on a machine with a database",
    "pg_restore": "of PostgreSQL, on a machine with a database",
    "psql": "of PostgreSQL, on a machine with a database",
    "socat": "of the reader's machine",
    "terraform": "needs an AWS account; terraform/ has tests of its own",
}
SHELL = {"cat", "cd", "echo", "eval", "export", "git", "kill", "mkdir", "printf", "rm", "sed", "test", "umask"}
MLFLOW_ROUTES = Path(str(find_spec("mlflow").origin)).parent / "server" / "auth" / "routes.py"  # type: ignore[union-attr]
CONSOLE_API = REPOSITORY / "plugins/console/api.py"
MADE_BY_READERS = {"terraform/trust.json", "terraform/terraform.tfvars"}


PATH = re.compile(r"((?:include|dags|dev|docs|tests|terraform|plugins|\.github)/[\w./*-]+)(?:::\w+)?")


class Command(NamedTuple):
    """A program with its words and the variables before it, and where it stands."""

    where: str
    words: list[str]
    variables: dict[str, str]
    in_block: bool = True  # else between words, where `make rollback` is a name and no call


def blocks(page: Path, *kinds: str) -> Iterator[tuple[int, str]]:
    """Fenced blocks of some kinds, each with the line that it begins after."""
    text = page.read_text()
    for found in re.finditer(r"^( *)```(\w*)\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL):
        if found[2] in kinds:
            lines = found[3].splitlines()
            yield text[: found.start()].count("\n") + 1, "\n".join(line.removeprefix(found[1]) for line in lines)


def spans(page: Path) -> Iterator[tuple[int, str]]:
    """Words in code type between others, blocks left out."""
    text = re.sub(r"^ *```.*?^ *```$", lambda block: "\n" * block[0].count("\n"), page.read_text(), flags=re.M | re.S)
    for found in re.finditer(r"(?<!`)`([^`]+)`(?!`)", text):
        yield text[: found.start()].count("\n") + 1, " ".join(found[1].replace("\\|", "|").split())


def without_comment(line: str) -> str:
    quote = ""
    for at, character in enumerate(line):
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character == "#" and (at == 0 or line[at - 1].isspace()):
            return line[:at]
    return line


def parsed(where: str, script: str, *, in_block: bool = True) -> Iterator[Command]:
    """A script's commands, also those in a substitution that stands outside of quotes."""
    script = re.sub(r"\\\n\s*", " ", script)
    script = re.sub(r" <<'?(\w+)'?\n.*?^\1$", "", script, flags=re.M | re.S)
    script = "\n".join(map(without_comment, script.split("\n")))
    words = shlex.shlex(script, posix=True, punctuation_chars="();<>|&\n")
    words.whitespace, words.commenters, words.whitespace_split = " \t\r", "", True
    command: list[str] = []
    tokens = [*words, ";"]
    for at, word in enumerate(tokens):
        if set(word) <= set("();|&\n"):
            if command:
                yield _command(where, command)._replace(in_block=in_block)
            command = []
        elif not set(word) <= set("<>") and not (at and set(tokens[at - 1]) <= set("<>")) and word not in ("{", "}"):
            command.append(word)


def _command(where: str, words: list[str]) -> Command:
    given, rest = {}, [] if words[0] in ("for", "done", "fi") else list(words)
    while rest and rest[0] in ("do", "then", "else", "if", "while"):
        rest.pop(0)
    while rest and re.match(r"[A-Za-z_]\w*=", rest[0]):
        name, value = rest.pop(0).split("=", 1)
        given[name] = value
    return Command(where, rest, given)


def commands(page: Path) -> Iterator[Command]:
    name = page.relative_to(REPOSITORY)
    for line, script in blocks(page, "bash", "console", "sh"):
        yield from parsed(f"{name}:{line}", script)
    for line, span in spans(page):
        if re.match(r"(make|airflow|python|\.venv/bin/\w+) \S", span):
            yield from parsed(f"{name}:{line}", span, in_block=False)


def faults(command: Command, functions: frozenset[str] = frozenset()) -> list[str]:
    """What is wrong with a command; empty if all of it is there."""
    found = [f"{name} is no setting" for name in command.variables if name.startswith("BERT_") and not known(name)]
    if not command.words:
        return found
    program, words = command.words[0], command.words[1:]
    inside = program.startswith(".venv/bin/")
    name = program.removeprefix(".venv/bin/")
    if name == "make":
        return [*found, *of_make(words, called=command.in_block or any("=" in word for word in words))]
    if name in CHECKS:
        return [*found, *CHECKS[name](words)]
    if not inside and name in ("export", "cd", "test"):
        return [*found, *(fault for word in words for fault in faults(_command("", [word])) if "=" in word)]
    if inside and not (REPOSITORY / program).exists():
        return [*found, f"{name} is not installed in .venv"]
    if name in NOT_RUN or name in SHELL or name in functions or inside:
        return found
    return [*found, f"{name} is no program that the pages may name: is it in NOT_RUN, with its reason?"]


def known(setting: str) -> bool:
    return setting in variables() or setting in NOT_SETTINGS


@cache
def recipes() -> dict[str, str]:
    """Each target's part of the Makefile, with the variables of the Makefile put in."""
    text = (REPOSITORY / "Makefile").read_text()
    values = dict(re.findall(r"^(\w+) [:?]?= ?(.*)$", text, re.M))
    found = {}
    for target, head, body in re.findall(r"^([a-z][a-z-]*):(?!=)(.*)\n((?:\t.*\n)*)", text, re.M):
        for name, value in values.items():
            body = body.replace(f"$({name})", f"$({name}) {value}")
        found[target] = head + body
    return found


def of_make(words: list[str], *, called: bool) -> list[str]:
    """Targets are there and use the variables; what they start with these takes its arguments."""
    given = dict(word.split("=", 1) for word in words if re.match(r"\w+=", word))
    targets = [word for word in words if not re.match(r"\w+=", word) and word != "…"]
    if unknown := [target for target in targets if target not in recipes()]:
        return [f"make has no target {unknown[0]}"]
    used = " ".join(recipes()[target] for target in targets)
    if idle := [name for name in given if not re.search(rf"\b{name}\b", used)]:
        return [f"make {targets[0]} does nothing with {idle[0]}"]
    return [fault for target in targets for fault in of_recipe(target, given)] if called else []


def of_recipe(target: str, given: dict[str, str]) -> list[str]:
    """The real recipe, whose programs are printed and not started; ours have to take what they would get."""
    if "/python -m dev" not in recipes()[target]:
        return []
    assigned = [f"{name}={value}" for name, value in given.items()]
    make = ["make", "-s", "-C", str(REPOSITORY), "-o", ".venv/installed", "-o", "astro", "BIN=printf '%s\\n' BIN"]
    done = subprocess.run([*make, target, *assigned], capture_output=True, text=True, check=False)
    if done.returncode:
        return [f"make {target} ends with {done.returncode}: {done.stdout}{done.stderr}"]
    programs = [program.split("\n") for program in done.stdout.split("BIN/")[1:]]
    return [fault for program in programs if program[:2] == ["python", "-m"] for fault in of_python(program[1:-1])]


def of_python(words: list[str]) -> list[str]:
    if words[:1] == ["-c"]:
        compile(words[1], "the page", "exec")
        return []
    if words[:1] != ["-m"]:
        return paths_missing(words[:1])
    module, rest = words[1], words[2:]
    if find_spec(module) is None:
        return [f"there is no module {module}"]
    if not module.startswith(("include", "dev")):
        return []
    if module == "dev":
        return of_parser(dev_parser(), rest)
    named = [word.split("=")[0] for word in rest if re.match("--.", word)]
    return [f"{module} has no option {name}" for name in named if name not in options(module)]


@cache
def dev_parser() -> argparse.ArgumentParser:
    return _parser()


@cache
def options(module: str) -> frozenset[str]:
    """The options that a module's file adds to its parser, by its text: importing some takes many seconds."""
    spec = find_spec(f"{module}.__main__") if (spec := find_spec(module)) and spec.submodule_search_locations else spec
    assert spec is not None, module
    assert spec.origin is not None, module
    calls = (node for node in ast.walk(ast.parse(Path(spec.origin).read_text())) if isinstance(node, ast.Call))
    added = (call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "add_argument")
    return frozenset(str(name.value) for call in added for name in call.args if isinstance(name, ast.Constant))


def of_parser(parser: argparse.ArgumentParser, words: list[str]) -> list[str]:
    try:
        parser.parse_args(words)
    except SystemExit as stopped:
        return [] if not stopped.code else [f"{parser.prog} does not take {shlex.join(words)}"]
    return []


def of_airflow(words: list[str]) -> list[str]:
    from airflow.cli.cli_parser import get_parser

    return [] if words == ["…"] else of_parser(get_parser(), words)


def of_pytest(words: list[str]) -> list[str]:
    files = [word for word in words if word.endswith(".py")]
    if missing := paths_missing(files):
        return missing
    wanted = words[words.index("-k") + 1] if "-k" in words else ""
    texts = [(REPOSITORY / file).read_text() for file in files]
    named = any(wanted in name for text in texts for name in re.findall(r"^def (test_\w+)", text, re.M))
    return [] if named else [f"no test in {', '.join(files)} is called {wanted}"]


def of_curl(words: list[str]) -> list[str]:
    """An address leads to something that is there: in our server, among our DAGs, or in MLflow's API of users."""
    found = []
    for url in (word for word in words if word.startswith("http")):
        path = "/" + url.split("/", 3)[3]
        if console := re.match(r"/console/api/v1(/[a-z]+)", path):
            found += [] if f'"{console[1]}"' in CONSOLE_API.read_text() else [f"the console has no {path}"]
            continue
        if dag := re.search(r"/dags/(\w+)/", path):
            found += paths_missing([f"dags/{dag[1]}.py"])
        elif mlflow := re.match(r"/api/[23]\.0(/mlflow/.*)", path):
            found += [] if mlflow[1] in MLFLOW_ROUTES.read_text() else [f"MLflow has no {path}"]
        elif f'"{path}"' not in (REPOSITORY / "include/serving/app.py").read_text():
            found.append(f"the server has no {path}")
    return found


def paths_missing(paths: list[str]) -> list[str]:
    return [f"there is no {path}" for path in paths if not (REPOSITORY / path).exists() and "my_report" not in path]


CHECKS = {"airflow": of_airflow, "curl": of_curl, "pytest": of_pytest, "python": of_python, "python3": of_python}


def test_commands_are_what_there_is() -> None:
    wrong, seen = [], 0
    for page in PAGES:
        text = page.read_text()
        functions = frozenset(re.findall(r"^(\w+)\(\) \{", text, re.M))
        for command in commands(page):
            seen += 1
            wrong += [f"{command.where}: {shlex.join(command.words)}: {fault}" for fault in faults(command, functions)]
    assert not wrong, "\n".join(wrong)
    assert seen > 150, "the pages are still read"


def test_blocks_are_whole() -> None:
    for page in PAGES:
        for line, script in blocks(page, "bash", "console", "sh"):
            done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
            placeholders = re.search(r"<[a-z0-9 :_]+>", script, re.I)
            assert not done.stderr or placeholders, f"{page.name}:{line}: {done.stderr}"
        for line, code in blocks(page, "python"):
            compile(code, f"{page.name}:{line}", "exec")
        for _, text in blocks(page, "yaml"):
            assert list(yaml.safe_load_all(text))
        for _, text in blocks(page, "json"):
            json.loads(text)


def test_manifests_are_what_kubernetes_takes() -> None:
    documents = [
        one for _, text in blocks(REPOSITORY / "docs/kubernetes.md", "yaml") for one in yaml.safe_load_all(text)
    ]
    own = [one for one in documents if one["apiVersion"] in ("v1", "rbac.authorization.k8s.io/v1")]
    assert {one["kind"] for one in own} == {"Namespace", "ServiceAccount", "Role", "RoleBinding", "Secret"}
    for one in own:
        kubernetes_validate.validate(one, kubernetes_validate.latest_version(), strict=True)


def test_settings_and_paths_are_there() -> None:
    wrong = []
    for page in PAGES:
        for at, line in enumerate(page.read_text().splitlines(), 1):
            names = re.findall(r"\bBERT_[A-Z][A-Z_]*[A-Z]\b(?!_?[…*])", line)
            wrong += [f"{page.name}:{at}: {name} is no setting" for name in names if not known(name)]
        for at, span in spans(page):
            path = PATH.fullmatch(span)
            if path and path[1] not in MADE_BY_READERS and not list(REPOSITORY.glob(path[1].rstrip("/"))):
                wrong.append(f"{page.name}:{at}: there is no {path[1]}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("script", "fault"),
    [
        ("make uplaod FILE=my.csv", "make has no target uplaod"),
        ("make upload FLIE=my.csv", "make upload does nothing with FLIE"),
        ("make rollback", "Why? make rollback"),
        ("cd x && BERT_EPOCH=2 make up", "BERT_EPOCH is no setting"),
        ("export BERT_POD_IMAG=x", "BERT_POD_IMAG is no setting"),
        (".venv/bin/python -m dev upp", "does not take upp"),
        ("python -m include.trianing job.json", "there is no module include.trianing"),
        ("python -m include.training --logs DEBUG job.json", "has no option --logs"),
        ("airflow dags unpaus my_dag", "does not take dags unpaus my_dag"),
        ("airflow tasks clear my_dag --tasks x", "does not take"),
        (".venv/bin/pytest tests/unit/test_gates.py", "there is no tests/unit/test_gates.py"),
        ("curl http://127.0.0.1:8000/predicts", "the server has no /predicts"),
        ("curl http://localhost:8080/api/v1/dags/bert_pipeline/dagRuns", "there is no dags/bert_pipeline.py"),
        ("true | helm install x", "helm is no program that the pages may name"),
    ],
)
def test_a_wrong_command_is_found(script: str, fault: str) -> None:
    found = [one for command in parsed("page:1", script) for one in faults(command, frozenset({"true"}))]
    assert fault in "\n".join(found)


def test_make_help_names_every_target() -> None:
    done = subprocess.run(["make", "-C", str(REPOSITORY), "help"], capture_output=True, text=True, check=True)
    for target in re.findall(r"^([a-z-]+):.* ## ", (REPOSITORY / "Makefile").read_text(), re.M):
        assert f"  make {target} " in done.stdout


def test_the_door_to_airflow_3_has_every_file_that_needs_airflow_2_or_the_astro_sdk() -> None:
    text = (REPOSITORY / "docs/dependencies.md").read_text()
    sdk, database = (
        text.split(f"**{heading}**", 1)[1] for heading in ("The Astro SDK", "The metadata database, or its models,")
    )
    for told, needs in (
        (sdk.split("**The metadata")[0], r"^\s*from astro[. ]"),
        (
            database.split("**Flask**")[0],
            r"create_session|import trigger_dag$|^\s*from airflow\.models import (?!Param\b|DAG\b)",
        ),
    ):
        files = [*REPOSITORY.glob("dags/*.py"), *REPOSITORY.glob("include/**/*.py")]
        found = {one for one in files if re.search(needs, one.read_text(), re.M)}
        named = {REPOSITORY / name for name in re.findall(r"`((?:dags|include)/[\w/]+\.py)`", told)}
        assert named == found, "docs/dependencies.md is to name the files that this finds"


def test_the_site_has_no_broken_link(tmp_path: Path) -> None:
    # Not with --quiet, by which it counts no warnings.
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", f"--site-dir={tmp_path}"]
    done = subprocess.run(build, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Golden rows" in (tmp_path / "index.html").read_text()


def test_the_recipes_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """In their order, on a metadata database that has the recipes' own DAG and a run of it."""
    import airflow.settings
    from airflow.cli.cli_parser import get_parser
    from airflow.models import DagBag
    from airflow.utils.db import initdb

    page = REPOSITORY / "docs/recipes.md"
    report, training = (code for _, code in blocks(page, "python"))
    (tmp_path / "my_report.py").write_text(report)
    (tmp_path / "my_training.py").write_text(training)
    monkeypatch.setattr(airflow.settings, "DAGS_FOLDER", str(tmp_path))
    monkeypatch.setenv("AIRFLOW__CORE__DAGS_FOLDER", str(tmp_path))
    initdb()
    bag = DagBag(tmp_path, include_examples=False)
    assert not bag.import_errors
    assert set(bag.dags) == {"my_report", "my_training"}
    bag.sync_to_db()

    def run(line: str) -> int:
        arguments = get_parser().parse_args(shlex.split(line)[1:])
        try:
            arguments.func(arguments)
        except SystemExit as ended:
            return 1 if isinstance(ended.code, str) else int(ended.code or 0)
        return 0

    assert run("airflow dags trigger my_report --run-id RUN_ID") == 0
    marked = re.findall(r"`(airflow [^`]+)`(?: of Airflow)? †", " ".join(page.read_text().split()))
    assert len(marked) > 8
    ends = {line: run(line) for line in marked}
    assert {line for line, code in ends.items() if code} == {"airflow jobs check --job-type SchedulerJob"}
    assert "my_report" in capsys.readouterr().out
    assert run("airflow dags delete my_report --yes") == run("airflow dags delete my_training --yes") == 0
    assert run("airflow variables delete my_threshold") == 0
