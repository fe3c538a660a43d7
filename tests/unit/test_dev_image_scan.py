"""The search of an image for secrets, on images as `docker save` writes them."""

import io
import json
import tarfile
from typing import Any

import pytest

from dev.image_scan import findings

SECRET = "AKIA" + "Q4WYVT3ZLM7XK2PB"  # of the form of AWS's keys; nobody's


def tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def image(*layers: dict[str, bytes], **configuration: Any) -> io.BytesIO:
    names = [f"layer-{at}.tar" for at in range(len(layers))]
    manifest = [{"Config": "config.json", "Layers": names}]
    return io.BytesIO(
        tar(
            {"manifest.json": json.dumps(manifest).encode(), "config.json": json.dumps(configuration).encode()}
            | {name: tar(files) for name, files in zip(names, layers, strict=True)}
        )
    )


def test_an_image_without_secrets_has_no_findings() -> None:
    layer = {
        "usr/local/airflow/dags/one.py": b"connection = 'aws_default'\n",
        "usr/local/airflow/requirements.txt": b"a==1",
    }
    assert findings(image(layer, config={"Env": ["PATH=/usr/bin", "AWS_DEFAULT_REGION=us-east-1"]})) == []


def test_a_secret_in_a_file_is_found_though_a_later_layer_deletes_it() -> None:
    path = "usr/local/airflow/include/keys.py"
    deleted = {"usr/local/airflow/include/.wh.keys.py": b""}
    assert findings(image({path: f"KEY = '{SECRET}'".encode()}, deleted)) == [f"{path}: AWS Access Key"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("usr/local/airflow/include/k8s.yaml", "    client-key-data: LS0tLS1CRUdJTg=="),
        ("usr/local/airflow/include/one.json", '{"password": "hunter2"}'),
        ("usr/local/airflow/include/notes.txt", "hf_" + "a1B2c3D4e5" * 3 + "a1B2"),
        ("tmp/build.sh", "export AWS_SECRET_ACCESS_KEY=" + "wJalrXUt/FEMI+K7MDENG" + "bPxRfiCYzEXAMPLEKEY"),
        ("root/key", "-----BEGIN RSA PRIVATE KEY-----"),
    ],
)
def test_a_secret_is_found_by_its_form(name: str, content: str) -> None:
    assert [line.split(":")[0] for line in findings(image({name: content.encode()}))] == [name]


@pytest.mark.parametrize(
    "variable",
    [
        "AIRFLOW__CORE__FERNET_KEY=abc",
        'AIRFLOW_CONN_WAREHOUSE={"conn_type": "postgres", "password": "x"}',
        "DB_PASS=x",
        "MYSQL_PWD=x",
        "SLACK_WEBHOOK=https://example.com/x",
    ],
)
def test_a_variable_that_carries_a_secret_is_found_by_its_name_or_its_fields(variable: str) -> None:
    name = variable.partition("=")[0]
    assert findings(image({}, config={"Env": [variable]})) == [f"variable {name}: looks like a credential"]
    argument = {"created_by": f"|2 A=1 {variable} /bin/sh -c make"}
    assert findings(image({}, history=[argument])) == [f"variable {name}: looks like a credential"]


@pytest.mark.parametrize(
    "name",
    [
        "usr/local/airflow/include/prod.env",
        "usr/local/airflow/include/kubeconfig.yaml",
        "root/.aws/credentials",
        "usr/local/x.pem",
    ],
)
def test_a_file_that_has_no_place_in_an_image_is_found_by_its_name(name: str) -> None:
    assert findings(image({name: b"nothing to see"})) == [f"{name}: has no place in an image"]


def test_variables_and_build_steps_are_searched() -> None:
    found = findings(
        image(
            {},
            config={"Env": ["DB_PASSWORD=x", "SMTP_URL=smtp://me:hunter2hunter2@mail.internal.net"]},
            history=[{"created_by": f"RUN aws configure set aws_access_key_id {SECRET}"}],
        )
    )
    places = {line.split(":")[0] for line in found}
    assert places == {
        "build step 'RUN aws configure set aws_access_key_id '",
        "variable DB_PASSWORD",
        "variable SMTP_URL",
    }
    assert SECRET not in str(found)
    assert "hunter2" not in str(found)


def test_certificates_of_packages_are_no_findings() -> None:
    assert findings(image({"usr/local/lib/python3.11/site-packages/certifi/cacert.pem": b"-----BEGIN"})) == []
