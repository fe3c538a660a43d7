"""What `make logs` shows: runs with what they do and their outcomes, and what programs complain of."""

from typing import Any

from dev.logs import changes, told

SAID = [
    '127.0.0.1 - - [27/Nov/2026:02:00:00 +0000] "GET /static/dist/main.css HTTP/1.1" 200 12 "-" "Mozilla"',
    "[2026-11-27T02:00:00.000+0000] {dagrun.py:854} INFO - Marking run successful",
]


def run(state: str, note: str | None = None, **more: Any) -> dict[str, Any]:
    return {"dag_id": "d", "dag_run_id": "r", "state": state, "note": note, "start_date": "2026-11-27T02:00:00Z"} | more


def test_a_run_is_told_of_when_it_begins_and_when_it_ends_with_its_outcome() -> None:
    seen: dict[str, str] = {}
    assert list(changes([run("running")], seen)) == ["02:00:00 run        d r running"]
    assert not list(changes([run("running")], seen))
    ended = run("success", "**promoted**: version 1\nmore", end_date="2026-11-27T02:01:00Z")
    assert list(changes([ended], seen)) == ["02:01:00 run        d r success: **promoted**: version 1"]


def test_a_run_says_which_task_it_is_at() -> None:
    assert list(changes([run("running", doing="train_model")], {})) == ["02:00:00 run        d r running: train_model"]


def test_programs_complaints_come_with_their_name() -> None:
    warning = "[2026-11-27T02:00:00.000+0000] {x.py:1} WARNING - the heartbeat is late"
    lines = ["==> /x/scheduler.log <==", *SAID, warning, "", "==> /x/s3.log <==", "ValueError: no such bucket"]
    shown = list(told(iter(line + "\n" for line in lines)))
    assert shown == [f"         scheduler  {warning}", "         s3         ValueError: no such bucket"]
