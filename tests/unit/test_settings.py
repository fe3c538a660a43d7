"""What is said of settings that are wrong."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from include import settings

ROOT = Path(__file__).parents[2]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch):
    """The faults with these variables and no others of ours."""

    def apply(**values: str) -> list[str]:
        for name in [name for name in os.environ if name.startswith("BERT_")]:
            monkeypatch.delenv(name)
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        return settings.faults()

    return apply


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"BERT_EPOCH": "3"}, "BERT_EPOCH is no setting; did you mean BERT_EPOCHS?"),
        ({"BERT_TXT_COLUMN": "q"}, "BERT_TXT_COLUMN is no setting; did you mean BERT_TEXT_COLUMN?"),
        ({"BERT_POD_GPU": "1"}, "BERT_POD_GPU is no setting; did you mean BERT_POD_GPUS?"),
        ({"BERT_XYZZY": "1"}, "BERT_XYZZY is no setting; include/settings has them all"),
        ({"BERT_EPOCHS": "four"}, "BERT_EPOCHS: it should be a valid integer"),
        ({"bert_epochs": "0"}, r"BERT_EPOCHS: it should be greater than or equal to 1 \(the default is 4\)"),
        ({"BERT_MIN_ACCURACY": "70"}, r"BERT_MIN_ACCURACY: .*less than or equal to 1 \(absolute floor"),
        ({"BERT_TRAINING_BACKEND": "gpu"}, "BERT_TRAINING_BACKEND: it should be 'local' or 'kubernetes'"),
        ({"BERT_TRAINING_BACKEND": "kubernetes"}, "set BERT_POD_IMAGE"),
        ({"BERT_POD_GPUS": "x"}, "BERT_POD_GPUS: it should be a valid integer"),
        ({"BERT_POD_NODE_SELECTOR": "{"}, "BERT_POD_NODE_SELECTOR: it should be JSON"),
        ({"BERT_POD_OVERRIDES": '{"m": {"gpu": 2}}'}, "BERT_POD_OVERRIDES: overrides of m: gpu: "),
        ({"BERT_LABEL_MAPPING": "a=b"}, "BERT_LABEL_MAPPING: it should be a JSON object of old and new names such as"),
        ({"BERT_LABEL_MAPPING": "[1]"}, r"BERT_LABEL_MAPPING: it should be a valid dictionary .labels that were"),
        ({"BERT_LABEL_MAPPING": '{"a": "b", "b": "a"}'}, "BERT_LABEL_MAPPING: 'a' → 'b' goes round in a circle"),
        ({"BERT_LABEL_MAPPING": '{"a": "b", "a": "c"}'}, "BERT_LABEL_MAPPING: it maps 'a' twice"),
        ({"BERT_LABEL_MAPPING": '{"a": "b"}', "BERT_LABELS": "c,d"}, "BERT_LABEL_MAPPING: 'b' is none of BERT_LABELS"),
        ({"BERT_ENVIRONMENT": "prod"}, "BERT_ENVIRONMENT: it should be 'local'"),
        ({"MLFLOW_TRACKING_URI": "http://me:pass@m"}, "MLFLOW_TRACKING_URI: looks like a credential"),
    ],
    ids=str,
)
def test_a_fault_names_the_variable_and_what_is_allowed(said, values: dict[str, str], words: str) -> None:
    (fault,) = said(**values)
    assert re.match(f".*{words}", fault)
    assert "pass" not in fault


def test_all_faults_are_told_together(said) -> None:
    found = said(BERT_EPOCH="3", BERT_SEED="x", BERT_POD_GPUS="x", BERT_TRAINING_BACKEND="kubernetes")
    assert [fault.split(" ")[0].rstrip(":") for fault in found] == ["BERT_EPOCH", "BERT_POD_GPUS", "BERT_SEED"]


def test_right_values_empty_ones_and_the_tools_own_are_no_faults(said) -> None:
    right = {"BERT_POD": '{"gpus": 2}', "BERT_POD_LABELS": '{"a": "b"}', "BERT_LABELS": "a,b", "BERT_AUDIT": "required"}
    right |= {"BERT_LABEL_MAPPING": '{"a": "c"}'}
    assert said(BERT_FORMER="", BERT_EPOCHS="", **right) == []


def test_every_variable_that_the_documents_name_is_one(said) -> None:
    files = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob(".env.example"), *ROOT.glob("terraform/*.tf")]
    named = {name for file in files for name in re.findall(r"\bBERT_[A-Z_]+[A-Z]\b", file.read_text())}
    unknown = [name for name in named if name not in settings.variables() and name not in settings.NOT_SETTINGS]
    assert [name for name in unknown if not said(**{name: "1"})] == [], "unknown names are found"
    assert unknown == []


def test_as_a_program_it_ends_with_one_if_anything_is_wrong() -> None:
    command = [sys.executable, "-m", "include.settings"]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    assert subprocess.run(command, env=env, cwd=ROOT, check=False).returncode == 0
    wrong = subprocess.run(
        command, env=env | {"BERT_EPOCH": "3"}, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (wrong.returncode, wrong.stderr) == (1, "BERT_EPOCH is no setting; did you mean BERT_EPOCHS?\n")
