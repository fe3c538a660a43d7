"""The command line of the local stacks: ``python -m dev COMMAND``; ``--help`` lists the commands."""

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console

from dev import chosen
from dev.containers import AstroProject
from dev.decisions import DECISIONS, add_words, alerts
from dev.environment import CLIENT_PREFIXES
from dev.processes import StartError
from dev.sbom import write_sbom
from dev.stack import Stack
from dev.state import DEFAULT_STATE, DEMO_STATE, REPOSITORY
from dev.uploads import look, write_rejected
from include.evaluation.data_report import ADVICE
from include.settings import settings

console = Console(highlight=False)


def up(arguments: argparse.Namespace) -> int:
    """Starts the stack and leaves it running."""
    stack, begun = Stack(arguments.state, services_only=arguments.services_only), time.monotonic()
    started = stack.up(lambda line: console.print(f"  {line}", style="dim", markup=False))
    took = time.monotonic() - begun
    console.print(f"The stack is up after {took:.0f} s." if started else "The stack is already up.", style="bold green")
    if not started:
        _print_what_is_not_in_force(stack)
    _print_addresses(stack, with_airflow=not arguments.services_only)
    _print_settings(stack)
    return 0


def down(arguments: argparse.Namespace) -> int:
    """Stops the stack; its data stays."""
    begun = time.monotonic()
    stopped = Stack(arguments.state).down(lambda line: console.print(f"  {line}", style="dim", markup=False))
    took = time.monotonic() - begun
    console.print(f"The stack is down after {took:.0f} s; its data stays." if stopped else "Nothing is up.")
    return 0


def status(arguments: argparse.Namespace) -> int:
    """Says what runs; 1 if not all of it does."""
    stack = Stack(arguments.state)
    found = stack.statuses()
    if not found:
        console.print("Nothing is up.")
        return 1
    health = {name: stack.is_healthy(name) for name in found}
    pids = stack.pids()
    for name, word in found.items():
        told = f"process {pids[name]}" if name in pids else ""
        console.print(f"{name:<10} {word:<9} {'healthy' if health[name] else 'not healthy':<12} {told}".rstrip())
    return 0 if all(health.values()) else 1


def logs(arguments: argparse.Namespace) -> int:
    """Shows runs and how they end, and complaints, as they come, until Ctrl-C; of one program: all that it says."""
    from dev.logs import follow

    stack = Stack(arguments.state)
    files = sorted(stack.state.logs.glob(f"{arguments.program or '*'}.log"))
    if not files:
        console.print(f"No log of {arguments.program or 'anything'} in {stack.state.logs}.", markup=False)
        return 1
    if arguments.program:
        return subprocess.call(["tail", "-n", "20", "-F", *map(str, files)])
    for line in follow(stack):
        console.print(line, markup=False, soft_wrap=True)
    return 0


def env(arguments: argparse.Namespace) -> int:
    """Prints what a shell needs to use the stack's S3 and MLflow: ``eval "$(python -m dev env)"``."""
    for name, value in sorted(Stack(arguments.state).env.items()):
        if name.startswith(CLIENT_PREFIXES):
            print(f"export {name}={shlex.quote(value)}")
    return 0


def airflow(arguments: argparse.Namespace) -> int:
    """Runs one of Airflow's own commands on the stack: ``python -m dev airflow dags list``."""
    stack = _stack_that_is_up(arguments)
    return subprocess.call([sys.executable, "-m", "airflow", *arguments.words], env=stack.env, cwd=REPOSITORY)


def upload(arguments: argparse.Namespace) -> int:
    """Looks at files, and drops them into incoming/ as any S3 client would; 1 if one cannot be read."""
    stack = _stack_that_is_up(arguments)
    files = [found for file in arguments.files for found in _files_in(file)]
    refused = [file for file, name in files if not _upload(stack, file, name, force=arguments.force)]
    if refused:
        again = f"make upload FILE={shlex.quote(str(refused[0]))} FORCE=1{_suffix(stack)}"
        console.print(f"To upload it all the same: {again}", markup=False, soft_wrap=True)
    return 1 if refused else 0


def _files_in(path: Path) -> list[tuple[Path, str]]:
    """A file with its name, or a folder's files with theirs below it: partitions are folders (``label=x/``)."""
    from include.datasets.names import is_debris

    if not path.is_dir():
        return [(path, path.name)]
    below = sorted(file for file in path.rglob("*") if file.is_file() and not is_debris(file.as_posix()))
    return [(file, f"{path.resolve().name}/{file.relative_to(path).as_posix()}") for file in below]


def _upload(stack: Stack, file: Path, name: str, *, force: bool) -> bool:
    key = f"incoming/{name}"
    found = look(file, key, stack.env)
    if found.unreadable:
        word = "uploaded though it" if force else "not uploaded, since it"
        console.print(f"{file} is {word} cannot be read: {found.unreadable}", style="red", markup=False, soft_wrap=True)
        if not force:
            return False
    for warning in found.warnings:
        console.print(f"{file}: {warning}", style="yellow", markup=False, soft_wrap=True)
    stack.s3.upload_file(str(file), stack.env["BERT_BUCKET"], key)
    told = "".join(f" ({line})" for line in found.told)
    console.print(f"{file} → s3://{stack.env['BERT_BUCKET']}/{key}{told}", markup=False, soft_wrap=True)
    return True


def rejected(arguments: argparse.Namespace) -> int:
    """Writes a run's rejected rows as a CSV file that can be mended and uploaded as it is."""
    stack = _stack_that_is_up(arguments)
    found = write_rejected(stack, arguments.run_id, arguments.folder)
    console.print(f"The run {found.run_id} rejected:", markup=False, soft_wrap=True)
    for rule, count in found.by_rule.most_common():
        console.print(f"  {count:>7,} {rule:<20} {ADVICE.get(rule, '')}", markup=False, soft_wrap=True)
    for file in found.unreadable:
        where = f" ({file['quarantine']})" if file["quarantine"] else ""
        line = f"{file['key']} as a whole: {file['reason']}{where}"
        console.print(f"  {line}", markup=False, soft_wrap=True)
        console.print("    Mend it and upload it again; the same name will do.")
    if not found.by_rule:
        found.path.unlink()
        return 0
    path = os.path.relpath(found.path)
    console.print(
        f"\nThe rows are in {path}, with rule and reason. Mend text and label there, and upload it:", soft_wrap=True
    )
    console.print(f"  make upload FILE={shlex.quote(path)}{_suffix(stack)}", markup=False, soft_wrap=True)
    return 0


def _stack_that_is_up(arguments: argparse.Namespace) -> Stack:
    stack = Stack(arguments.state)
    if not stack.is_healthy("s3"):
        raise StartError(f"The stack is not up; start it with: make up{_suffix(stack)}")
    return stack


def reproduce(arguments: argparse.Namespace) -> int:
    """Trains a version again, on this machine, and compares; 1 if it was not made again."""
    command = [sys.executable, "-m", "include.orchestration.reproduction", f"--version={arguments.version}"]
    return subprocess.call(command, env=_stack_that_is_up(arguments).env, cwd=REPOSITORY)


def export(arguments: argparse.Namespace) -> int:
    """Writes a version into one folder: model, card, dataset, job, decision and the packages of this project."""
    stack = _stack_that_is_up(arguments)
    name = f"{stack.env.get('BERT_MODEL_NAME') or settings().model_name}-{arguments.version}"
    folder = (arguments.to or REPOSITORY / ".local" / "export" / name).resolve()
    command = [sys.executable, "-m", "include.orchestration.export", f"--version={arguments.version}"]
    if done := subprocess.call([*command, f"--to={folder}"], env=stack.env, cwd=REPOSITORY):
        return done
    for line in write_sbom(folder):
        console.print(line, style="yellow", markup=False, soft_wrap=True)
    console.print(f"{name} is in {os.path.relpath(folder)}:", markup=False, soft_wrap=True)
    for path in sorted(folder.iterdir()):
        console.print(f"  {path.name}{'/' if path.is_dir() else ''}", markup=False)
    return 0


def demo(arguments: argparse.Namespace) -> int:
    """Runs the main job end to end on a fresh stack, and checks how it ended."""
    from dev.demo import demo as tell  # pandas and MLflow are slow to import, and the other commands need neither

    return tell(
        arguments.state,
        console,
        data=arguments.data,
        test=arguments.test,
        text=arguments.text,
        label=arguments.label,
        docker=_astro_project(arguments) if arguments.docker else None,
        stories=arguments.stories,
    )


def demo_week(arguments: argparse.Namespace) -> int:
    """Runs two weeks of the weekly ETL on a fresh stack, from real FTP, SFTP, HTTP and SQL servers, and checks them."""
    from dev.week import demo_week as tell

    return tell(arguments.state, console)


def demo_month(arguments: argparse.Namespace) -> int:
    """Lives through a simulated month on a fresh stack, and checks what is watched, retrained and rolled back in it."""
    from dev.month.demo import demo_month as tell

    return tell(arguments.state, console)


def cases(arguments: argparse.Namespace) -> int:
    """Takes a folder's files in as uploads would be, and compares what comes of them with its expected.json."""
    from dev import cases as folder_of_cases

    return folder_of_cases.run(arguments.folder or folder_of_cases.OWN_CASES, console)


def docker_check(arguments: argparse.Namespace) -> int:
    """Builds and starts the Docker stack with the Astro CLI, and tries what may happen to it."""
    from dev.docker_check import check

    return check(_astro_project(arguments), arguments.stories, console)


def _astro_project(arguments: argparse.Namespace) -> AstroProject:
    return AstroProject(shlex.split(arguments.astro), arguments.wait, arguments.engine)


def _print_addresses(stack: Stack, *, with_airflow: bool) -> None:
    bucket = stack.env["BERT_BUCKET"]
    rows = (
        ("console", f"{stack.airflow_url}/console/", "login admin, password admin: train, look, decide"),
        ("Airflow", stack.airflow_url, "the same login"),
        ("MLflow", stack.mlflow_uri, ""),
        ("champion", stack.serving_url, "answers texts; /docs shows how to ask"),
        ("S3", stack.s3_url, f"key local, secret local, bucket {bucket}"),
        ("warehouse", stack.warehouse_url, ""),
        ("logs", str(stack.state.logs), ""),
    )
    console.print()
    for name, address, login in rows if with_airflow else rows[2:]:
        console.print(f"  {name:<10} {address:<25} {login}".rstrip(), markup=False, soft_wrap=True)
    if not with_airflow:
        _print_start_of_airflow(stack)
    target = f"s3://{bucket}/incoming/"
    console.print("\nDrop a labelled file, and training starts:", markup=False)
    console.print(f"  make upload FILE=my.csv{_suffix(stack)}", markup=False)
    keys = "AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local"
    console.print(f"  {keys} aws s3 cp my.csv {target} --endpoint-url {stack.s3_url}", markup=False, soft_wrap=True)


def _print_settings(stack: Stack) -> None:
    console.print("\nSettings in force, beside the defaults of include/settings:")
    for line in chosen.described(stack.state, stack.env):
        console.print(f"  {line}", markup=False, soft_wrap=True)
    if kept := next(iter(stack.state.settings or {}), None):
        back = f"make down{_suffix(stack)} && {kept}= make up{_suffix(stack)}"
        console.print(f"The stack keeps them. Back to a default: {back}", markup=False, soft_wrap=True)


def _print_what_is_not_in_force(stack: Stack) -> None:
    if others := chosen.not_in_force(stack.state):
        given = " ".join(f"{name}={shlex.quote(value)}" for name, value in sorted(others.items()))
        console.print(
            f"It runs with other settings, and these are not in force: {given}\n"
            f"To change them: make down{_suffix(stack)} && {given} make up{_suffix(stack)}",
            style="bold yellow",
            markup=False,
            soft_wrap=True,
        )


def _suffix(stack: Stack) -> str:
    """What make needs to mean this stack."""
    return "" if stack.state.folder == DEFAULT_STATE.resolve() else f" STACK={stack.state.folder.name}"


def _print_start_of_airflow(stack: Stack) -> None:
    file = os.path.relpath(stack.state.airflow_env)
    console.print(f"\nWhat Airflow needs to find them is in {file}:", markup=False, soft_wrap=True)
    console.print(f"  astro dev start --standalone --env {file} --wait 10m", markup=False, soft_wrap=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dev", description=__doc__)
    commands = parser.add_subparsers(required=True)
    of_a_stack = (up, down, status, logs, env, airflow, upload, rejected, *DECISIONS, alerts, reproduce, export)
    for function in (*of_a_stack, demo, demo_week, demo_month, cases, docker_check):
        command = commands.add_parser(
            function.__name__.replace("_", "-"), help=(function.__doc__ or "").split("\n", 1)[0]
        )
        command.set_defaults(run=function)
        own = {demo: "demo", demo_week: "week", demo_month: "month"}
        state = DEMO_STATE.with_name(own[function]) if function in own else DEFAULT_STATE
        command.add_argument("--state", type=Path, default=state, help="the stack's folder (%(default)s)")
        if function is up:
            command.add_argument("--services-only", action="store_true", help="no Airflow: start that otherwise")
        if function is cases:
            command.add_argument("folder", nargs="?", type=Path, help="by default the project's own")
        if function is logs:
            command.add_argument("program", nargs="?", help="only this program's")
        if function is airflow:
            command.add_argument("words", nargs=argparse.REMAINDER, help="the command, as `airflow --help` has it")
        if function is upload:
            command.add_argument("files", nargs="+", type=Path)
            command.add_argument("--force", action="store_true", help="upload also what cannot be read")
        if function is rejected:
            command.add_argument(
                "--run", dest="run_id", default="", help="a run; by default the newest that rejected any"
            )
            command.add_argument(
                "--folder", type=Path, default=REPOSITORY / ".local", help="where to write (%(default)s)"
            )
        if function in DECISIONS:
            add_words(function, command)
        if function is alerts:
            command.add_argument("--now", action="store_true", help="try to send them first")
        if function in (reproduce, export):
            command.add_argument("version", help="of the registered model")
        if function is export:
            command.add_argument("--to", type=Path, help="a folder that is not there yet (.local/export/MODEL-VERSION)")
        if function is demo:
            command.add_argument("--data", type=Path, help="your own labelled .csv, .jsonl or .parquet file")
            command.add_argument("--test", type=Path, help="a labelled file to score the champion on at the end")
            command.add_argument("--text", default="", help="name of the text column, if it is not a usual one")
            command.add_argument("--label", default="", help="name of the label column, if it is not a usual one")
            command.add_argument("--docker", action="store_true", help="on the stack of `astro dev start`, a fresh one")
        if function in (demo, docker_check):
            command.add_argument("--astro", default="astro dev", help="the Astro CLI (%(default)s)")
            command.add_argument("--wait", default="10m", help="how long it waits for Airflow (%(default)s)")
            command.add_argument("--engine", default="docker", help="docker or podman (%(default)s)")
            command.add_argument("--stories", type=int, default=7, help="only the first so many (%(default)s)")
    return parser


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Runs one command; returns the exit status."""
    # A closed terminal cleans up as Ctrl-C does; and that one also where whoever started this ignores it.
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, _interrupt)
    arguments = _parser().parse_args()
    try:
        return int(arguments.run(arguments))
    except KeyboardInterrupt:
        console.print("Interrupted.", style="bold red")
        return 130
    except (StartError, OSError, ValueError) as error:
        console.print(str(error), style="red", markup=False, soft_wrap=True)
        return 1


if __name__ == "__main__":
    sys.exit(main())
