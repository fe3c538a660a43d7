"""The environment of every program of the local stack, in this one place."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from dev.state import REPOSITORY, Ports, Secrets, State
from include.settings import NOT_SETTINGS
from include.training import SPIN_COUNT

MARKER = "LOCAL_STACK_STATE"  # in the environment of every program of a stack: how its left-overs are found
MLFLOW_BUCKET = "mlflow"
# Another account's or project's settings must not leak in: of the caller's own, these are dropped.
_DROPPED = ("AIRFLOW", "AWS_", "MLFLOW_", "GUNICORN_", "PG")
# What a client in the user's shell needs.
CLIENT_PREFIXES = ("AWS_", "MLFLOW_TRACKING_URI", "MLFLOW_S3_ENDPOINT_URL", "BERT_")
# An Airflow that something else starts has its own home and address, and logs there.
_ITS_OWN = (
    "AIRFLOW_HOME",
    "AIRFLOW__CORE__EXECUTOR",
    "AIRFLOW__LOGGING__",
    "AIRFLOW__SCHEDULER__CHILD_PROCESS_LOG_DIRECTORY",
    "AIRFLOW__WEBSERVER__BASE_URL",
    "AIRFLOW__WEBSERVER__WEB_SERVER_PORT",
)


def host() -> str:
    """What Airflow takes for this machine's name: a laptop's own changes with its network, which kills tasks."""
    return "127.0.0.1"


def environment(state: State, overrides: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of all programs.

    Args:
        state: the stack's folder; its ports must have been chosen.
        overrides: win over everything. The ``BERT_*`` variables that the stack keeps (``dev.chosen``) win over the
            defaults here.
    """
    ports = state.ports
    kept = callers_settings() if state.settings is None else state.settings
    inherited = {name: value for name, value in os.environ.items() if not name.upper().startswith((*_DROPPED, "BERT_"))}
    served = {"BERT_CONSOLE_SERVING_URL": f"http://127.0.0.1:{ports.serving}"}
    chosen = defaults() | served | inherited | kept | dict(overrides or {})
    return chosen | _process(state) | _aws(ports) | _mlflow(state) | _airflow(state, chosen) | dict(overrides or {})


def airflow_env(environment: Mapping[str, str]) -> dict[str, str]:
    """The part of a stack's environment that somebody else's Airflow needs, as its ``.env`` file has it."""
    prefixes = (*CLIENT_PREFIXES, "AIRFLOW")
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(prefixes) and not name.startswith(_ITS_OWN)
    }


def postgres_url(ports: Ports, secrets: Secrets, database: str) -> str:
    """A SQLAlchemy URL of one of the stack's databases."""
    return f"postgresql://postgres:{secrets.postgres_password}@127.0.0.1:{ports.postgres}/{database}"


def callers_settings() -> dict[str, str]:
    """The ``BERT_*`` variables of the caller; that of a stack on one machine is not to be changed."""
    found = {name.upper(): value for name, value in os.environ.items() if name.upper().startswith("BERT_")}
    return {name: value for name, value in found.items() if name not in (*NOT_SETTINGS, "BERT_ENVIRONMENT")}


def defaults() -> dict[str, str]:
    """What a local stack has otherwise than ``include.settings``."""
    return {
        "BERT_BUCKET": "bert",
        "BERT_BASE_MODEL": "packaged:all-MiniLM-L6-v2",
        "BERT_LOCAL_BASE_MODELS": "true",  # its one machine is the user's own
        "BERT_LEARNING_RATE": "2e-4",  # a small model learns in larger steps than the default, which is BERT-base's
        "OMP_NUM_THREADS": str(os.cpu_count() or 1),
    }


def _process(state: State) -> dict[str, str]:
    local = "127.0.0.1,localhost"
    return {
        MARKER: str(state.folder),
        "BERT_ENVIRONMENT": "local",  # whatever the caller's shell says: the login is admin, admin
        "SPT_NOENV": "1",  # setproctitle would write over the environment that MARKER is read from
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONUNBUFFERED": "1",
        "GUNICORN_CMD_ARGS": "--no-control-socket",  # one path in the home folder for all gunicorns
        "NO_PROXY": local,
        "no_proxy": local,
        "OPENBLAS_NUM_THREADS": "1",
        "GOMP_SPINCOUNT": SPIN_COUNT,  # the executor loads torch before any task imports the trainer
        "TOKENIZERS_PARALLELISM": "false",
        "OBJC_DISABLE_INITIALIZE_FORK_SAFETY": "YES",  # macOS: LocalExecutor forks
        "DO_NOT_TRACK": "true",
        "SCARF_NO_ANALYTICS": "true",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }


def _aws(ports: Ports) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{ports.s3}",
        "AWS_CONFIG_FILE": os.devnull,  # the user's profiles belong to real accounts
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def _mlflow(state: State) -> dict[str, str]:
    ports = state.ports
    return {
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{ports.mlflow}",
        "MLFLOW_BACKEND_STORE_URI": postgres_url(
            ports, state.secrets, "mlflow"
        ),  # the server's; not on its command line
        "MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{ports.s3}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # its extra worker processes serve LLM evaluation
        "GIT_PYTHON_REFRESH": "quiet",
    }


def _airflow(state: State, chosen: Mapping[str, str]) -> dict[str, str]:
    ports, secrets = state.ports, state.secrets
    sections: dict[str, dict[str, object]] = {
        "core": _core(state),
        "database": {
            "sql_alchemy_conn": postgres_url(ports, secrets, "airflow"),
            "load_default_connections": False,
        },
        "logging": {
            "base_log_folder": state.logs / "airflow",
            "dag_processor_manager_log_location": state.logs / "dag_processor.log",
            "worker_log_server_port": ports.task_logs,
            "trigger_log_server_port": ports.trigger_logs,  # the triggerer reads this name,
            "triggerer_log_server_port": ports.trigger_logs,  # and the webserver that one
        },
        "webserver": {
            "web_server_host": "127.0.0.1",
            "web_server_port": ports.airflow,
            "base_url": f"http://localhost:{ports.airflow}",
            "secret_key": secrets.webserver_key,
            "workers": 1,
            # Long enough for a busy machine; and so long a gunicorn that died as it started is waited for.
            "web_server_master_timeout": 240,
            "warn_deployment_exposure": False,
        },
        "api": {"auth_backends": "airflow.api.auth.backend.basic_auth,airflow.api.auth.backend.session"},
        "scheduler": _scheduler(state),
        "astro_sdk": {"xcom_storage_conn_id": "aws_default", "xcom_storage_url": f"s3://{chosen['BERT_BUCKET']}/xcom"},
        "openlineage": {"disabled": True},
        "usage_data_collection": {"enabled": False},
        "metrics": {"timer_unit_consistency": True},
    }
    settings = {
        f"AIRFLOW__{section}__{option}".upper(): str(value)
        for section, options in sections.items()
        for option, value in options.items()
    }
    return settings | {
        "AIRFLOW_HOME": str(state.airflow_home),
        "AIRFLOW_CONN_AWS_DEFAULT": "aws://",
        "AIRFLOW_CONN_WAREHOUSE": postgres_url(ports, secrets, "warehouse"),
    }


def _core(state: State) -> dict[str, object]:
    return {
        "dags_folder": REPOSITORY / "dags",
        "plugins_folder": REPOSITORY / "plugins",
        "load_examples": False,
        "executor": "dev.executor.PreloadedLocalExecutor",
        "parallelism": 4,
        "fernet_key": state.secrets.fernet_key,
        "hostname_callable": "dev.environment.host",
        "dags_are_paused_at_creation": False,
        "allowed_deserialization_classes": "airflow.* astro.*",
        # Training takes every core, and the DAGs still have to be parsed.
        "dagbag_import_timeout": 120,
        "dag_file_processor_timeout": 180,
        "min_serialized_dag_update_interval": 5,
        "min_serialized_dag_fetch_interval": 5,
    }


def _scheduler(state: State) -> dict[str, object]:
    return {
        # An upload starts its run within seconds …
        "scheduler_heartbeat_sec": 1,
        "scheduler_idle_sleep_time": 0.5,
        # … while a DAG file is parsed again at once when it changes, and otherwise seldom: parsing costs seconds.
        "min_file_process_interval": 300,
        "dag_dir_list_interval": 10,
        "parsing_processes": 1,
        # A task whose process was killed is tried again after a minute, not after five.
        "local_task_job_heartbeat_sec": 5,
        "scheduler_zombie_task_threshold": 60,
        "orphaned_tasks_check_interval": 30,
        "child_process_log_directory": state.logs / "airflow" / "scheduler",
    }
