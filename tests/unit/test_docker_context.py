"""What the builder of Airflow's image gets to see: all of the project's code, and nothing that was left lying about."""

import subprocess
from pathlib import Path

import pytest
from docker.utils.build import exclude_paths

REPOSITORY = Path(__file__).parents[2]
PATTERNS = [
    line for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")
]


def test_every_file_of_the_code_is_sent() -> None:
    command = ["git", "ls-files", "dags", "include", "plugins", "Dockerfile", "requirements.txt", "packages.txt"]
    tracked = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.split()
    assert len(tracked) > 60
    assert set(tracked) <= exclude_paths(str(REPOSITORY), PATTERNS)


@pytest.mark.parametrize(
    "name",
    [
        *(
            ".env",
            "include/.env",
            "dags/.env.local",
            "include/prod.env",
            "plugins/kubeconfig.yaml",
            "include/.kube/config",
        ),
        *("include/.aws/credentials", "include/id_rsa", "include/prod.tfvars", "plugins/service-account.json"),
        *(
            "include/server.key",
            "include/train.csv",
            "include/data/x.txt",
            "dags/rows.parquet",
            "airflow_settings.yaml",
        ),
    ],
)
def test_secrets_and_data_are_not_sent_wherever_they_lie(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    (tmp_path / "include").mkdir(exist_ok=True)
    (tmp_path / "include" / "code.py").touch()
    sent = exclude_paths(str(tmp_path), PATTERNS)
    assert "include/code.py" in sent
    assert name not in sent
