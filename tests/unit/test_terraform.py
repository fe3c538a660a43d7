"""The cloud's policies against the code: a folder that is new in the lake must be allowed, and one that is gone not."""

import inspect
import re
from pathlib import Path

from include import lake

REPOSITORY = Path(__file__).parents[2]
TERRAFORM = REPOSITORY / "terraform"


def folders(name: str) -> set[str]:
    """The words of a list in ``locals`` of iam.tf."""
    found = re.search(rf"^\s*{name}\s*=\s*\[(.*?)\]", (TERRAFORM / "iam.tf").read_text(), re.MULTILINE)
    assert found, name
    return set(re.findall(r'"(.+?)"', found[1]))


def test_airflow_may_write_the_lakes_folders_its_frames_and_its_logs() -> None:
    lakes = set(re.findall(r"\{root\(\)\}/([a-z]+)/", inspect.getsource(lake)))
    assert folders("airflow_writes") == (lakes - {"incoming"}) | {
        "incoming/feedback",
        "incoming/console",
        "xcom",
        "logs",
    }
    assert folders("airflow_deletes") == {"incoming"}
    marks = {"claims", "waiting", "staging", "datasets", "jobs", "alerts", "drafts", "sightings", "backups"}
    assert folders("airflow_expires") == marks


def test_the_trainer_never_sees_the_golden_set() -> None:
    assert folders("trainer_reads") == {"jobs", "datasets", "models"}
    assert folders("trainer_writes") == {"jobs/*", "datasets/*/tokens/*"}
    assert folders("trainer_deletes") == {"jobs"}


def test_the_server_reads_models_and_what_it_was_asked_and_no_uploads() -> None:
    assert folders("server_reads") == {"models", "predictions", "feedback"}
    assert folders("server_writes") == {"predictions", "feedback"}


def test_the_record_of_claims_never_expires() -> None:
    prefixes = re.findall(r'prefix\s*=\s*"(.*?)"', (TERRAFORM / "bucket.tf").read_text())
    assert prefixes == ["xcom/", "quarantine/"]
